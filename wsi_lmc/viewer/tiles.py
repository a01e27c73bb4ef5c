"""The tiles of one slide as they are shown: where each lies, and one cell of a raster for each.

All places are in level-0 pixels of what is shown: the slide's own; or, of packed images, which lie on no slide, those
of a sheet on which their tiles stand in rows.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.tilestore import TileStore

_OFF_GRID = 0.25  # of a step: tiles further from a common grid are painted by their places
_MOST_CELLS = 25_000_000
_CANVAS_PX = 2048
_PACKED = "images"  # what stores of packed images name as their vendor


@dataclass(frozen=True)
class Area:
    """A rectangle in level-0 pixels: its left and top edge, its width and height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tiles:
    """Tiles of a slide: ``origins`` x, y of their corners, ``footprint`` width and height, ``step`` to the next one.

    ``stored`` are the corners as stores and tables have them, which are others on a sheet. ``size`` is width and height
    of what is shown, ``bounds`` the corner of the scanned area, from which the grid starts. ``mpp`` is microns per
    level-0 pixel, None where nothing says. ``sheet`` says that they lie on no slide.
    """

    origins: Int32[np.ndarray, "n 2"]
    tissue_fraction: Float32[np.ndarray, " n"]
    valid: UInt8[np.ndarray, " n"]
    footprint: tuple[float, float]
    step: tuple[float, float]
    size: tuple[float, float]
    bounds: Area
    mpp: tuple[float, float] | None
    px: int
    stored: Int32[np.ndarray, "n 2"]
    sheet: bool = False

    def __len__(self) -> int:
        return len(self.origins)

    def row_at(self, x: float, y: float) -> int | None:
        """The tile at a place; of several that overlap there the one whose centre is nearest."""
        offsets = np.asarray([x, y]) - self.origins
        inside = np.nonzero(((offsets >= 0) & (offsets < np.asarray(self.footprint))).all(axis=1))[0]
        if not len(inside):
            return None
        distances = np.abs(offsets[inside] - np.asarray(self.footprint) / 2).max(axis=1)
        return int(inside[distances.argmin()])

    def row_of(self, x: int, y: int) -> int | None:
        """The tile whose corner lies at a place."""
        found = np.nonzero((self.origins == np.asarray([x, y])).all(axis=1))[0]
        return int(found[0]) if len(found) else None

    def box(self, row: int) -> Area:
        """Where a tile lies."""
        x, y = self.origins[row].tolist()
        return Area(x, y, *self.footprint)

    @cached_property
    def raster(self) -> "Raster":
        """The raster that these tiles are painted on."""
        return _on_grid(self) or _by_places(self)


@dataclass(frozen=True)
class Raster:
    """A picture of tiles, to be laid over ``area``: ``shape`` rows and columns; each tile fills a box of it.

    ``boxes`` are left, top, right, bottom of each tile in cells. On a grid each tile has one cell.
    """

    area: Area
    shape: tuple[int, int]
    boxes: Int64[np.ndarray, "n 4"]
    on_grid: bool

    def paint(self, colours: UInt8[np.ndarray, "n 4"]) -> UInt8[np.ndarray, "rows columns 4"]:
        """Each tile in its colour (red, green, blue, opacity); nothing where there is no tile."""
        picture = np.zeros((*self.shape, 4), np.uint8)
        if self.on_grid:
            picture[self.boxes[:, 1], self.boxes[:, 0]] = colours
            return picture
        for (left, top, right, bottom), colour in zip(self.boxes.tolist(), colours, strict=True):
            picture[top:bottom, left:right] = colour
        return picture


def tiles_of(store: TileStore | FeatureStore) -> Tiles:
    """The tiles that a store of tiles or of features has.

    Raises:
        StoreError: its arrays cannot be read.
    """
    slide, tile = store.attributes["slide"], store.attributes["tile"]
    px = int(tile["px"])
    width, height = tile.get("footprint") or (px, px)  # stores of single images, and of others' features, state none
    share = float(tile.get("stride") or px) / px
    if slide.get("vendor") == _PACKED:
        return _sheet(store, px, tuple(slide["mpp"]))
    reach = (store.origins + np.asarray([width, height])).max(axis=0, initial=1.0)
    size = (float(slide.get("width") or reach[0]), float(slide.get("height") or reach[1]))
    bounds = Area(*map(float, slide.get("bounds") or (0, 0, *size)))
    mpp = tuple(map(float, slide["mpp"])) if slide.get("mpp") else None
    return Tiles(
        *(store.origins, store.tissue_fraction, store.valid),
        *((float(width), float(height)), (width * share, height * share), size, bounds),
        mpp=None if mpp is None else (mpp[0], mpp[1]),
        px=px,
        stored=store.origins,
    )


def _sheet(store: TileStore | FeatureStore, px: int, mpp: tuple[float, ...]) -> Tiles:
    """Tiles of packed images in rows of a square sheet, in the store's order."""
    count = len(store)
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    numbers = np.arange(count)
    origins = np.stack([numbers % columns, numbers // columns], axis=1).astype(np.int32) * np.int32(px)
    side, size = (float(px), float(px)), (float(columns * px), float(rows * px))
    arrays = (origins, store.tissue_fraction, store.valid)
    return Tiles(*arrays, side, side, size, Area(0, 0, *size), (mpp[0], mpp[1]), px, store.origins, sheet=True)


def _on_grid(tiles: Tiles) -> Raster | None:
    """One cell a tile; None where the tiles do not lie on one grid, or two have the same cell."""
    if not len(tiles):
        return Raster(Area(0, 0, *tiles.size), (1, 1), np.zeros((0, 4), np.int64), on_grid=True)
    first, step = tiles.origins.min(axis=0), np.asarray(tiles.step)
    exact: Float64[np.ndarray, "n 2"] = (tiles.origins - first) / step
    cells = np.rint(exact).astype(np.int64)
    columns, rows = (cells.max(axis=0) + 1).tolist()
    off: Bool[np.ndarray, "n 2"] = np.abs(exact - cells) > _OFF_GRID
    if off.any() or columns * rows > _MOST_CELLS or len(np.unique(cells @ np.asarray([1, columns]))) < len(cells):
        return None
    left, top = (first + (np.asarray(tiles.footprint) - step) / 2).tolist()  # cells are centred on their tiles
    area = Area(left, top, float(columns * step[0]), float(rows * step[1]))
    return Raster(area, (rows, columns), np.concatenate([cells, cells + 1], axis=1), on_grid=True)


def _by_places(tiles: Tiles) -> Raster:
    """A canvas over all tiles, on which each fills its box."""
    first = tiles.origins.min(axis=0)
    reach = tiles.origins.max(axis=0) - first + np.asarray(tiles.footprint)
    scale = min(1.0, _CANVAS_PX / float(reach.max()))
    starts = np.floor((tiles.origins - first) * scale).astype(np.int64)
    ends = np.maximum(starts + 1, np.floor((tiles.origins - first + tiles.footprint) * scale).astype(np.int64))
    columns, rows = ends.max(axis=0).tolist()
    area = Area(float(first[0]), float(first[1]), columns / scale, rows / scale)
    return Raster(area, (rows, columns), np.concatenate([starts, ends], axis=1), on_grid=False)
