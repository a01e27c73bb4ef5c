"""From tiles to an encoder, features and what they are worth: train, embed, evaluate."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Unpack, cast

from wsi_lmc.api.learningsettings import EmbedSettings, EvaluateSettings, TrainSettings
from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.cohort import find_slides
from wsi_lmc.config import build, refuse_unknown, settings_of
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import Encoder
from wsi_lmc.errors import SlideCode, SlideError, UsageError
from wsi_lmc.evaluation import Baseline, EvaluateConfig, Evaluation, prepare, write_evaluation
from wsi_lmc.evaluation import evaluate as measure
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featuresets import Reading, load_feature_sets
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.regrouping import LABEL, PATIENT, SITE, Columns, regroup
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, holds_stores, train_cohort
from wsi_lmc.runfolder import SLIDES
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.trainedslides import slides_trained_on
from wsi_lmc.training import StepReport, TrainConfig, TrainResult
from wsi_lmc.training.run import Start

Paths = str | Path | Sequence[str | Path]


def train(
    tiles: Paths,
    out: str | Path,
    start: Start = "new",
    on_step: Callable[[StepReport], None] | None = None,
    **settings: Unpack[TrainSettings],
) -> TrainResult:
    """Train an encoder on the unlabelled tiles of one site, by Latent Manifold Compaction.

    Args:
        tiles: run folders, or tile stores, of one site.
        out: the checkpoint folder; ``Encoder.load(out)`` loads what was trained.
        start: "new" wants a folder without a training, "resume" goes on from its newest state, "overwrite" begins anew.
        on_step: called after every step.
        settings: flags of ``wsi-lmc train``, such as ``steps=50`` or ``architecture="vit-demo"``.

    Raises:
        UsageError: folder, tiles or a setting does not fit; nothing was changed.
        TrainingError: training had to stop.
    """
    config = build(TrainConfig, settings, "train")
    return train_cohort(find_stores(_paths(tiles)), Path(out), config, SerialExecutor(), (start, on_step or _ignore))


def embed(
    inputs: Paths,
    encoder: Encoder | str | Path,
    out: str | Path,
    overwrite: bool = False,
    workers: int = 0,
    **settings: Unpack[EmbedSettings],
) -> list[FeatureStore]:
    """Turn every tile into features with a frozen encoder; only what is missing in ``out`` is done.

    Args:
        inputs: run folders or tile stores, or slides, whose tiles are then read on the fly.
        encoder: what :meth:`Encoder.load` gives or takes.
        out: the run folder; features of a slide lie in ``out/features/<slide_id>.zarr``.
        overwrite: make features anew that differ from what is asked for, instead of refusing to.
        workers: processes; 0 works in this one.
        settings: flags of ``wsi-lmc embed``, such as ``dtype="float16"``, or for slides ``tile_mpp=1.0``.

    Returns:
        One store a slide, in the order of the inputs: ``features`` float (N, D), ``origins`` int32 (N, 2), x, y in
        level-0 pixels, ``valid`` uint8 (N,). A slide without tissue has no rows.

    Raises:
        UsageError: inputs, encoder or a setting does not fit; nothing was started.
        SlideError: a slide failed, for the reason its ``code`` names; all others are done, ``out/slides.csv`` has all.
    """
    of_tiles = {setting.name for setting in settings_of(TileConfig)}
    given: dict[str, object] = dict(settings)
    if isinstance(encoder, Encoder):
        given = {"device": str(encoder.device), "precision": encoder.precision} | given
    config = build(EmbedConfig, {key: value for key, value in given.items() if key not in of_tiles}, "embed")
    tile = build(TileConfig, {key: value for key, value in given.items() if key in of_tiles}, "embed")
    paths, out = _paths(inputs), Path(out)
    stores = find_stores([path for path in paths if holds_stores(path)])
    slides = [str(path) for path in paths if not holds_stores(path)]
    what = EmbedInputs(stores, find_slides(slides) if slides else (), tile)
    with make_executor(LocalWorkers(workers)) as executor:
        outcomes = embed_cohort(what, _spec(encoder), out, config, RunOptions(executor, overwrite=overwrite))
    _raise_first(outcomes, out)
    return [FeatureStore.open(out / "features" / f"{outcome.slide_id}.zarr") for outcome in outcomes]


def evaluate(
    features: Paths | Mapping[str, Paths],
    manifest: str | Path | None = None,
    out: str | Path | None = None,
    baselines: Sequence[Baseline] = (),
    **settings: Unpack[EvaluateSettings],
) -> Evaluation:
    """Measure how much of the site is in features, and whether what is learnt at one site holds at another.

    Args:
        features: run folders that :func:`embed` wrote; or such by a name of their encoder, to compare several.
        manifest: CSV with columns slide, slide_id, site, patient, label; goes before those of the run folders.
        out: where evaluation.json, evaluation.csv and pictures are written; nowhere by default.
        baselines: "colour", "texture": what these measure of the tiles stands beside the features.
        settings: flags of ``wsi-lmc evaluate``, such as ``source="north"`` or ``by="scanner"``.

    Returns:
        ``encoders``: for each its ``measures``, with interval, floor and chance; see docs/evaluation.md.

    Raises:
        UsageError: not two sites, a slide that no manifest knows, or a setting that does not fit.
    """
    refuse_unknown(settings, EvaluateSettings.__annotations__, "evaluate")
    table, seed = Path(manifest) if manifest else None, settings.get("seed", 0)
    reading = Reading(table, tuple(settings.get("classes", ())), settings.get("tiles_per_slide", 0), seed)
    by = settings.get("by", SITE)
    default = EvaluateConfig()
    config = EvaluateConfig(
        by=by,
        source=settings.get("source", ""),
        k=settings.get("k", default.k),
        seed=seed,
        tiles_per_site=settings.get("tiles_per_site", default.tiles_per_site),
        seen=slides_trained_on(_paths(settings.get("seen", ()))),
    )
    columns = Columns(by, settings.get("label", LABEL), settings.get("group", PATIENT))
    ready, _ = prepare(regroup(load_feature_sets(_specs(features), reading), columns, table), config, baselines)
    evaluation = measure(ready, config)
    if out is not None:
        write_evaluation(evaluation, ready, Path(out), seed)
    return evaluation


def _paths(named: Paths) -> list[Path]:
    return [Path(named)] if isinstance(named, str | Path) else [Path(path) for path in named]


def _specs(features: Paths | Mapping[str, Paths]) -> list[str]:
    """Sets as the command line names them."""
    if isinstance(features, Mapping):
        return [f"{name}={path}" for name, paths in features.items() for path in _paths(paths)]
    return [str(path) for path in _paths(features)]


def _spec(encoder: Encoder | str | Path) -> str:
    """What names an encoder; a folder by its absolute path, since workers may run elsewhere.

    Raises:
        UsageError: an encoder that was not loaded has no name that another process could load it by.
    """
    if isinstance(encoder, Encoder):
        if encoder.spec is None:
            raise UsageError(f"encoder {encoder.name}, made in memory", "one from Encoder.load", "Save and load it.")
        return encoder.spec
    return str(Path(encoder).resolve()) if Path(encoder).is_dir() else str(encoder)


def _raise_first(outcomes: Sequence[Outcome], out: Path) -> None:
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        return
    codes = ", ".join(f"{count} {code}" for code, count in Counter(outcome.code for outcome in failed).most_common())
    first = failed[0]
    raise SlideError(
        cast(SlideCode, first.code),
        f"{len(failed)} of {len(outcomes)} slides failed ({codes}), {first.slide_id} first: {first.reason}",
        "no failed slide",
        f"{first.remedy} All are in {out / SLIDES}.",
    )


def _ignore(step: StepReport) -> None:
    del step
