"""Images that are no slides, cut side by side into tiles, with grades by masks or tables."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from pipelines.places import annotations_fingerprint
from pipelines.preparing import StoreTask, finished_store, publish_eyes
from wsi_lmc.annotations import CODINGS, grade_labels, mask_shares, read_grades
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import TileGrid
from wsi_lmc.labels import write_labels
from wsi_lmc.patches import read_image
from wsi_lmc.provenance import file_fingerprint, fingerprint
from wsi_lmc.publish import publishing, working
from wsi_lmc.slide import Overview, Sampling
from wsi_lmc.steps.outcome import Outcome, succeeded
from wsi_lmc.steps.tile import TileTask, settings_fingerprint
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.tissue import TissueConfig, TissueMask, tissue_of
from wsi_lmc.units import LevelSize, Mpp, SlidePoint, TileSize
from wsi_lmc.zarrio import Attributes

_NATIVE = 0.02  # an image within 2 % of the wanted pixel size is taken as it is, as levels of slides are
_SMALL_PIECE = 0.05  # of an image, which may be smaller than what is a small piece of tissue on a slide


@dataclass(frozen=True)
class Grades:
    """What is known of an image's tiles: a mask in a coding, or one label for all of it."""

    mask: Path | None = None
    coding: str = ""
    least: float = 0.5
    label: str = ""

    def of(self, origins: Int32[np.ndarray, "n 2"], footprint: tuple[float, float]) -> list[str]:
        """A label for each tile, or an empty text; places and sizes in pixels of the image, and of its mask."""
        if self.mask is None:
            return [self.label] * len(origins)
        coding = CODINGS[self.coding]
        return grade_labels(read_grades(self.mask, coding), coding, (1.0, 1.0), (origins, footprint), self.least)


@dataclass(frozen=True)
class ImageTask(StoreTask):
    """Cut an image into tiles: ``tile.entry`` states its microns per pixel.

    Reduced by area to the tiles' pixel size; only tiles with enough tissue are kept, what is left over is dropped.
    """

    grades: Grades


def cut_image(task: ImageTask) -> Outcome:
    """The step of :class:`ImageTask`: label table, outline, overview, then the store.

    Raises:
        SlideError: no image, or one that is coarser than the tiles should be.
    """
    began, tile, mpp = time.monotonic(), task.tile, float(task.tile.entry.mpp or 0.0)
    final, identity = tile.results[0], _identity(task)
    slide = {"id": task.slide_id, "mpp": [mpp, mpp], "mpp_source": "manifest", "reader": "images", "vendor": "images"}
    with working(tile.out, f"tile-{task.slide_id}"):
        finished = finished_store(final, identity)
        if finished is not None:
            outcome = succeeded(task.slide_id, "tile", slide, len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        pixels, factor = _reduced(read_image(tile.entry.path), mpp, tile.config.grid.tile_mpp)
        mask, overview = _find_tissue(pixels, factor, mpp, tile.config.tissue)
        grid = _lay(pixels, mask, _sampling(mpp, factor, tile), tile.config.grid.min_tissue)
        write_labels(tile.out, task.slide_id, grid.origins, task.grades.of(grid.origins, grid.sampling.footprint))
        publish_eyes(tile, grid, (mask, overview), SlidePoint(0, 0))
        with publishing(tile.out, final) as draft:
            _write_store(draft, pixels, grid, factor, {"slide": slide, **identity})
    return replace(succeeded(task.slide_id, "tile", slide, len(grid)), seconds=time.monotonic() - began)


def _identity(task: ImageTask) -> Attributes:
    grades, entry = task.grades, task.tile.entry
    known = [fingerprint(replace(grades, mask=None)), annotations_fingerprint(grades.mask) if grades.mask else ""]
    return {
        "config_fingerprint": settings_fingerprint(task.tile.config, entry),
        "slide_fingerprint": file_fingerprint(entry.path),
        "places_fingerprint": fingerprint(known),
    }


def _reduced(pixels: UInt8[np.ndarray, "y x 3"], mpp: float, wanted: float) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """An image at ``wanted`` microns per pixel, by means over area, and how many of its pixels make one."""
    factor = wanted / mpp
    if abs(factor - 1) <= _NATIVE:
        return pixels, 1.0
    if factor < 1:
        raise SlideError(
            "too_coarse", f"an image of {mpp:g} um/px", f"{wanted:g} um/px or finer", "Choose a larger tile_mpp."
        )
    size = (round(pixels.shape[1] / factor), round(pixels.shape[0] / factor))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def _find_tissue(
    pixels: UInt8[np.ndarray, "y x 3"], factor: float, mpp: float, config: TissueConfig
) -> tuple[TissueMask, Overview]:
    """Tissue as on slides, of a reduced image; measured in pixels of the image before."""
    um = mpp * factor
    reduction = max(1, round(config.overview_mpp / um))
    size = (max(1, pixels.shape[1] // reduction), max(1, pixels.shape[0] // reduction))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    own = replace(config, min_object_um2=min(config.min_object_um2, _SMALL_PIECE * pixels.size / 3 * um * um))
    mask, threshold = tissue_of(small, um * pixels.shape[1] / size[0], own)
    downsample = (pixels.shape[1] / size[0] * factor, pixels.shape[0] / size[1] * factor)
    return TissueMask(mask, downsample, threshold), Overview(small, downsample, None)


def _sampling(mpp: float, factor: float, task: TileTask) -> Sampling:
    px, side = task.config.grid.tile_px, task.config.grid.tile_px * factor
    own = Mpp(mpp, mpp)
    read = LevelSize(round(side), round(side))
    tile = TileSize(px, px)
    return Sampling(0, 1.0, read, tile, (side, side), task.config.grid.tile_mpp, own, own.scaled(factor, factor))


def _lay(pixels: UInt8[np.ndarray, "y x 3"], mask: TissueMask, sampling: Sampling, least: float) -> TileGrid:
    """All whole tiles side by side that hold enough tissue."""
    px = sampling.tile.width
    across, down = pixels.shape[1] // px, pixels.shape[0] // px
    places = np.stack(np.meshgrid(np.arange(across), np.arange(down)), axis=-1).reshape(-1, 2)
    origins = np.rint(places * sampling.footprint[0]).astype(np.int32)
    shares = mask_shares(mask.mask, mask.downsample, origins, sampling.footprint)
    kept = np.flatnonzero(shares >= least)
    return TileGrid(origins[kept], shares[kept].astype(np.float32), np.zeros(len(kept), bool), sampling, px)


def _write_store(
    draft: Path, pixels: UInt8[np.ndarray, "y x 3"], grid: TileGrid, factor: float, attributes: Attributes
) -> None:
    sampling, px = grid.sampling, grid.sampling.tile.width
    effective = [sampling.effective_mpp.x, sampling.effective_mpp.y]
    level = [sampling.level_mpp.x, sampling.level_mpp.y]
    about = {"px": px, "mpp": sampling.requested_mpp, "level_mpp": level, "effective_mpp": effective}
    about |= {"footprint": list(sampling.footprint), "resampled": "no" if factor == 1 else "area"}
    corners = np.rint(grid.origins / factor).astype(np.int64).tolist()
    tiles = [pixels[y : y + px, x : x + px] for x, y in corners]
    with Threads() as threads, TileStoreWriter(draft, len(tiles), px, "lossless") as writer:
        if tiles:
            writer.write(0, np.stack(tiles), threads)
        rows = TileRows(grid.origins, grid.tissue_fraction, np.zeros(len(tiles), np.uint8))
        writer.close(rows, {"tile": about, **attributes})
