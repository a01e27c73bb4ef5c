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
        """Whether a file may be whole; one that begins as another did, up to its compressed data, has its size."""
        header = self._header
        if header and jpeg[-2:].tobytes() == END and jpeg[: len(header)].tobytes() == header:
            return True
        if not looks_whole(jpeg, self._table.segment):
            return False
        self._header = jpeg[: _header_length(jpeg.tobytes())].tobytes()
        return True

    def files(self, part: slice) -> list[bytes | None]:
        """The files one by one: None for those that are visibly damaged."""
        found: list[bytes | None] = []
        for row, length in zip(range(*part.indices(len(self))), self.lengths(part), strict=True):
            room = np.empty(length, np.uint8)
            found.append(room.tobytes() if self.lay(slice(row, row + 1), [room]) else None)
        return found


def _header_length(jpeg: bytes) -> int:
    """Bytes of a JPEG before its compressed data, tables and size among them; 0 where its markers do not lead there."""
    at = len(START)
    while len(jpeg) > at + 4 and jpeg[at] == _MARKER:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == _SCAN:
            return at + length
        at += length
    return 0


_MARKER, _SCAN = 0xFF, 0xDA
