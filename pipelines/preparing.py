"""Run folders of labelled tiles: cut from slides where annotations say, or taken as they are.

Each kind is a step as ``wsi-lmc tile`` has them: one task a slide, done once, with a record of how it came out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.common import Call
from pipelines.places import Places
from wsi_lmc.config import write_resolved
from wsi_lmc.contours import mask_to_polygons, to_geojson
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.grid import TileGrid
from wsi_lmc.labels import write_labels
from wsi_lmc.overview import draw_overview, write_jpeg
from wsi_lmc.patches import write_patches
from wsi_lmc.provenance import file_fingerprint, fingerprint
from wsi_lmc.publish import publish_text, publishing, working
from wsi_lmc.run import collect
from wsi_lmc.runfolder import Request, add_slides, plan, prepare_run
from wsi_lmc.slide import Overview
from wsi_lmc.steps.outcome import Outcome, Stage, still_valid, succeeded
from wsi_lmc.steps.tile import TileTask, open_task_slide, plan_tiles, tile_identity
from wsi_lmc.tilestore import TileStore
from wsi_lmc.tiling import cut_tiles
from wsi_lmc.tissue import TissueMask
from wsi_lmc.units import SlidePoint
from wsi_lmc.zarrio import Attributes


@dataclass(frozen=True)
class StoreTask:
    """Make a tile store: ``tile`` says of which slide (or image, or group of them), where, and how."""

    tile: TileTask

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return self.tile.slide_id

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to."""
        return "tile"


@dataclass(frozen=True)
class LabelTask(StoreTask):
    """Cut a slide's labelled tiles."""

    places: Places


def cut_labelled(task: LabelTask) -> Outcome:
    """The step of :class:`LabelTask`: label table, outline, overview, then the store.

    Raises:
        SlideError: the slide cannot be processed.
    """
    began, out, final = time.monotonic(), task.tile.out, task.tile.results[0]
    with working(out, f"tile-{task.slide_id}"):
        identity = tile_identity(task.tile) | {"places_fingerprint": task.places.identity()}
        finished = finished_store(final, identity)
        if finished is not None:
            outcome = succeeded(task.slide_id, "tile", finished.attributes["slide"], len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        with open_task_slide(task.tile) as slide:
            everywhere, mask, overview = plan_tiles(task.tile, slide)
            grid, labels = task.places.choose(slide, everywhere)
            write_labels(out, task.slide_id, grid.origins, labels)
            publish_eyes(task.tile, grid, (mask, overview), slide.geometry.bounds.origin)
            with publishing(out, final) as draft:
                cut_tiles(slide, grid, draft, task.tile.config.codec, {"outline_given": False, **identity})
            outcome = succeeded(task.slide_id, "tile", asdict(slide.info), len(grid))
    return replace(outcome, seconds=time.monotonic() - began)


@dataclass(frozen=True)
class PatchTask(StoreTask):
    """Images that are tiles already, of one group and label, as one store; ``tile.entry`` names it."""

    images: tuple[Path, ...]
    label: str


def take_patches(task: PatchTask) -> Outcome:
    """The step of :class:`PatchTask`.

    Raises:
        SlideError: one of them cannot be read.
    """
    began, out, final = time.monotonic(), task.tile.out, task.tile.results[0]
    px, mpp = task.tile.config.grid.tile_px, float(task.tile.entry.mpp or 0.0)
    with working(out, f"tile-{task.slide_id}"):
        made_of = fingerprint([file_fingerprint(path) for path in task.images])
        finished = finished_store(final, {"slide_fingerprint": made_of})
        store = finished or write_patches(out, task.slide_id, task.images, px, mpp)
        write_labels(out, task.slide_id, store.origins, [task.label] * len(store))
    outcome = succeeded(task.slide_id, "tile", store.attributes["slide"], len(store))
    return replace(outcome, fresh=finished is None, seconds=time.monotonic() - began)


def prepare[T: StoreTask](call: Call, stage: str, step: Callable[[T], Outcome], tasks: Sequence[T]) -> list[Outcome]:
    """Run one step over its tasks, into the run folder that they name, and say how it went.

    Raises:
        UsageError: nothing to do, or the run folder cannot be written to.
    """
    if not tasks:
        raise UsageError(f"{stage}: nothing to do", "images in the download", "Run with --check.")
    out, entries = tasks[0].tile.out, [task.tile.entry for task in tasks]
    prepare_run(out)
    add_slides(out, entries)
    write_resolved(out, {"tile": tasks[0].tile.config})
    plan(out, "tile", Request(tuple(entry.slide_id for entry in entries)))
    with call.executor(len(tasks)) as executor:
        outcomes = collect(executor.run(step, tasks), out, [task.slide_id for task in tasks], _heard_later)
    call.heard(stage, outcomes)
    return outcomes


def finished_store(final: Path, identity: Attributes) -> TileStore | None:
    """The published store, where it is what would be made now; one that does not open is made anew."""
    try:
        store = TileStore.open(final)
    except StoreError:
        return None
    return store if still_valid(f"tiles/{final.name}", store.attributes, identity, overwrite=False) else None


def _heard_later(outcome: Outcome) -> None:
    del outcome


def publish_eyes(task: TileTask, grid: TileGrid, found: tuple[TissueMask, Overview], corner: SlidePoint) -> None:
    """What a person looks at: the tissue's outline, and the overview with the tiles that were chosen.

    ``corner`` is that of the scanned area, which QuPath crops a slide to.
    """
    mask, overview = found
    _, for_outline, for_overview = task.results
    polygons = mask_to_polygons(mask.mask, mask.downsample)
    publish_text(task.out, for_outline, to_geojson(task.slide_id, polygons, corner))
    with publishing(task.out, for_overview) as draft:
        write_jpeg(draft, draw_overview(overview, mask, grid))
