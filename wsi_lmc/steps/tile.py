"""One slide into its tile store, contour and overview."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from annotated_doc import Doc

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.contours import mask_to_polygons, polygons_to_mask, read_geojson, to_geojson
from wsi_lmc.errors import SlideError, StoreError
from wsi_lmc.grid import GridConfig, TileGrid, measure_grid, place_tiles
from wsi_lmc.overview import draw_overview, write_jpeg
from wsi_lmc.provenance import file_fingerprint, fingerprint, to_json
from wsi_lmc.publish import publish_text, publishing, working
from wsi_lmc.slide import (
    GivenMpp,
    Overview,
    ReaderName,
    ReadOptions,
    Resample,
    Slide,
    check_file,
    open_slide,
    parse_mpp,
)
from wsi_lmc.steps.outcome import Outcome, Stage, still_valid, succeeded
from wsi_lmc.threads import threads_of_process
from wsi_lmc.tilestore import Codec, TileStore
from wsi_lmc.tiling import cut_tiles
from wsi_lmc.tissue import TissueConfig, TissueMask, find_tissue
from wsi_lmc.zarrio import Attributes


@dataclass(frozen=True)
class TileConfig:
    """How slides become tiles."""

    grid: GridConfig = field(default_factory=GridConfig)
    tissue: TissueConfig = field(default_factory=TissueConfig)
    mpp: Annotated[float | None, Doc("Microns per level-0 pixel of slides whose files state none.")] = None
    reader: Annotated[
        ReaderName,
        Doc("auto decodes JPEG tiles directly where that gives OpenSlide's pixels, else takes OpenSlide or tiffslide."),
    ] = "auto"
    resample: Annotated[
        Resample, Doc("What reduces tiles by 2, 4 or 8: the JPEG decoder itself (dct, faster), or means over area.")
    ] = "dct"
    codec: Annotated[
        Codec,
        Doc("auto keeps the slide's own JPEG bytes where tiles are its JPEG tiles, else lossless; jpeg: quality 95."),
    ] = "auto"


@dataclass(frozen=True)
class TileTask:
    """Cut one slide into the run folder ``out``; ``mask`` is a GeoJSON that replaces tissue detection."""

    entry: SlideEntry
    out: Path
    config: TileConfig
    mask: Path | None = None
    overwrite: bool = False

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return self.entry.slide_id

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to."""
        return "tile"

    @property
    def results(self) -> tuple[Path, Path, Path]:
        """What is written: the tile store, the outline, the overview."""
        folders = (("tiles", "zarr"), ("contours", "geojson"), ("overviews", "jpg"))
        store, outline, overview = (self.out / folder / f"{self.slide_id}.{suffix}" for folder, suffix in folders)
        return store, outline, overview


def tile_slide(task: TileTask) -> Outcome:
    """Cut one slide: contour, overview, then the store, each published whole; nothing where it is done already.

    Raises:
        SlideError: the slide cannot be processed, for the reason its code names.
    """
    began = time.monotonic()
    refuse_duplicate(task.entry)
    final = task.results[0]
    with working(task.out, f"tile-{task.slide_id}"):
        check_file(task.entry.path)
        identity = tile_identity(task)
        finished = _finished(final, identity, task.overwrite)
        if finished is not None:
            outcome = succeeded(task.slide_id, "tile", finished.attributes["slide"], len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        with open_task_slide(task) as slide:
            grid, mask, overview = plan_tiles(task, slide)
            tissue = {"source": "given" if task.mask else "detected", "threshold": mask.threshold}
            outline = _outline(task, slide, mask)
            given = {"outline_given": task.mask is not None, "outline_sha256": _sha256(outline)}
            attributes: Attributes = {"tissue": tissue | asdict(task.config.tissue), **identity, **given}
            with publishing(task.out, final) as draft, ThreadPoolExecutor(1, "eyes") as beside:
                eyes = beside.submit(_publish_eyes, task, outline, grid, (mask, overview))
                cut_tiles(slide, grid, draft, task.config.codec, attributes)
                eyes.result()  # a store is there only if the outline and the picture are
            outcome = succeeded(task.slide_id, "tile", asdict(slide.info), len(grid))
    return replace(outcome, seconds=time.monotonic() - began)


def refuse_duplicate(entry: SlideEntry) -> None:
    """Raise SlideError ``duplicate_name`` for a slide whose id another slide of the cohort has, too."""
    if entry.duplicate_of is not None:
        raise SlideError(
            "duplicate_name",
            f"several slides would be called {entry.duplicate_of!r} (this one is {entry.path.name})",
            "one id a slide",
            "Rename a file, or give ids in a manifest's column slide_id.",
        )


def open_task_slide(task: TileTask) -> Slide:
    """Open a task's slide with the pixel size its manifest row or ``--mpp`` gives.

    Raises:
        SlideError: it cannot be opened, or its pixel size is unknown or unusable.
    """
    given: GivenMpp | None = None
    if task.entry.mpp is not None:
        value = parse_mpp(task.entry.mpp)
        if value is None:
            raise SlideError(
                "mpp_invalid",
                f"mpp {task.entry.mpp!r} in the manifest",
                "microns per pixel, 0.05 to 10",
                "Correct the manifest's column mpp, or leave the cell empty to use the file's.",
            )
        given = GivenMpp(value, "manifest")
    elif task.config.mpp is not None:
        given = GivenMpp(task.config.mpp, "option --mpp")
    options = ReadOptions(task.config.reader, task.config.resample, threads_of_process())
    return open_slide(task.entry.path, task.slide_id, given, options)


def tile_identity(task: TileTask) -> Attributes:
    """Fingerprints of everything that decides a slide's tiles: its bytes, all settings, and a given outline.

    An outline that is given back as it was found here changes nothing, so it is no reason to cut the slide again.
    """
    outline = {"outline_sha256": _sha256(_mask_bytes(task.mask))} if task.mask else {"outline_given": False}
    return {
        "config_fingerprint": settings_fingerprint(task.config, task.entry),
        "slide_fingerprint": file_fingerprint(task.entry.path),
        **outline,
    }


def settings_fingerprint(config: TileConfig, entry: SlideEntry) -> str:
    """Of all settings that decide a slide's tiles."""
    return fingerprint({"config": to_json(config), "manifest_mpp": entry.mpp})


def plan_tiles(task: TileTask, slide: Slide) -> tuple[TileGrid, TissueMask, Overview]:
    """Find the tissue, or take the given outline, and lay the grid.

    Raises:
        SlideError: ``bad_mask``, ``too_coarse`` or ``too_large``.
    """
    measure_grid(slide.geometry, task.config.grid)  # refused before anything is decoded
    if task.mask is None:
        mask, overview = find_tissue(slide, task.config.tissue)
    else:
        overview = slide.overview(task.config.tissue.overview_mpp)
        polygons = read_geojson(task.mask, slide.geometry.bounds.origin)
        height, width = overview.pixels.shape[:2]
        filled = polygons_to_mask(polygons, (height, width), overview.downsample)
        mask = TissueMask(filled, overview.downsample, threshold=None)
    return place_tiles(mask, slide.geometry, task.config.grid), mask, overview


def _finished(final: Path, identity: Attributes, overwrite: bool) -> TileStore | None:
    """The published store, where it is what would be made now; a store that does not even open is made anew."""
    try:
        store = TileStore.open(final)
    except StoreError:
        return None
    return store if still_valid(f"tiles/{final.name}", store.attributes, identity, overwrite) else None


def _outline(task: TileTask, slide: Slide, mask: TissueMask) -> bytes:
    """The tissue as GeoJSON; a given one is kept as it came."""
    if task.mask is not None:
        return _mask_bytes(task.mask)
    polygons = mask_to_polygons(mask.mask, mask.downsample)
    return to_geojson(task.slide_id, polygons, slide.geometry.bounds.origin).encode()


def _publish_eyes(task: TileTask, outline: bytes, grid: TileGrid, found: tuple[TissueMask, Overview]) -> None:
    """What a person looks at: the outline and the overview."""
    mask, overview = found
    _, for_outline, for_overview = task.results
    publish_text(task.out, for_outline, outline.decode())
    with publishing(task.out, for_overview) as draft:
        write_jpeg(draft, draw_overview(overview, mask, grid))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mask_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SlideError(
            "bad_mask", f"no outline {path.name} ({error.strerror})", "a GeoJSON file", "Add it, or drop --mask."
        ) from error
