"""Where the tiles lie: one global grid over the slide, in level-0 pixels; pure geometry, no files."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import cv2
import numpy as np
from annotated_doc import Doc
from jaxtyping import Bool, Float32, Float64, Int32

from wsi_lmc.errors import SlideError, UsageError
from wsi_lmc.slide import Sampling, SlideGeometry, choose_sampling
from wsi_lmc.tissue import TissueMask

SMALLEST_TILE_MPP, LARGEST_TILE_MPP = 0.01, 1000.0


@dataclass(frozen=True)
class GridConfig:
    """Which tiles are cut."""

    tile_px: Annotated[int, Doc("Side of a tile, in target pixels.")] = 256
    tile_mpp: Annotated[float, Doc("Microns per target pixel; 0.5 is what is often called 20x.")] = 0.5
    stride: Annotated[int | None, Doc("Step from tile to tile, in target pixels; by default the tile's side.")] = None
    min_tissue: Annotated[float, Doc("Least share of a tile's area in the tissue mask; 0 keeps the whole grid.")] = 0.5
    edge: Annotated[Literal["drop", "pad"], Doc("Tiles that would leave the slide: drop, or pad with background.")] = (
        "drop"
    )
    max_tiles: Annotated[int, Doc("A slide of more tiles is refused before anything is decoded.")] = 2_000_000
    max_gigapixels: Annotated[
        float, Doc("A slide of more pixels (10^9, at its finest level) is refused before anything is decoded.")
    ] = 200.0

    def __post_init__(self) -> None:
        stride = self.tile_px if self.stride is None else self.stride
        if min(self.tile_px, stride, self.max_tiles) < 1:
            found = f"tile_px = {self.tile_px}, stride = {self.stride}, max_tiles = {self.max_tiles}"
            raise UsageError(found, "1 or more each", "Correct them.")
        if not (SMALLEST_TILE_MPP <= self.tile_mpp <= LARGEST_TILE_MPP and self.max_gigapixels > 0):
            found = f"tile_mpp = {self.tile_mpp}, max_gigapixels = {self.max_gigapixels}"
            raise UsageError(
                found, f"{SMALLEST_TILE_MPP} to {LARGEST_TILE_MPP} um/px, and more than 0", "Correct them."
            )
        if not 0 <= self.min_tissue <= 1:
            raise UsageError(f"min_tissue = {self.min_tissue}", "a share from 0 to 1", "Correct it.")


@dataclass(frozen=True)
class TileGrid:
    """Tiles to cut from one slide, row-major over (y, x); ``origins`` are x, y in level-0 pixels."""

    origins: Int32[np.ndarray, "n 2"]
    tissue_fraction: Float32[np.ndarray, " n"]
    padded: Bool[np.ndarray, " n"]
    sampling: Sampling
    stride_px: int

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, rows: range) -> "TileGrid":
        """Some of its tiles."""
        own = slice(rows.start, rows.stop)
        return replace(
            self, origins=self.origins[own], tissue_fraction=self.tissue_fraction[own], padded=self.padded[own]
        )


def place_tiles(mask: TissueMask, geometry: SlideGeometry, config: GridConfig) -> TileGrid:
    """Lay the grid from the top-left of the scanned area and keep the tiles with enough tissue.

    One grid for the whole slide, so tiles of neighbouring pieces of tissue never overlap.

    Raises:
        SlideError: ``too_coarse`` or ``too_large``.
    """
    sampling, counts = measure_grid(geometry, config)
    stride_px, bounds = config.stride or config.tile_px, geometry.bounds
    spans = ((bounds.origin.x, bounds.size.width), (bounds.origin.y, bounds.size.height))
    xs, ys = (
        np.rint(start + np.arange(count) * side * stride_px / config.tile_px).astype(np.int32)
        for (start, _), count, side in zip(spans, counts, sampling.footprint, strict=True)
    )
    fraction = tissue_fractions(mask, xs, ys, sampling.footprint)
    keep = fraction >= config.min_tissue
    rows, columns = np.nonzero(keep)
    origins = np.stack([xs[columns], ys[rows]], axis=1).astype(np.int32)
    ends = origins + np.asarray(sampling.footprint)
    padded = (ends[:, 0] > bounds.right + 0.5) | (ends[:, 1] > bounds.bottom + 0.5)
    return TileGrid(origins, fraction[keep].astype(np.float32), padded, sampling, stride_px)


def measure_grid(geometry: SlideGeometry, config: GridConfig) -> tuple[Sampling, tuple[int, int]]:
    """How tiles are read, and how many lie side by side and below each other; to be asked before pixels are.

    Raises:
        SlideError: ``too_coarse`` or ``too_large``.
    """
    size = geometry.size
    if size.width * size.height > config.max_gigapixels * 1e9:
        raise SlideError(
            "too_large",
            f"{size.width} x {size.height} pixels",
            f"{config.max_gigapixels:g} gigapixels at most",
            "If the slide is real, raise --max-gigapixels.",
        )
    sampling = choose_sampling(geometry, config.tile_px, config.tile_mpp)
    step, bounds = (config.stride or config.tile_px) / config.tile_px, geometry.bounds.size
    across, down = (
        axis_count(span, side, side * step, config.edge == "pad")
        for span, side in zip((bounds.width, bounds.height), sampling.footprint, strict=True)
    )
    if across * down > config.max_tiles:
        raise SlideError(
            "too_large",
            f"a grid of {across} x {down} tiles",
            f"{config.max_tiles} tiles at most",
            "If the slide is real, raise --max-tiles; a wrong mpp makes grids too large, too.",
        )
    return sampling, (across, down)


def axis_count(span: int, side: float, step: float, pad: bool) -> int:
    """Number of tiles of ``side`` every ``step`` level-0 pixels along a ``span`` of them.

    >>> axis_count(1000, 256, 256, pad=False), axis_count(1000, 256, 256, pad=True)
    (3, 4)
    """
    if pad:
        return max(0, int(np.ceil(span / step)))
    return int((span - side + 1e-6) // step) + 1 if span + 1e-6 >= side else 0


def tissue_fractions(
    mask: TissueMask, xs: Int32[np.ndarray, " x"], ys: Int32[np.ndarray, " y"], footprint: tuple[float, float]
) -> Float64[np.ndarray, "y x"]:
    """Share of each tile's area inside the mask, exactly, for tiles at every pair of ``ys`` and ``xs``.

    By a summed-area table read at fractional positions: linear between its nodes, since the mask is constant within a
    pixel. Parts of a tile beyond the mask count as no tissue.
    """
    table = np.asarray(cv2.integral(mask.mask.astype(np.uint8), sdepth=cv2.CV_64F), np.float64)
    left, right = (xs / mask.downsample[0], (xs + footprint[0]) / mask.downsample[0])
    top, bottom = (ys / mask.downsample[1], (ys + footprint[1]) / mask.downsample[1])
    across = _between(table, left, right)
    inside = _between(across.T, top, bottom).T
    area = footprint[0] / mask.downsample[0] * (footprint[1] / mask.downsample[1])
    return np.clip(inside / area, 0.0, 1.0)


def _between(
    table: Float64[np.ndarray, "rows columns"], low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, "rows n"]:
    """Differences of a cumulative table along its last axis, at fractional positions."""

    def at(position: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "rows n"]:
        inside = np.clip(position, 0, table.shape[1] - 1)
        lower = np.minimum(inside.astype(np.int64), max(table.shape[1] - 2, 0))
        share = inside - lower
        return table[:, lower] * (1 - share) + table[:, lower + 1] * share

    return at(high) - at(low)
