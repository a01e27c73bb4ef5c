"""Where a tiled TIFF keeps the compressed pixels of a level: position and size of every native tile ("segment").

Read once, when a slide is opened; from then on a segment is one ``pread`` and one call of the decoder. Notable: most
JPEG slides keep their tables once a level, so a segment is no JPEG file until they are put in front of it; and whether
it holds RGB or YCbCr stands in the TIFF directory, so an Adobe marker has to say it to the decoder.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from jaxtyping import Int64, UInt8

from wsi_lmc.passing import may_pass
from wsi_lmc.units import LevelSize

Rooms = Sequence[UInt8[np.ndarray, " _"]]
SegmentCodec = Literal["jpeg", "jpeg2000"]

_JPEG, _JPEG_2000 = {7}, {33003, 33005, 34712}
_RGB, _YCBCR = 2, 6
_GAP = 1 << 16  # bytes that are read for nothing rather than asking the disk twice
_RUN = 1 << 22  # about as many bytes are read in one go
_PIECES_PER_CALL = 1000  # systems take 1,024
SHORTEST = 4  # bytes: no compressed image is shorter
START, END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
_ADOBE = b"\xff\xee\x00\x0eAdobe" + bytes([0, 100, 0, 0, 0, 0])  # APP14 but for its last byte: 0 is RGB, 1 is YCbCr
PARSE_ERRORS = (
    tifffile.TiffFileError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    ArithmeticError,
    NotImplementedError,
    OSError,
)
"""What tifffile raises on directories that are damaged or beyond it."""


@dataclass(frozen=True)
class SegmentTable:
    """The segments of one level, row-major; ``size`` is the level's, ``segment`` a segment's, in level pixels.

    ``offsets`` and ``counts`` are bytes in the file; ``head`` replaces the first two bytes of a JPEG segment, and makes
    a JPEG file of it. Segments at the right and bottom border are whole; what lies beyond ``size`` is padding.
    """

    size: LevelSize
    segment: LevelSize
    codec: SegmentCodec
    head: bytes
    offsets: Int64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]

    @property
    def columns(self) -> int:
        """Segments in a row."""
        return -(-self.size.width // self.segment.width)

    @property
    def rows(self) -> int:
        """Segments in a column."""
        return -(-self.size.height // self.segment.height)

    def divides(self, denominator: int) -> bool:
        """Whether segments can be reduced by it while decoding without a part of a pixel at their borders."""
        return self.segment.width % denominator == 0 and self.segment.height % denominator == 0

    @property
    def sparse(self) -> bool:
        """Whether segments are missing, which formats mean differently (glass, or see the level above)."""
        return bool((self.counts == 0).any())


def fetch_segments(file: int, table: SegmentTable, segments: Int64[np.ndarray, " _"]) -> list[bytes | None]:
    """The bytes of segments as they stand in an open file; None for one beyond its end.

    Segments that follow each other in the file, as neighbours in a row do, are read in one go.

    Raises:
        OSError: see :func:`_pread`.
    """
    order = np.argsort(table.offsets[segments], kind="stable")
    starts, counts = table.offsets[segments[order]], table.counts[segments[order]]
    ends = starts + counts
    apart = (starts[1:] < ends[:-1]) | (starts[1:] - ends[:-1] > _GAP)
    far = np.cumsum(counts) // _RUN
    cuts = (np.flatnonzero(apart | (far[1:] != far[:-1])) + 1).tolist()
    rows, first, size, last = order.tolist(), starts.tolist(), counts.tolist(), ends.tolist()
    found: list[bytes | None] = [None] * len(rows)
    for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True) if rows else []:
        start = first[begin]
        whole = _pread(file, last[end - 1] - start, start)
        for number in range(begin, end):
            if whole is not None:
                data = whole[first[number] - start : last[number] - start] if end - begin > 1 else whole
            else:  # which of them is it?
                data = _pread(file, size[number], first[number])
            if data is not None and len(data) == size[number] >= SHORTEST:
                found[rows[number]] = data
    return found


def fetch_bodies(file: int, table: SegmentTable, segments: Int64[np.ndarray, " _"], rooms: Rooms) -> bool:
    """Read segments' bytes but for their first two, which ``table.head`` replaces, each to where it is wanted.

    Nothing is copied on the way. Returns False where any lies beyond the file's end, or the disk fails: what the rooms
    hold is undefined then.
    """
    if not hasattr(os, "preadv"):
        return False
    starts, counts = table.offsets[segments], table.counts[segments]
    skipped = bytearray(len(START))
    cuts = (np.flatnonzero(starts[1:] != (starts + counts)[:-1]) + 1).tolist()
    for begin, end in zip([0, *cuts], [*cuts, len(segments)], strict=True) if len(segments) else []:
        for first in range(begin, end, _PIECES_PER_CALL // 2):
            last = min(first + _PIECES_PER_CALL // 2, end)
            pieces = [piece for room in rooms[first:last] for piece in (skipped, room.data)]
            try:
                found = os.preadv(file, pieces, int(starts[first]))
            except (OSError, ValueError, OverflowError):
                return False
            if found != int(counts[first:last].sum()):
                return False
    return True


def _pread(file: int, length: int, offset: int) -> bytes | None:
    """Bytes of a file; None where it has none there.

    Raises:
        OSError: of a kind that may pass: whoever opens the slide again may be luckier.
    """
    try:
        return os.pread(file, length, offset)
    except OSError as error:
        if may_pass(error):
            raise
        return None
    except (ValueError, OverflowError):
        return None


def read_tables(path: Path, levels: tuple[LevelSize, ...]) -> tuple[SegmentTable, ...] | None:
    """The segments of every one of ``levels``, or None where one of them is not of JPEG or JPEG 2000 RGB segments.

    A level is the first tiled image of the file that has its size.
    """
    tables: list[SegmentTable] = []
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
            for level in levels:
                found = next((page for page in pages if (page.imagewidth, page.imagelength) == _shape(level)), None)
                table = _table(found, level) if found is not None else None
                if table is None:
                    return None
                tables.append(table)
    except PARSE_ERRORS:
        return None
    return tuple(tables)


def _shape(level: LevelSize) -> tuple[int, int]:
    return level.width, level.height


def _table(page: tifffile.TiffPage, level: LevelSize) -> SegmentTable | None:
    contiguous = page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    if page.samplesperpixel != 3 or page.bitspersample != 8 or not contiguous or page.imagedepth != 1:
        return None
    compression, photometric = int(page.compression), int(page.photometric)
    if compression in _JPEG and photometric in (_RGB, _YCBCR):
        tables = page.jpegtables or START + END
        head = START + _ADOBE + bytes([photometric == _YCBCR]) + tables[2:-2]
        codec: SegmentCodec = "jpeg"
    elif compression in _JPEG_2000:
        head, codec = b"", "jpeg2000"
    else:
        return None
    table = SegmentTable(
        level,
        LevelSize(page.tilewidth, page.tilelength),
        codec,
        head,
        np.asarray(page.dataoffsets, np.int64),
        np.asarray(page.databytecounts, np.int64),
    )
    return table if len(table.offsets) == len(table.counts) == table.rows * table.columns else None
