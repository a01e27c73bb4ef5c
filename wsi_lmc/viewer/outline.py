"""The tissue's outline of a slide, as the page draws it, and the grid's cells that were not kept."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from wsi_lmc.contours import Polygon, read_geojson
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import axis_count, tissue_fractions
from wsi_lmc.tissue import TissueMask
from wsi_lmc.units import SlidePoint
from wsi_lmc.viewer.tiles import Area, Tiles

_MASK_PX = 2048  # longest side of the mask that shares of tissue are measured on
_MOST_CELLS = 25_000_000
_FRACTION_BITS = 4  # of a mask's pixel, in which OpenCV is told of corners


@dataclass(frozen=True)
class Cells:
    """The whole grid of a slide: ``fraction`` of tissue by row and column, and which cells were kept, over ``area``."""

    area: Area
    fraction: Float64[np.ndarray, "rows columns"]
    numbers: UInt8[np.ndarray, "rows columns"]


def read_outline(path: Path, bounds: Area) -> list[Polygon]:
    """Polygons of a slide's outline in level-0 pixels; none where the file is damaged."""
    try:
        return read_geojson(path, SlidePoint(round(bounds.x), round(bounds.y)))
    except SlideError:
        return []


def whole_grid(tiles: Tiles, outline: list[Polygon]) -> Cells | None:
    """The grid that tiles were kept from, with the share of tissue in each cell; None where it cannot be told.

    ``numbers`` are 1 of cells that hold tissue and were not kept, 2 of kept ones, 0 of the rest.
    """
    if tiles.sheet or not outline or not len(tiles) or not tiles.raster.on_grid:
        return None
    bounds, step = tiles.bounds, np.asarray(tiles.step)
    across, down = (
        axis_count(round(span), side, each, pad=False)
        for span, side, each in zip((bounds.width, bounds.height), tiles.footprint, tiles.step, strict=True)
    )
    own = np.rint((tiles.origins - np.asarray([bounds.x, bounds.y])) / step).astype(np.int64)
    columns, rows = np.maximum(own.max(axis=0) + 1, (across, down)).tolist()
    if own.min() < 0 or columns * rows > _MOST_CELLS:
        return None
    xs, ys = (
        np.rint(start + np.arange(count) * side).astype(np.int32)
        for start, count, side in zip((bounds.x, bounds.y), (columns, rows), tiles.step, strict=True)
    )
    scale = max(1.0, max(tiles.size) / _MASK_PX)
    shape = (max(1, round(tiles.size[1] / scale)), max(1, round(tiles.size[0] / scale)))
    down_by = (tiles.size[0] / shape[1], tiles.size[1] / shape[0])
    mask = TissueMask(_filled(outline, shape, down_by), down_by, threshold=None)
    fraction = tissue_fractions(mask, xs, ys, tiles.footprint)
    numbers = (fraction > 0).astype(np.uint8)
    numbers[own[:, 1], own[:, 0]] = 2
    left, top = (np.asarray([bounds.x, bounds.y]) + (np.asarray(tiles.footprint) - step) / 2).tolist()
    return Cells(Area(left, top, columns * tiles.step[0], rows * tiles.step[1]), fraction, numbers)


def _filled(outline: list[Polygon], shape: tuple[int, int], downsample: tuple[float, float]) -> Bool[np.ndarray, "y x"]:
    """Pixels that lie inside. Those that a line runs through do not count: slivers beside a cell are not its tissue.

    :func:`wsi_lmc.contours.polygons_to_mask` decides by pixels' centres, and takes a hundred times as long.
    """
    mask = np.zeros(shape, np.uint8)
    for polygon in outline:
        rings = [
            np.rint((np.asarray(ring) / downsample - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32) for ring in polygon
        ]
        part = np.zeros_like(mask) if len(outline) > 1 and len(rings) > 1 else mask
        cv2.fillPoly(part, rings, [1], shift=_FRACTION_BITS)
        cv2.polylines(part, rings, True, [0], shift=_FRACTION_BITS)
        if part is not mask:
            mask |= part
    return mask.astype(np.bool_)
