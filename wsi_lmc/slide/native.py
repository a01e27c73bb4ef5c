"""Tiles that are the slide's own JPEG tiles: their bytes, as they stand in the file, made JPEG files of.

Nothing is decoded but headers, and nothing is copied on the way from the file to where the bytes are wanted.
"""

import numpy as np
from jaxtyping import Int64, UInt8

from wsi_lmc.slide.decoding import looks_whole
from wsi_lmc.slide.direct_reader import DirectReader
from wsi_lmc.slide.segments import END, SHORTEST, START, Rooms


class NativeTiles:
    """The JPEG files that tiles are, pixel for pixel, in the tiles' order. Thread-safe."""

    def __init__(self, direct: DirectReader, level: int, segments: Int64[np.ndarray, " n"]) -> None:
        self._direct, self._level, self._segments = direct, level, segments
        self._table = direct.tables[level]
        self._header = b""

    def __len__(self) -> int:
        return len(self._segments)

    def lengths(self, part: slice) -> list[int]:
        """Bytes of each of some tiles' files."""
        counts = self._table.counts[self._segments[part]]
        return np.maximum(counts - len(START) + len(self._table.head), 0).tolist()

    def lay(self, part: slice, rooms: Rooms) -> bool:
        """Put tiles' files into rooms of their lengths.

        Returns False where any is visibly damaged, cut short for instance: what the rooms hold is undefined then.
        Damage inside a JPEG does not show.
        """
        head, segments = np.frombuffer(self._table.head, np.uint8), self._segments[part]
        if self._table.counts[segments].min(initial=SHORTEST) < SHORTEST:
            return False
        if not self._direct.fetch_bodies(self._level, segments, [room[len(head) :] for room in rooms]):
            return False
        for room in rooms:
            room[: len(head)] = head
        return all(self._looks_whole(room) for room in rooms)

    def _looks_whole(self, jpeg: UInt8[np.ndarray, " _"]) -> bool:
        """Whether a file may be whole; one that begins as another did, up to its compressed data, has its size.

        What a header says beside how to decode the file is blanked.
        """
        header = self._header
        if header and jpeg[-2:].tobytes() == END and jpeg[: len(header)].tobytes() == header:
            return True
        if not looks_whole(jpeg, self._table.segment):
            return False
        self._header = jpeg[: _silence(jpeg)].tobytes()
        return True

    def files(self, part: slice) -> list[bytes | None]:
        """The files one by one: None for those that are visibly damaged."""
        found: list[bytes | None] = []
        for row, length in zip(range(*part.indices(len(self))), self.lengths(part), strict=True):
            room = np.empty(length, np.uint8)
            found.append(room.tobytes() if self.lay(slice(row, row + 1), [room]) else None)
        return found


def _silence(jpeg: UInt8[np.ndarray, " _"]) -> int:
    """Blank comments and what applications have put into a JPEG's header: cameras and scanners may name people there.

    Its length and its pixels stay. Of JFIF and Adobe markers, those few bytes stay that decoders look at. Returns how
    many bytes stand before the compressed data; 0 where the markers do not lead there.
    """
    segments = _header_segments(jpeg.tobytes())
    for name, content in segments:
        if name == _COMMENT or name in _APPLICATIONS:
            text = jpeg[content]
            text[_needed(name, text.tobytes()) :] = 0
    return segments[-1][1].stop if segments else 0


def _needed(name: int, content: bytes) -> int:
    """How many bytes of an application's segment decoders look at."""
    known = {0xE0: (b"JFIF\0", 12), 0xEE: (b"Adobe", 12)}
    begins, length = known.get(name, (b"", 0))
    return length if content.startswith(begins) else 0


def _header_segments(jpeg: bytes) -> list[tuple[int, slice]]:
    """Markers of a JPEG and their contents, up to its compressed data; none where they do not lead there."""
    found: list[tuple[int, slice]] = []
    at = len(START)
    while len(jpeg) > at + 4 and jpeg[at] == _MARKER:
        if jpeg[at + 1] == _MARKER:  # filled up
            at += 1
            continue
        stop = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], slice(at + 4, stop)))
        if jpeg[at + 1] == _SCAN:
            return found
        at = stop
    return []


_MARKER, _SCAN, _COMMENT, _APPLICATIONS = 0xFF, 0xDA, 0xFE, range(0xE0, 0xF0)
