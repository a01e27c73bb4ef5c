"""Which piece of tissue a tile belongs to."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64
from skimage import draw

from wsi_lmc.contours import Polygon, Ring

_CELLS = 8  # a tile is told by 8 x 8 points: an eighth of its side is as fine as an outline of tissue means
_LARGEST = 8192  # cells along a side of the map; coarser points where a slide has more tiles


def tissue_ids(
    polygons: Sequence[Polygon], origins: Int32[np.ndarray, "n 2"], footprint: tuple[float, float]
) -> Int64[np.ndarray, " n"]:
    """Index of the polygon that covers most of each tile; -1 where none does.

    Of a piece that lies in another's hole the smaller one counts.

    Args:
        polygons: outlines in level-0 pixels.
        origins: x, y of the tiles' top-left corners in level-0 pixels.
        footprint: a tile's width and height in level-0 pixels.
    """
    if not len(origins) or not polygons:
        return np.full(len(origins), -1, np.int64)
    start, extent = origins.min(axis=0), np.ptp(origins, axis=0) + np.asarray(footprint)
    cell = np.maximum(np.asarray(footprint) / _CELLS, extent / _LARGEST)
    width, height = np.ceil(extent / cell).astype(int)
    cover = np.zeros((height, width), np.int64)
    for index in sorted(range(len(polygons)), key=lambda index: -_area(polygons[index][0])):
        x, y = ((np.asarray(polygons[index][0]) - start) / cell - 0.5).T
        cover[draw.polygon(y, x, cover.shape)] = index + 1
    # of coarse cells the nearest to the last tile may lie beyond the map
    corners = np.minimum(np.rint((origins - start) / cell).astype(int), (width - 1, height - 1))
    side = np.maximum(np.rint(np.asarray(footprint) / cell).astype(int), 1)
    found = np.empty(len(origins), np.int64)
    for row, (x, y) in enumerate(corners):
        counts = np.bincount(cover[y : y + side[1], x : x + side[0]].ravel(), minlength=1)
        counts[0] = 0
        found[row] = counts.argmax() - 1
    return found


def _area(ring: Ring) -> float:
    x, y = np.asarray(ring).T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2
