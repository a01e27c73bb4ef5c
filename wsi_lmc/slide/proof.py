"""Does direct decoding give what OpenSlide gives, on this very slide? Asked whenever a slide is opened.

Compared where the most compressed bytes lie, which is where tissue is (on glass any two decoders agree), in the middle
of the level, at its end, and across the borders of segments. Equality is claimed at level 0 and at levels of whole
downsample only: elsewhere OpenSlide interpolates between pixels, so there only a gross error is looked for.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from wsi_lmc.slide.direct_reader import DirectReader, Scale
from wsi_lmc.slide.handles import flatten
from wsi_lmc.slide.reader import Reader, ReadError
from wsi_lmc.slide.segments import SegmentTable
from wsi_lmc.threads import Threads
from wsi_lmc.units import LevelSize, SlidePoint

_SIDE = 128  # pixels: over a corner where four segments meet
_SHARES = (1.0, 0.9, 0.5)  # of the segments sorted by bytes: the fullest, a full one, the median
_WHOLE = 1e-6
_INTERPOLATED = 8.0  # grey levels, mean: what half a pixel of shift makes of sharp tissue; wrong colours make far more


@dataclass(frozen=True)
class Agreement:
    """What a comparison found, in grey levels, a number a level.

    ``differences`` are the greatest ones where equality is claimed, mean ones elsewhere; infinite where one of the two
    could not read. ``equal`` says whether direct decoding may be used.
    """

    against: str
    regions: int
    differences: tuple[float, ...]
    equal: bool


def compare(direct: DirectReader, reference: Reader, downsamples: tuple[float, ...], threads: Threads) -> Agreement:
    """Read the same regions of every level both ways. A region the reference cannot read ends the comparison unequal.

    Args:
        direct: the reader in question.
        reference: of the same file.
        downsamples: of the levels.
        threads: decode in these.
    """
    differences: list[float] = []
    regions = 0
    equal = True
    for level, downsample in enumerate(downsamples):
        whole = abs(downsample - round(downsample)) < _WHOLE
        corners, size = _regions(direct.tables[level])
        found = _difference(direct, reference, (level, downsample), (corners, size), threads)
        regions += len(corners)
        differences.append(float("inf") if found is None else found[0] if whole else found[1])
        equal &= differences[-1] <= (0.0 if whole else _INTERPOLATED)
    return Agreement(reference.name, regions, tuple(differences), equal)


def _regions(table: SegmentTable) -> tuple[Int64[np.ndarray, "n 2"], LevelSize]:
    """Corners of regions in level pixels, and their size."""
    size = LevelSize(min(_SIDE, table.size.width), min(_SIDE, table.size.height))
    order = np.argsort(table.counts, kind="stable")
    chosen = order[[round(share * (len(order) - 1)) for share in _SHARES]]
    row, column = np.divmod(chosen, table.columns)
    half = np.asarray([table.segment.width, table.segment.height]) // 2
    middle = np.stack([column * table.segment.width, row * table.segment.height], axis=1) + half
    last = np.asarray([[table.size.width - size.width // 2, table.size.height - size.height // 2]])
    return np.unique(np.concatenate([middle, last]), axis=0).astype(np.int64), size


def _difference(
    direct: DirectReader,
    reference: Reader,
    of: tuple[int, float],
    regions: tuple[Int64[np.ndarray, "n 2"], LevelSize],
    threads: Threads,
) -> tuple[float, float] | None:
    """Greatest and mean difference in grey levels; None where one of the two could not read."""
    (level, downsample), (corners, size) = of, regions
    ours = np.empty((len(corners), size.height, size.width, 3), np.uint8)
    reading = direct.begin_boxes(Scale(level), corners, ours, threads)
    theirs = np.empty_like(ours)
    try:
        for corner, pixels in zip(corners, theirs, strict=True):
            origin = SlidePoint(round(int(corner[0]) * downsample), round(int(corner[1]) * downsample))
            flatten(reference.read(origin, level, size), direct.background, pixels)
    except ReadError:
        return None
    finally:
        unreadable = reading.result().unreadable
    if unreadable.any():
        return None
    difference = _absolute(ours, theirs)
    return float(difference.max()), float(difference.mean())


def _absolute(a: UInt8[np.ndarray, "n h w 3"], b: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
    return np.maximum(a, b) - np.minimum(a, b)
