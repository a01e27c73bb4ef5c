"""An open, calibrated slide: tiles at a wanted mpp, many at a time, and an overview streamed in bounded memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Int32, Int64, UInt8

from wsi_lmc.slide.decoding import Denominator
from wsi_lmc.slide.direct_reader import DirectReader, Scale
from wsi_lmc.slide.geometry import Sampling, SlideGeometry, SlideInfo
from wsi_lmc.slide.handles import HandlePool
from wsi_lmc.slide.native import NativeTiles
from wsi_lmc.slide.overviewing import DENOMINATORS, Overview, Region, read_in_bands, read_in_blocks, whole_reduction
from wsi_lmc.slide.proof import Agreement
from wsi_lmc.slide.reader import Boxes, Done, Reader, ignore
from wsi_lmc.threads import Pending, Threads
from wsi_lmc.units import LevelSize, SlidePoint

Resample = Literal["dct", "area"]
Reduction = Literal["no", "dct", "area"]

Take = Callable[[int, UInt8[np.ndarray, "h w 3"]], None]

_MOST_OVERVIEW_PX = 64_000_000  # at 8 um 64 x 64 mm: finer, only huge or wrongly calibrated slides would need more
_BLOCK_TILES = 32  # tiles that are held at full size at a time, to be reduced by area


@dataclass(frozen=True)
class ReadPlan:
    """How tiles at given places are read: the same for all of them, so that it can be recorded in one word.

    ``origins`` are x, y in level-0 pixels, ``corners`` in pixels of the level read. ``reduction`` says what makes
    target pixels of level pixels: nothing, the JPEG decoder (in the DCT domain, by ``denominator``), or area means.
    """

    sampling: Sampling
    origins: Int32[np.ndarray, "n 2"]
    corners: Int64[np.ndarray, "n 2"]
    reduction: Reduction
    denominator: Denominator


@dataclass(frozen=True)
class Sources:
    """What a slide is read through.

    ``path`` is the file, which ``reader`` knows; ``boxes`` gives pixels; ``agreement`` says how those compare with the
    reader's own, where they are decoded directly; ``resample`` is what may reduce tiles.
    """

    reader: Reader
    boxes: DirectReader | HandlePool
    agreement: Agreement | None
    resample: Resample
    threads: int
    path: Path


class Slide:
    """One slide as calibrated pixels. For one thread, which may let it use several; use as a context manager."""

    def __init__(self, slide_id: str, sources: Sources, geometry: SlideGeometry, mpp_source: str) -> None:
        self.slide_id = slide_id
        self.geometry = geometry
        self.mpp_source = mpp_source
        self.background = sources.reader.background
        self._sources = sources
        self._boxes = sources.boxes
        self.threads = Threads(sources.threads)

    @property
    def info(self) -> SlideInfo:
        """What stores record of this slide."""
        bounds, reader, agreement = self.geometry.bounds, self._sources.reader, self._sources.agreement
        return SlideInfo(
            id=self.slide_id,
            width=self.geometry.size.width,
            height=self.geometry.size.height,
            mpp=(self.geometry.mpp.x, self.geometry.mpp.y),
            mpp_source=self.mpp_source,
            vendor=reader.vendor,
            reader="direct" if agreement else reader.name,
            compared=None if agreement is None else (agreement.against, agreement.regions, agreement.differences),
            quickhash=reader.quickhash,
            bounds=(bounds.origin.x, bounds.origin.y, bounds.size.width, bounds.size.height),
        )

    @property
    def path(self) -> Path:
        """The slide's file."""
        return self._sources.path

    @property
    def direct(self) -> DirectReader | None:
        """The direct reader, where the slide is read by it."""
        return self._boxes if isinstance(self._boxes, DirectReader) else None

    def plan(self, origins: Int32[np.ndarray, "n 2"], sampling: Sampling) -> ReadPlan:
        """Decide how tiles whose top-left corners lie at ``origins`` (x, y in level-0 pixels) are read."""
        corners = np.rint(origins / sampling.downsample).astype(np.int64)
        if not sampling.resampled:
            return ReadPlan(sampling, origins, corners, "no", 1)
        denominator = self._denominator(corners, sampling)
        return ReadPlan(sampling, origins, corners, "dct" if denominator > 1 else "area", denominator)

    def read_tiles(self, plan: ReadPlan, start: int, out: UInt8[np.ndarray, "n h w 3"]) -> Boxes:
        """Fill ``out`` with as many tiles of a plan, from its row ``start`` on; fastest in the plan's order.

        A tile of which anything cannot be decoded is all background, and flagged.
        """
        return self.begin_tiles(plan, start, out).result()

    def begin_tiles(
        self, plan: ReadPlan, start: int, out: UInt8[np.ndarray, "n h w 3"], take: Take | None = None
    ) -> Pending[Boxes]:
        """Begin :meth:`read_tiles`; what follows in the plan may be begun before this has ended.

        ``take`` is called with each tile's row in the plan and its pixels, in the thread that has completed it.
        """

        def done(row: int, damaged: bool) -> None:
            if damaged:
                out[row] = self.background
            if take is not None:
                take(start + row, out[row])

        read = self._read_reduced if plan.reduction == "area" else self._begin_boxes
        return read(plan, start, out, done)

    def native_tiles(self, plan: ReadPlan) -> NativeTiles | None:
        """A plan's tiles as JPEG files out of the slide; None where one of them is not a whole JPEG segment."""
        if self.direct is None or plan.reduction != "no":
            return None
        table = self.direct.tables[plan.sampling.level]
        side = np.asarray([table.segment.width, table.segment.height])
        column, row = (plan.corners // side).T
        whole = np.asarray([table.size.width, table.size.height]) // side
        inside = (column >= 0) & (column < whole[0]) & (row >= 0) & (row < whole[1])
        same_side = (plan.sampling.tile.width, plan.sampling.tile.height) == (side[0], side[1])
        if table.codec != "jpeg" or not same_side or (plan.corners % side).any() or not inside.all():
            return None
        return NativeTiles(self.direct, plan.sampling.level, row * table.columns + column)

    def read_level(self, origin: SlidePoint, level: int, size: LevelSize) -> Region:
        """A box of level pixels whose top-left corner lies at ``origin`` (level-0 pixels), on background colour."""
        pixels = np.empty((1, size.height, size.width, 3), np.uint8)
        boxes = self._read_level_boxes(level, np.asarray([[origin.x, origin.y]]), pixels)
        return Region(pixels[0], bool(boxes.transparent[0]), not bool(boxes.unreadable[0]))

    def overview(self, mpp: float) -> Overview:
        """The slide reduced by area to the coarsest whole reduction of a level that is not coarser than ``mpp``.

        Read piece by piece from the coarsest level that suffices, so a slide of one level needs no more memory than
        others; beyond 64 million pixels it gets coarser. What cannot be decoded is background, and marked.
        """
        geometry = self.geometry
        least = math.sqrt(geometry.size.width * geometry.size.height / _MOST_OVERVIEW_PX)
        mpp = max(mpp, geometry.mpp.mean * least)
        fit = [n for n in range(len(geometry.downsamples)) if geometry.level_mpp(n).mean <= mpp]
        level = fit[-1] if fit else 0
        factor = whole_reduction(mpp / geometry.level_mpp(level).mean)
        if self.direct is not None:
            canvas = read_in_bands(self.direct, level, factor, self.threads)
        else:
            size, downsample = self._sources.reader.level_sizes[level], geometry.downsamples[level]
            canvas = read_in_blocks(
                lambda left, top, block: self.read_level(
                    SlidePoint(round(left * downsample), round(top * downsample)), level, block
                ),
                size,
                factor,
            )
        side = factor * geometry.downsamples[level]
        return Overview(canvas.pixels, (side, side), canvas.unreadable if canvas.unreadable.any() else None)

    def close(self) -> None:
        """Release the file."""
        self.threads.close()
        self._boxes.close()
        self._sources.reader.close()

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _denominator(self, corners: Int64[np.ndarray, "n 2"], sampling: Sampling) -> Denominator:
        """By what the decoder can reduce these tiles exactly; 1 where it cannot."""
        if self.direct is None or self._sources.resample != "dct":
            return 1
        table = self.direct.tables[sampling.level]
        for denominator in DENOMINATORS if table.codec == "jpeg" else ():
            target = (sampling.tile.width * denominator, sampling.tile.height * denominator)
            on_grid = not (corners % denominator).any()
            if (sampling.read.width, sampling.read.height) == target and on_grid and table.divides(denominator):
                return denominator
        return 1

    def _begin_boxes(self, plan: ReadPlan, start: int, out: UInt8[np.ndarray, "n h w 3"], done: Done) -> Pending[Boxes]:
        stop = start + len(out)
        if isinstance(self._boxes, DirectReader):
            corners = plan.corners[start:stop] // plan.denominator
            scale = Scale(plan.sampling.level, plan.denominator)
            return self._boxes.begin_boxes(scale, corners, out, self.threads, done)
        origins = plan.origins[start:stop].astype(np.int64)
        return self._boxes.begin_boxes(plan.sampling.level, origins, out, self.threads, done)

    def _read_level_boxes(
        self, level: int, origins: Int64[np.ndarray, "n 2"], out: UInt8[np.ndarray, "n h w 3"]
    ) -> Boxes:
        if isinstance(self._boxes, DirectReader):
            corners = np.rint(origins / self.geometry.downsamples[level]).astype(np.int64)
            return self._boxes.read_boxes(Scale(level), corners, out, self.threads)
        return self._boxes.begin_boxes(level, origins, out, self.threads).result()

    def _read_reduced(
        self, plan: ReadPlan, start: int, out: UInt8[np.ndarray, "n h w 3"], done: Done
    ) -> Pending[Boxes]:
        """Tiles reduced by area, few at a time because they are large before; all done when this returns."""
        read, tile = plan.sampling.read, plan.sampling.tile
        full = np.empty((min(_BLOCK_TILES, len(out)), read.height, read.width, 3), np.uint8)
        boxes = Boxes(np.zeros(len(out), np.bool_), np.zeros(len(out), np.bool_))

        def reduce(rows: range) -> None:
            for row in rows:
                cv2.resize(full[row], (tile.width, tile.height), dst=out[first + row], interpolation=cv2.INTER_AREA)
                done(first + row, bool(boxes.unreadable[first + row]))

        for first in range(0, len(out), len(full)):
            part = slice(first, min(first + len(full), len(out)))
            count = part.stop - part.start
            found = self._begin_boxes(plan, start + first, full[:count], ignore).result()
            boxes.transparent[part], boxes.unreadable[part] = found.transparent, found.unreadable
            self.threads.each(reduce, count)
        return Pending([], lambda: boxes)
