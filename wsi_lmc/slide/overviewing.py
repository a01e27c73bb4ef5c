"""A whole level reduced by area, piece by piece, so that a slide of one level needs no more memory than others.

Reductions are by multiples of 8, or by 4, 2 or 1, because JPEG decodes at an eighth of its size in a fifth of the time.
What cannot be decoded becomes background, and is marked: it may be tissue, for all anyone knows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from wsi_lmc.slide.decoding import Denominator
from wsi_lmc.slide.direct_reader import DirectReader, Scale
from wsi_lmc.threads import Threads
from wsi_lmc.units import LevelSize

DENOMINATORS: tuple[Denominator, ...] = (8, 4, 2)

_BLOCK_PX = 2048  # side of the blocks that are read: 16 MB each, whatever the slide's size
_SMALLEST_PX = 256  # a block that cannot be read is read again in quarters, down to about a native tile
_MOST_QUARTERED = 200  # blocks; beyond that the slide is hopeless, and each failed read costs a handle


@dataclass(frozen=True)
class Region:
    """RGB pixels of a box; ``transparent`` where some were composited; ``readable`` False: some are background."""

    pixels: UInt8[np.ndarray, "h w 3"]
    transparent: bool
    readable: bool


@dataclass(frozen=True)
class Overview:
    """The whole slide reduced by area; ``downsample`` level-0 pixels make one overview pixel, along x and y.

    ``unreadable`` are the pixels that stand for damaged parts; None where everything could be decoded.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    downsample: tuple[float, float]
    unreadable: Bool[np.ndarray, "h w"] | None = None


class Canvas:
    """An overview that is being made of a level of ``whole`` pixels, reduced by ``factor``."""

    def __init__(self, whole: LevelSize, factor: int) -> None:
        self.factor = factor
        shape = (-(-whole.height // factor), -(-whole.width // factor))
        self.pixels = np.empty((*shape, 3), np.uint8)
        self.unreadable = np.zeros(shape, np.bool_)

    def lay(self, left: int, top: int, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Put a piece that is reduced already at its place, which ``left`` and ``top`` name in level pixels."""
        y, x = top // self.factor, left // self.factor
        target = self.pixels[y : y + pixels.shape[0], x : x + pixels.shape[1]]
        target[...] = pixels[: target.shape[0], : target.shape[1]]

    def mark(self, left: int, top: int, size: LevelSize) -> None:
        """Mark a box of level pixels as unreadable."""
        bottom, right = -(-(top + size.height) // self.factor), -(-(left + size.width) // self.factor)
        self.unreadable[top // self.factor : bottom, left // self.factor : right] = True


def read_in_bands(direct: DirectReader, level: int, factor: int, threads: Threads) -> Canvas:
    """Whole rows of segments, reduced by the decoder as far as it can, the rest by area."""
    table = direct.tables[level]
    canvas = Canvas(table.size, factor)
    fitting = [d for d in DENOMINATORS if factor % d == 0 and table.codec == "jpeg" and table.divides(d)]
    scale = Scale(level, fitting[0] if fitting else 1)
    rest = factor // scale.denominator
    width, height = -(-table.size.width // scale.denominator), -(-table.size.height // scale.denominator)
    rows = table.segment.height // scale.denominator
    step = rows * (rest // math.gcd(rest, rows))
    for top in range(0, height, step):
        band = np.empty((1, min(step, height - top), width, 3), np.uint8)
        found = direct.read_boxes(scale, np.asarray([[0, top]]), band, threads)
        canvas.lay(0, top * scale.denominator, _reduce(band[0], rest))
        if found.unreadable[0]:
            _mark_segments(canvas, direct, scale, range(top // rows, -(-(top + band.shape[1]) // rows)), threads)
    return canvas


def read_in_blocks(read: Callable[[int, int, LevelSize], Region], whole: LevelSize, factor: int) -> Canvas:
    """Blocks of a level of ``whole`` pixels, that ``read`` gives by their left, top and size in level pixels."""
    canvas = Canvas(whole, factor)
    quartered = 0

    def fill(left: int, top: int, side: int, end: tuple[int, int]) -> None:
        """A square block, but for what lies beyond ``end``, its parent's right and bottom."""
        nonlocal quartered
        size = LevelSize(min(side, end[0] - left), min(side, end[1] - top))
        region = read(left, top, size)
        half = -(-side // 2 // factor) * factor
        if region.readable or half < max(_SMALLEST_PX, factor) or quartered >= _MOST_QUARTERED:
            canvas.lay(left, top, _reduce(region.pixels, factor))
            if not region.readable:
                canvas.mark(left, top, size)
            return
        quartered += 1
        for y in range(top, top + size.height, half):
            for x in range(left, left + size.width, half):
                fill(x, y, half, (left + size.width, top + size.height))

    step = max(1, _BLOCK_PX // factor) * factor
    for top in range(0, whole.height, step):
        for left in range(0, whole.width, step):
            fill(left, top, step, (whole.width, whole.height))
    return canvas


def _mark_segments(canvas: Canvas, direct: DirectReader, scale: Scale, rows: range, threads: Threads) -> None:
    """Find out, segment by segment, which of some rows of them cannot be decoded."""
    table = direct.tables[scale.level]
    side = LevelSize(table.segment.width // scale.denominator, table.segment.height // scale.denominator)
    for row in rows:
        corners = np.asarray([[column * side.width, row * side.height] for column in range(table.columns)])
        pixels = np.empty((len(corners), side.height, side.width, 3), np.uint8)
        found = direct.read_boxes(scale, corners, pixels, threads)
        for column in np.flatnonzero(found.unreadable).tolist():
            canvas.mark(column * table.segment.width, row * table.segment.height, table.segment)


def whole_reduction(wanted: float) -> int:
    """The greatest multiple of 8, or 4, 2 or 1, that is not above what is wanted."""
    return int(wanted) // 8 * 8 if wanted >= 8 else next((n for n in (4, 2) if wanted >= n), 1)


def _reduce(block: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "y x 3"]:
    """Reduce by a whole factor by area; a last row or column of pixels that does not fill a cell is repeated."""
    if factor == 1:
        return block
    height, width = block.shape[:2]
    padded = np.pad(block, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    shape = (padded.shape[1] // factor, padded.shape[0] // factor)
    return np.asarray(cv2.resize(padded, shape, interpolation=cv2.INTER_AREA), np.uint8)
