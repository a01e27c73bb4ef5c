"""Boxes of a TIFF slide straight from its compressed segments: each decoded once, for all boxes that it touches.

Peers ask OpenSlide for one tile at a time and pay for compositing what they do not need. Here a block of tiles is
planned first: which segments it needs and where their pixels go. Segments that the next block will need, too, are kept
between calls, so boxes are to be asked for in row-major order; and the next block may be begun before one has ended.
Bytes are read with ``pread``, so that any number of threads share one file, and a file that shrinks gives an error
instead of a crash.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from wsi_lmc.slide.decoding import Denominator, decode_segment
from wsi_lmc.slide.reader import Boxes, Done, ReadError, ignore
from wsi_lmc.slide.segments import Rooms, SegmentTable, fetch_bodies, fetch_segments
from wsi_lmc.threads import Pending, Threads

_FETCHED_TOGETHER = 32  # segments: few enough for their bytes to stay in the CPU's cache


class Scale(NamedTuple):
    """Which pixels: a level's, each axis reduced by ``denominator`` while decoding, which must divide a segment."""

    level: int
    denominator: Denominator = 1


@dataclass
class _Kept:
    """Decoded segments of one scale that the next boxes may need, and memory for more of them.

    Two blocks may be at work on them: each only ever needs what lies at or below its own first row.
    """

    scale: Scale
    pixels: dict[int, UInt8[np.ndarray, "_ _ 3"]] = field(default_factory=dict)
    spare: list[UInt8[np.ndarray, "_ _ 3"]] = field(default_factory=list)

    def room(self, like: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Memory for a segment, if possible such as was used before: fresh pages cost time."""
        try:
            return self.spare.pop()
        except IndexError:
            return np.empty_like(like)

    def forget(self, before: int) -> None:
        """Drop the segments that no later box can need."""
        for index in [index for index in list(self.pixels) if index < before]:
            self.spare.append(self.pixels.pop(index))


@dataclass(frozen=True)
class _Plan:
    """Which segments serve which boxes; all positions in (reduced) level pixels.

    ``alike`` are the boxes that a segment fills exactly, with nothing left over, and no other box touches it; else -1.
    ``touching`` counts a box's segments.
    """

    table: SegmentTable
    kept: _Kept
    corners: Int64[np.ndarray, "n 2"]
    segments: Int64[np.ndarray, " s"]
    boxes: list[Int64[np.ndarray, " _"]]
    alike: Int64[np.ndarray, " s"]
    touching: Int64[np.ndarray, " n"]
    keep_from_row: int


class _Work:
    """Boxes that are being filled; ``done`` hears of each, from the thread that lays its last segment."""

    def __init__(self, plan: _Plan, out: UInt8[np.ndarray, "n h w 3"], done: Done) -> None:
        self.plan, self.out = plan, out
        self.unreadable = np.zeros(len(out), np.bool_)
        self.done = done
        self._left = plan.touching.tolist()
        self._lock = Lock()
        for box in np.flatnonzero(plan.touching == 0).tolist():  # wholly outside
            done(box, False)

    def settle(self, box: int) -> None:
        """Count a segment that a box has got."""
        with self._lock:
            self._left[box] -= 1
            complete = self._left[box] == 0
        if complete:
            self.done(box, bool(self.unreadable[box]))


class DirectReader:
    """The segments of all levels of one slide file. Thread-safe but for boxes, which one thread may ask for."""

    def __init__(self, path: Path, tables: tuple[SegmentTable, ...], background: tuple[int, int, int]) -> None:
        self.tables = tables
        self.background = background
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._kept = _Kept(Scale(0))

    def begin_boxes(
        self,
        scale: Scale,
        corners: Int64[np.ndarray, "n 2"],
        out: UInt8[np.ndarray, "n h w 3"],
        threads: Threads,
        done: Done = ignore,
    ) -> Pending[Boxes]:
        """Begin to fill ``out`` with boxes; what lies outside the level or cannot be decoded becomes background.

        Args:
            scale: of the pixels.
            corners: x, y of each box's top-left corner, in pixels of that scale.
            out: RGB, one box each.
            threads: decode in these.
            done: hears of each box, from the thread that completes it.
        """
        if self._kept.scale != scale:
            self._kept = _Kept(scale)
        table = self.tables[scale.level]
        outside = self._blank_outside(table, corners, out, scale.denominator)
        plan = _plan(table, self._kept, corners, (out.shape[1], out.shape[2]))
        work = _Work(plan, out, done)

        def finish(_: list[None]) -> Boxes:
            plan.kept.forget(plan.keep_from_row * table.columns)
            return Boxes(outside, work.unreadable)

        begun = threads.begin(lambda part: self._serve(work, part), len(plan.segments), _FETCHED_TOGETHER // 2)
        return begun.then(finish)

    def read_boxes(
        self, scale: Scale, corners: Int64[np.ndarray, "n 2"], out: UInt8[np.ndarray, "n h w 3"], threads: Threads
    ) -> Boxes:
        """What :meth:`begin_boxes` begins, once it is done."""
        return self.begin_boxes(scale, corners, out, threads).result()

    def fetch(self, level: int, segments: Int64[np.ndarray, " _"]) -> list[bytes | None]:
        """The bytes of a level's segments, see :func:`wsi_lmc.slide.segments.fetch_segments`."""
        return fetch_segments(self._file, self.tables[level], segments)

    def fetch_bodies(self, level: int, segments: Int64[np.ndarray, " _"], rooms: Rooms) -> bool:
        """Read segments to where they are wanted, see :func:`wsi_lmc.slide.segments.fetch_bodies`."""
        return fetch_bodies(self._file, self.tables[level], segments, rooms)

    def close(self) -> None:
        """Release the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._kept = _Kept(Scale(0))

    def _serve(self, work: _Work, part: range) -> None:
        """Decode a part of the segments and lay them into the boxes."""
        plan, table, denominator = work.plan, work.plan.table, work.plan.kept.scale.denominator
        width, height = table.segment.width // denominator, table.segment.height // denominator
        scratch = np.empty((height, width, 3), np.uint8)
        for index, boxes, alike, data in self._with_bytes(plan, part):
            try:
                if alike >= 0 and data is not None:
                    decode_segment(table, data, work.out[alike], denominator)
                    work.done(alike, False)
                    continue
                pixels = self._pixels(plan, index, data, scratch)
            except ReadError:
                work.unreadable[boxes] = True
                scratch[...] = self.background
                pixels = scratch
            row, column = divmod(index, table.columns)
            used = _used(table, row, column, denominator)
            for box in boxes.tolist():
                _lay(pixels[: used[0], : used[1]], work.out[box], (column * width, row * height), plan.corners[box])
                work.settle(box)

    def _with_bytes(self, plan: _Plan, part: range) -> Iterator[tuple[int, Int64[np.ndarray, " _"], int, bytes | None]]:
        """A part of a plan's segments with the boxes they touch or are, and their bytes, which come a few at a time.

        No bytes for those that are kept from before.
        """
        for start in range(part.start, part.stop, _FETCHED_TOGETHER):
            few = slice(start, min(start + _FETCHED_TOGETHER, part.stop))
            segments = plan.segments[few]
            kept = plan.kept.pixels
            known = [index in kept for index in segments.tolist()] if kept else [False] * len(segments)
            fetched = iter(self.fetch(plan.kept.scale.level, segments[~np.asarray(known)] if any(known) else segments))
            rows = zip(segments.tolist(), plan.boxes[few], plan.alike[few].tolist(), known, strict=True)
            for index, touched, alike, has_it in rows:
                yield index, touched, alike, None if has_it else next(fetched)

    def _pixels(
        self, plan: _Plan, index: int, data: bytes | None, scratch: UInt8[np.ndarray, "h w 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A segment's pixels, kept from the last block or decoded now; in ``scratch`` where nobody needs them later."""
        pixels = plan.kept.pixels.get(index)
        if pixels is None:
            keep = index // plan.table.columns >= plan.keep_from_row
            pixels = plan.kept.room(scratch) if keep else scratch
            decode_segment(plan.table, data, pixels, plan.kept.scale.denominator)
            if keep:
                plan.kept.pixels[index] = pixels
        return pixels

    def _blank_outside(
        self,
        table: SegmentTable,
        corners: Int64[np.ndarray, "n 2"],
        out: UInt8[np.ndarray, "n h w 3"],
        denominator: Denominator,
    ) -> Bool[np.ndarray, " n"]:
        """Give boxes that leave the level a background; returns which they are."""
        whole = np.asarray([-(-table.size.width // denominator), -(-table.size.height // denominator)])
        outside = ((corners < 0) | (corners + np.asarray([out.shape[2], out.shape[1]]) > whole)).any(axis=1)
        out[outside] = self.background
        return outside


def _plan(table: SegmentTable, kept: _Kept, corners: Int64[np.ndarray, "n 2"], shape: tuple[int, int]) -> _Plan:
    """Which segments the boxes of ``shape`` (height, width) touch."""
    denominator = kept.scale.denominator
    side = np.asarray([table.segment.width // denominator, table.segment.height // denominator])
    first = corners // side
    last = (corners + np.asarray([shape[1] - 1, shape[0] - 1])) // side
    spans = (last - first).max(axis=0) + 1 if len(corners) else np.zeros(2, np.int64)
    found: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    for down in range(int(spans[1])):
        for right in range(int(spans[0])):
            cell = first + np.asarray([right, down])
            inside = ((cell <= last) & (cell >= 0) & (cell < [table.columns, table.rows])).all(axis=1)
            found.append(np.stack([cell[:, 1] * table.columns + cell[:, 0], np.arange(len(cell))])[:, inside])
    segment, box = np.concatenate(found, axis=1)
    order = np.argsort(segment, kind="stable")
    segments, starts, touched = np.unique(segment[order], return_index=True, return_counts=True)
    boxes = np.split(box[order], starts[1:]) if len(segments) else []
    first_box = box[order][starts]
    by_box = np.argsort(first_box, kind="stable")  # one box after the other, while it is in the CPU's cache
    boxes = [boxes[number] for number in by_box]
    segments, first_box, touched = segments[by_box], first_box[by_box], touched[by_box]
    cell = np.stack([segments % table.columns, segments // table.columns], axis=1)
    inside = ((cell + 1) * [table.segment.width, table.segment.height] <= [table.size.width, table.size.height]).all(1)
    alike = inside & (touched == 1) & (cell * side == corners[first_box]).all(1) & bool((side == shape[::-1]).all())
    touching = np.bincount(box, minlength=len(corners))
    keep_from_row = int(first[-1, 1]) if len(corners) else 0
    return _Plan(table, kept, corners, segments, boxes, np.where(alike, first_box, -1), touching, keep_from_row)


def _used(table: SegmentTable, row: int, column: int, denominator: Denominator) -> tuple[int, int]:
    """Height and width of a segment's part inside the level, reduced; the rest is padding."""
    height = min(table.segment.height, table.size.height - row * table.segment.height)
    width = min(table.segment.width, table.size.width - column * table.segment.width)
    return -(-height // denominator), -(-width // denominator)


def _lay(
    pixels: UInt8[np.ndarray, "y x 3"],
    box: UInt8[np.ndarray, "h w 3"],
    at: tuple[int, int],
    corner: Int64[np.ndarray, "2"],
) -> None:
    """Copy the part of ``pixels``, whose top-left corner lies ``at`` (x, y), that falls into the box at ``corner``."""
    left, top = at[0] - int(corner[0]), at[1] - int(corner[1])
    x0, x1 = max(left, 0), min(left + pixels.shape[1], box.shape[1])
    y0, y1 = max(top, 0), min(top + pixels.shape[0], box.shape[0])
    if x1 > x0 and y1 > y0:
        box[y0:y1, x0:x1] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
