"""How much of each tile lies inside outlines or inside a mask."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from wsi_lmc.annotations.regions import Annotation, Region

_LINES = 64  # across a tile: a share is right to about 1/64 of what an outline's edge sweeps within a tile


def inside_shares(
    annotation: Annotation, origins: Int32[np.ndarray, "n 2"], footprint: tuple[float, float]
) -> Float64[np.ndarray, " n"]:
    """Share of each tile's area inside any lesion and outside all that is excluded, 0 to 1.

    Measured along 64 lines across each tile, exactly along each line; so shares are exact where edges are upright, and
    within about 0.002 of the truth for other outlines.

    Args:
        annotation: outlines in level-0 pixels.
        origins: top-left corners of the tiles, x, y in level-0 pixels.
        footprint: width and height of a tile in level-0 pixels.
    """
    width, height = footprint
    shares = np.zeros(len(origins), np.float64)
    for top in np.unique(origins[:, 1]).astype(np.float64).tolist():
        sides = [
            [found for found in (_sides(region, top, top + height) for region in regions) if len(found)]
            for regions in (annotation.lesions, annotation.excluded)
        ]
        if not sides[0]:
            continue
        rows = np.nonzero(origins[:, 1] == top)[0]
        left = origins[rows, 0].astype(np.float64)
        for line in (top + (np.arange(_LINES) + 0.5) * height / _LINES).tolist():
            places, lengths = _covered(sides[0], sides[1], line)
            if len(places):
                shares[rows] += np.interp(left + width, places, lengths) - np.interp(left, places, lengths)
    return np.clip(shares / (_LINES * width), 0.0, 1.0)


def mask_shares(
    mask: Bool[np.ndarray, "y x"],
    downsample: tuple[float, float],
    origins: Int32[np.ndarray, "n 2"],
    footprint: tuple[float, float],
) -> Float64[np.ndarray, " n"]:
    """Share of each tile's area inside a mask, exactly: a pixel of the mask is a rectangle of one value.

    Args:
        mask: where it is true, over the whole slide from its top-left corner.
        downsample: level-0 pixels to one pixel of the mask, along x and y.
        origins: top-left corners of the tiles, x, y in level-0 pixels.
        footprint: width and height of a tile in level-0 pixels; what lies beyond the mask is outside.
    """
    table = np.asarray(cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_64F), np.float64)
    left, top = origins[:, 0] / downsample[0], origins[:, 1] / downsample[1]
    width, height = footprint[0] / downsample[0], footprint[1] / downsample[1]
    right, bottom = left + width, top + height
    inside = _at(table, right, bottom) - _at(table, left, bottom) - _at(table, right, top) + _at(table, left, top)
    return np.clip(inside / (width * height), 0.0, 1.0)


def _sides(region: Region, top: float, bottom: float) -> Float64[np.ndarray, "n 4"]:
    """Sides of an outline that come between two heights, as x, y of both ends."""
    points = region.points
    if points[:, 1].max() <= top or points[:, 1].min() >= bottom:
        return np.zeros((0, 4))
    sides = np.concatenate([points, np.roll(points, -1, axis=0)], axis=1)
    low, high = np.minimum(sides[:, 1], sides[:, 3]), np.maximum(sides[:, 1], sides[:, 3])
    return sides[(low < bottom) & (high > top) & (low < high)]


def _crossings(sides: Float64[np.ndarray, "n 4"], line: float) -> Float64[np.ndarray, " m"]:
    """Where a horizontal line meets an outline, from left to right; always an even number of times."""
    meeting = (sides[:, 1] <= line) != (sides[:, 3] <= line)
    x1, y1, x2, y2 = sides[meeting].T
    return np.sort(x1 + (line - y1) * (x2 - x1) / (y2 - y1))


def _covered(
    lesions: Sequence[Float64[np.ndarray, "_ 4"]], excluded: Sequence[Float64[np.ndarray, "_ 4"]], line: float
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Places along a line, from left to right, and how much lesion lies to the left of each."""
    places: list[np.ndarray] = []
    steps: list[np.ndarray] = []
    for column, outlines in enumerate((lesions, excluded)):
        for sides in outlines:
            crossings = _crossings(sides, line)
            step = np.zeros((len(crossings), 2), np.int64)
            step[0::2, column], step[1::2, column] = 1, -1
            places.append(crossings)
            steps.append(step)
    along = np.concatenate(places)
    order = np.argsort(along, kind="stable")
    along = along[order]
    depth: Int64[np.ndarray, "k 2"] = np.cumsum(np.concatenate(steps)[order], axis=0)
    is_lesion = (depth[:, 0] > 0) & (depth[:, 1] == 0)
    lengths = np.where(is_lesion[:-1], np.diff(along), 0.0) if len(along) else np.zeros(0)
    return along, np.concatenate([np.zeros(min(1, len(along))), np.cumsum(lengths)])


def _at(
    table: Float64[np.ndarray, "rows columns"], x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """A summed-area table at fractional positions: linear between its nodes, as pixels are of one value."""
    rows, columns = table.shape
    x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
    column, row = (np.minimum(at.astype(np.int64), most - 2) for at, most in ((x, columns), (y, rows)))
    u, v = x - column, y - row
    above = table[row, column] * (1 - u) + table[row, column + 1] * u
    below = table[row + 1, column] * (1 - u) + table[row + 1, column + 1] * u
    return above * (1 - v) + below * v
