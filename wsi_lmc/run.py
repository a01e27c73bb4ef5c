"""The stages over a whole cohort: what to do, handed to whoever runs it, recorded as it comes in.

Each function reads like the command of its name; the command line and the demo both call these.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.config import write_resolved
from wsi_lmc.discretion import told_discreetly, told_mask
from wsi_lmc.division import WHOLE, Shard
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import Executor
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.passing import is_full
from wsi_lmc.runfolder import (
    Request,
    add_slides,
    confine_results,
    list_slides,
    plan,
    prepare_run,
    record,
    write_table,
)
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tilestore import TileStore

if TYPE_CHECKING:
    from wsi_lmc.embedding import EmbedConfig
    from wsi_lmc.training import StepReport, TrainConfig, TrainResult
    from wsi_lmc.training.run import Start

OnOutcome = Callable[[Outcome], None]
CHECKPOINT = "checkpoint"


def _ignore(outcome: Outcome) -> None:
    del outcome


@dataclass(frozen=True)
class RunOptions:
    """How a stage is run: ``mask`` is a GeoJSON or a folder of ``<slide_id>.geojson``; ``on_outcome`` hears of each.

    Only ``shard`` of the cohort is done; ids, masks and the manifest are always those of the whole.
    """

    executor: Executor
    mask: Path | None = None
    overwrite: bool = False
    on_outcome: OnOutcome = _ignore
    shard: Shard = WHOLE


def tile_cohort(slides: Sequence[SlideEntry], out: Path, config: TileConfig, options: RunOptions) -> list[Outcome]:
    """Tile slides into the run folder ``out``; one outcome a slide of the shard, in the order of ``slides``.

    A shard of several has the order of their ids.

    Raises:
        UsageError: the folder or the mask does not fit; nothing was started.
    """
    masks = find_masks(slides, options.mask)
    prepare_run(out)
    add_slides(out, slides)
    write_resolved(out, {"tile": config})
    plan(out, "tile", Request(tuple(entry.slide_id for entry in slides), told_mask(options.mask, slides)))
    own = options.shard.take(slides, lambda entry: entry.slide_id)
    tasks = [TileTask(entry, out, config, masks.get(entry.slide_id), options.overwrite) for entry in own]
    confine_results(out, "tile", {task.slide_id: task.results for task in tasks})
    found = told_discreetly(options.executor.run(tile_slide, tasks), slides, masks)
    return collect(found, out, [task.slide_id for task in tasks], options.on_outcome)


@dataclass(frozen=True)
class EmbedInputs:
    """What is embedded: tile stores, and slides whose tiles are read on the fly with ``tile``."""

    stores: Sequence[Path] = ()
    slides: Sequence[SlideEntry] = ()
    tile: TileConfig = TileConfig()  # noqa: RUF009  frozen


def embed_cohort(
    inputs: EmbedInputs,
    encoder: str,
    out: Path,
    config: "EmbedConfig",
    options: RunOptions,
) -> list[Outcome]:
    """Embed tile stores and slides into the run folder ``out``; one outcome a slide of the shard.

    Raises:
        UsageError: folder, encoder or device does not fit, or an id occurs twice; nothing was started.
    """
    from wsi_lmc.backends import accelerated  # torch only where it is needed
    from wsi_lmc.encoder import load_encoder
    from wsi_lmc.normalisers import load_normaliser
    from wsi_lmc.pooling import pooled
    from wsi_lmc.steps.embed import EmbedTask, embed_slide

    masks = find_masks(inputs.slides, options.mask)
    device = config.device_here()
    sha256 = accelerated(pooled(load_encoder(encoder, device), config.pooling), config.backend).sha256
    load_normaliser(config.normalise, config.reference, config.weights, device)  # so that it fails now, if at all
    sources: dict[str, Path | TileTask] = {}
    for store in inputs.stores:
        _add(sources, store.name.removesuffix(".zarr"), store)
    for entry in inputs.slides:
        task = TileTask(entry, out, inputs.tile, masks.get(entry.slide_id))
        _add(sources, entry.slide_id, task)
    prepare_run(out)
    add_slides(out, inputs.slides)
    write_resolved(out, {"embed": config} | ({"tile": inputs.tile} if inputs.slides else {}))
    plan(out, "embed", _request(inputs, list(sources), encoder, out, options.mask))
    own = options.shard.take(list(sources), str)
    tasks = [
        EmbedTask(slide_id, sources[slide_id], out, encoder, sha256, config, options.overwrite) for slide_id in own
    ]
    confine_results(out, "embed", {task.slide_id: [task.result] for task in tasks})
    found = told_discreetly(options.executor.run(embed_slide, tasks, on_gpu=True), inputs.slides, masks)
    return collect(found, out, own, options.on_outcome)


def _request(inputs: EmbedInputs, slides: Sequence[str], encoder: str, out: Path, mask: Path | None) -> Request:
    """What is asked for, so that it can be asked for again, also once the run folder has been moved."""
    own = out.resolve()
    stores: dict[str, str] = {}
    for store in inputs.stores:
        path = store.resolve()
        inside = path.is_relative_to(own)
        stores[store.name.removesuffix(".zarr")] = (path.relative_to(own) if inside else path).as_posix()
    folder = Path(encoder).resolve() if Path(encoder).is_dir() else None
    if folder is not None:
        encoder = (folder.relative_to(own) if folder.is_relative_to(own) else folder).as_posix()
    return Request(tuple(slides), told_mask(mask, inputs.slides), encoder, stores)


def train_cohort(
    stores: Sequence[Path],
    out: Path,
    config: "TrainConfig",
    executor: Executor,
    how: "tuple[Start, Callable[[StepReport], None]]",
) -> "TrainResult":
    """Train an encoder into the checkpoint folder ``out``: on a GPU worker where the executor has one, else here.

    ``how`` is whether to start anew or resume, and who hears of every step (nobody on another machine).

    Raises:
        UsageError: the folder, the cohort or the configuration does not fit; nothing was changed.
        TrainingError: training had to stop.
    """
    start, on_step = how
    prepare_run(out)
    if executor.has_gpu():
        return executor.call(_train, stores, out, config, start)
    return _train(stores, out, config, start, on_step)


def _train(
    paths: Sequence[Path],
    out: Path,
    config: "TrainConfig",
    start: "Start",
    on_step: "Callable[[StepReport], None] | None" = None,
) -> "TrainResult":
    from wsi_lmc.training import Watch, train

    result = train(open_stores(paths), out, config, start, Watch(on_step, _entries_of(paths)))
    write_resolved(out, {"train": config})
    return result


def _entries_of(stores: Sequence[Path]) -> list[SlideEntry]:
    """What manifests of run folders say of the slides whose stores lie in them."""
    names = {store.resolve() for store in stores}
    runs = sorted({path.parent.parent for path in names if path.parent.name == "tiles"})
    entries = [(run / "tiles" / f"{entry.slide_id}.zarr", entry) for run in runs for entry in list_slides(run)]
    return [entry for path, entry in entries if path in names]


def find_features(run_folder: Path) -> list[FeatureStore]:
    """Feature stores of a run, by slide id.

    Raises:
        UsageError: there are none.
        StoreError: one cannot be opened.
    """
    paths = sorted((run_folder / "features").glob("*.zarr"))
    if not paths:
        raise UsageError(f"no features in {run_folder}", "a run folder", "Run 'wsi-lmc embed' first.")
    return [FeatureStore.open(path) for path in paths]


def find_stores(inputs: Sequence[Path]) -> list[Path]:
    """Tile stores named by run folders, folders of stores, or stores themselves.

    Raises:
        UsageError: an input that holds no tile store.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        stores = [path] if path.suffix == ".zarr" else sorted((_tiles_folder(path)).glob("*.zarr"))
        if not stores or not all(store.is_dir() for store in stores):
            raise UsageError(
                f"no tile stores in {path}", "a run folder, or stores ending in .zarr", "Run 'wsi-lmc tile' first."
            )
        found |= dict.fromkeys(store.resolve() for store in stores)
    return list(found)


def holds_stores(path: Path) -> bool:
    """Whether an input of ``embed`` names tile stores, and not slides."""
    return path.suffix == ".zarr" or (path.is_dir() and any(_tiles_folder(path).glob("*.zarr")))


def open_stores(paths: Sequence[Path]) -> list[TileStore]:
    """Open tile stores, leaving out those without a tile."""
    stores = [TileStore.open(path) for path in paths]
    return [store for store in stores if len(store)]


def _tiles_folder(path: Path) -> Path:
    return path / "tiles" if (path / "tiles").is_dir() else path


def _add(sources: dict[str, Path | TileTask], slide_id: str, source: Path | TileTask) -> None:
    if slide_id in sources:
        raise UsageError(f"slide {slide_id} is named twice", "one store or slide an id", "Name it once.")
    sources[slide_id] = source


def find_masks(slides: Sequence[SlideEntry], mask: Path | None) -> dict[str, Path]:
    """Outlines by slide id, of a GeoJSON or a folder of ``<slide_id>.geojson``; none where no mask is given.

    Raises:
        UsageError: it does not exist, or is one for several slides.
    """
    if mask is None:
        return {}
    if mask.is_dir():
        return {entry.slide_id: mask / f"{entry.slide_id}.geojson" for entry in slides}
    if not mask.is_file():
        raise UsageError(f"no mask {mask}", "a GeoJSON file, or a folder of <slide_id>.geojson", "Check --mask.")
    if len(slides) > 1:
        raise UsageError(
            f"one mask for {len(slides)} slides",
            "a folder of <slide_id>.geojson",
            "Give the folder, or a single slide.",
        )
    return {entry.slide_id: mask for entry in slides}


def collect(found: Iterator[Outcome], out: Path, order: list[str], on_outcome: OnOutcome) -> list[Outcome]:
    """Record outcomes as they come; the table is written even where the run is interrupted.

    Raises:
        UsageError: the disk is full. No slide is blamed for that: those that met it are not recorded.
    """
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in found:
            if outcome.code == "disk_full":
                raise _disk_full(out, outcome.reason)
            record(out, outcome)
            outcomes[outcome.slide_id] = outcome
            on_outcome(outcome)
    except OSError as error:
        if is_full(error):
            raise _disk_full(out, str(error)) from error
        raise
    finally:
        with suppress(OSError):  # then another one is on its way; the table is derived again next time
            write_table(out)
    return [outcomes[slide_id] for slide_id in order]


def _disk_full(out: Path, said: str) -> UsageError:
    return UsageError(
        f"no room left on the disk of {out} ({said})",
        "room for the run",
        "Free space and run the same command again: what is published is whole, and it goes on from there.",
    )
