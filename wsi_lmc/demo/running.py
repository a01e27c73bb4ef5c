"""The stages of the demo, in order.

Tile every slide, train on one site's slides only, embed all, and measure on slides the encoder has not seen whether
the site still shows and whether a tissue class learnt at one site holds at the other: of LMC, of the same network
untrained, and of the same network trained as long without stain views, with and without Macenko's normalisation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from wsi_lmc.checkpoint import read_metrics
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.confinement import confine
from wsi_lmc.demo.rivals import RIVALS, Material, embed_rivals
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import Architecture
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import (
    EvaluateConfig,
    Evaluation,
    FeatureSet,
    SlideFeatures,
    evaluate,
    plot_training,
    prepare,
    write_evaluation,
)
from wsi_lmc.executor import Executor, SerialExecutor
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.pseudonyms import find_named_slides
from wsi_lmc.publish import publishing
from wsi_lmc.report import REPORT, ReportConfig, write_report
from wsi_lmc.run import CHECKPOINT, EmbedInputs, RunOptions, embed_cohort, find_features, tile_cohort, train_cohort
from wsi_lmc.runfolder import list_slides
from wsi_lmc.stain import ViewConfig
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.synthetic import CLASSES, load_truth, tile_classes, write_cohort
from wsi_lmc.training import StepReport, TrainConfig

COHORT, EVALUATION, UNTRAINED = "cohort", "evaluation", "untrained"
SLIDES_PER_SITE = {"north": 7, "south": 4}
_OF_FEW_STEPS: Mapping[str, Any] = MappingProxyType(
    {"lr": 1e-3, "views": ViewConfig(scale_low=0.67, scale_high=1.5), "precision": "float32"}
)
"""What a tiny network needs to learn in minutes on a CPU; the range by the AUROC on unseen slides of the source."""
_SEEN = 4  # slides of the source site that the encoder is trained on; the others stay unseen


@dataclass(frozen=True)
class DemoConfig:
    """``steps`` of training an encoder of ``architecture``; ``seed`` decides slides, weights and views.

    ``pseudonyms`` is a map as :mod:`wsi_lmc.pseudonyms` takes it.
    """

    steps: int = 600
    architecture: Architecture = "vit-demo"
    batch: int = 32
    seed: int = 0
    tile: TileConfig = TileConfig()  # noqa: RUF009  frozen
    pseudonyms: Path | None = None


@dataclass(frozen=True)
class Hearers:
    """Who is told of a stage's beginning, a slide's outcome, a training step."""

    stage: Callable[[str], None]
    step: Callable[[StepReport], None]


@dataclass(frozen=True)
class DemoResult:
    """What came out: ``evaluation`` is None where the slides are not of two sites, for the reason ``why_not``."""

    outcomes: list[Outcome]
    evaluation: Evaluation | None
    why_not: str
    files: tuple[Path, ...]


def run_demo(slides: Sequence[str], out: Path, config: DemoConfig, executor: Executor, hearers: Hearers) -> DemoResult:
    """Run every stage into ``out``; without ``slides`` on a synthetic cohort drawn into ``out/cohort``.

    Raises:
        UsageError: nothing that can be trained on.
    """
    confine(out, (out / name for name in (COHORT, EVALUATION, UNTRAINED, *RIVALS, CHECKPOINT, REPORT)))
    if not slides:
        hearers.stage(f"drawing {sum(SLIDES_PER_SITE.values())} synthetic slides of two sites")
        slides = [str(_synthetic_cohort(out / COHORT, config.seed))]
    hearers.stage("tiling")
    options = RunOptions(executor, overwrite=True)
    outcomes = tile_cohort(find_named_slides(slides, config.pseudonyms, out), out, config.tile, options)
    entries = {entry.slide_id: entry for entry in list_slides(out)}
    tiled = [outcome.slide_id for outcome in outcomes if outcome.state == "done"]
    stores = {slide_id: out / "tiles" / f"{slide_id}.zarr" for slide_id in tiled}
    source, seen = _choose_source([entries[slide_id] for slide_id in tiled])
    hearers.stage(f"training {config.architecture} on {len(seen)} slides{f' of site {source}' if source else ''}")
    training = _train_config(config, sum(outcome.tiles for outcome in outcomes if outcome.slide_id in seen))
    paths = [stores[slide_id] for slide_id in seen]
    train_cohort(paths, out / CHECKPOINT, training, SerialExecutor(), ("overwrite", hearers.step))
    hearers.stage("embedding")
    inputs, embedding = EmbedInputs(stores=list(stores.values())), EmbedConfig()
    checkpoint = str((out / CHECKPOINT).resolve())
    outcomes += embed_cohort(inputs, checkpoint, out, embedding, options)
    floor = f"untrained:{config.architecture}@{config.seed}"
    outcomes += embed_cohort(inputs, floor, out / UNTRAINED, embedding, options)
    if len({entries[slide_id].site for slide_id in tiled}) > 1:
        hearers.stage("the same without stain views, and with Macenko's normalisation instead, to compare with")
        own = frozenset(slide_id for slide_id in stores if entries[slide_id].site == source)
        outcomes += embed_rivals(Material(out, stores, own, seen), training, options)
    hearers.stage("evaluating")
    result = _evaluate(out, outcomes, (source, frozenset(seen)), config.seed)
    hearers.stage("writing the report")
    report = write_report([out], out / REPORT, ReportConfig("Demo: stain-invariant features of two sites"))
    return replace(result, files=(report, *result.files))


def _synthetic_cohort(folder: Path, seed: int) -> Path:
    """Draw the cohort, or take the one that is there: the same seed gives the same slides."""
    manifest = folder / "manifest.csv"
    return manifest if manifest.is_file() else write_cohort(folder, SLIDES_PER_SITE, seed)


def _choose_source(entries: Sequence[SlideEntry]) -> tuple[str, list[str]]:
    """The source site (the first of the manifest) and its slides to train on, leaving some of it unseen."""
    if not entries:
        raise UsageError("no slide with a tile of tissue", "one at least", "See slides.csv for the reasons.")
    source = entries[0].site
    own = [entry.slide_id for entry in entries if entry.site == source]
    several_sites = len({entry.site for entry in entries}) > 1
    return source, own[: max(1, min(_SEEN, len(own) - 2))] if several_sites else own


def _train_config(config: DemoConfig, tiles: int) -> TrainConfig:
    training = TrainConfig(
        steps=config.steps,
        batch=min(config.batch, max(2, tiles // 2)),
        seed=config.seed,
        architecture=config.architecture,
        held_out_share=0.15,
        evaluate_every=max(1, config.steps // 6),
        checkpoint_every=max(1, config.steps // 2),
    )
    return replace(training, **_OF_FEW_STEPS) if config.architecture == "vit-demo" else training


def _evaluate(out: Path, outcomes: list[Outcome], trained: tuple[str, frozenset[str]], seed: int) -> DemoResult:
    folder = out / EVALUATION
    source, seen = trained
    picture = folder / "training.png"
    with publishing(out, picture) as draft:
        plot_training(read_metrics(out / CHECKPOINT), draft)
    pictures = sorted((out / "overviews").glob("*.jpg"))[:1]
    entries = {entry.slide_id: entry for entry in list_slides(out)}
    rivals = {name: out / folder for folder, name in RIVALS.items() if (out / folder / "features").is_dir()}
    there = {"untrained": out / UNTRAINED, **rivals, "LMC": out}
    sets = [_feature_set(name, find_features(folder), entries, out) for name, folder in there.items()]
    config = EvaluateConfig(source=source, seed=seed, seen=tuple(sorted(seen)))
    try:
        ready, _ = prepare(sets, config, ("colour",))
        evaluation = evaluate(ready, config)
    except UsageError as error:
        return DemoResult(outcomes, None, str(error), (picture, *pictures))
    files = write_evaluation(evaluation, ready, folder, seed)
    return DemoResult(outcomes, evaluation, "", (*files, picture, *pictures))


def _feature_set(name: str, stores: Sequence[FeatureStore], entries: Mapping[str, SlideEntry], out: Path) -> FeatureSet:
    slides = tuple(_describe(store, entries[store.slide_id], out) for store in stores if store.slide_id in entries)
    return FeatureSet(name, slides, CLASSES, sum(len(slide.labels) for slide in slides))


def _describe(store: FeatureStore, entry: SlideEntry, out: Path) -> SlideFeatures:
    """A slide's features with its site and patient, and the classes of its tiles where they are known."""
    labels = np.full(len(store), -1, np.int64)
    truth = out / COHORT / "truth"
    if (truth / f"{store.slide_id}.json").is_file():
        labels = tile_classes(
            load_truth(truth, store.slide_id), store.origins, tuple(store.attributes["tile"]["footprint"])
        )
    tiles = out / "tiles" / f"{store.slide_id}.zarr"
    return SlideFeatures(store.slide_id, entry.patient, entry.site, store.features, labels, store.origins, tiles)
