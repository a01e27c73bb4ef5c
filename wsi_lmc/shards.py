"""Shards of a zarr v3 array written in one piece and read at random: the format is zarr's, the speed is the disk's.

A shard is a file of compressed chunks, each followed by its crc32c, then an index: little-endian uint64 offset and
length of each chunk (all ones where there is none), then the index's own crc32c. zarr-python reads these files, and its
own are read here (``tests/test_shards.py``); but it takes several times as long to write one or to read a chunk.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from wsi_lmc.directio import padded, page_aligned, write_file
from wsi_lmc.passing import may_pass

_ABSENT = np.iinfo(np.uint64).max
CRC_BYTES = 4


class ShardError(ValueError):
    """A shard or a chunk of it is gone or damaged."""


@dataclass(frozen=True)
class Shard:
    """A shard opened for reading: its file descriptor, and where its chunks lie. Thread-safe; close when done."""

    name: str
    file: int
    index: UInt64[np.ndarray, "slots 2"]

    def chunk(self, slot: int) -> UInt8[np.ndarray, " bytes"]:
        """The compressed bytes of a chunk, checked, without their checksum.

        Raises:
            ShardError: absent, cut short, or its crc32c does not match.
        OSError: of a kind that may pass.
        """
        offset, length = (int(value) for value in self.index[slot])
        if offset == _ABSENT:
            raise ShardError(f"chunk {slot} of {self.name} is absent")
        data = _read(self.file, self.name, length, offset)
        if length < CRC_BYTES or crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
            raise ShardError(f"chunk {slot} of {self.name} does not match its checksum")
        return data[:-CRC_BYTES]

    def expect_all(self) -> None:
        """Let the system read ahead: most of the chunks will be asked for soon."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_WILLNEED)

    def checksums(self) -> bytes:
        """Length and crc32c of every chunk, as stored: what identifies the content of a shard."""
        present = np.flatnonzero(self.index[:, 0] != _ABSENT).tolist()
        return _identity(self.index[:, 1], [crc32c(self.chunk(slot)) for slot in present])

    def slack_is_empty(self) -> bool:
        """Whether what lies between the chunks, which no checksum covers, is zeros, as it was written."""
        end = 0
        present = self.index[self.index[:, 0] != _ABSENT]
        size = os.fstat(self.file).st_size - len(self.index) * 16 - CRC_BYTES
        for offset, length in [*sorted((int(start), int(count)) for start, count in present), (size, 0)]:
            if offset < end or _read(self.file, self.name, offset - end, end).any():
                return False
            end = offset + length
        return True

    def close(self) -> None:
        """Release the file."""
        os.close(self.file)


class ShardBuffer:
    """Memory for one shard, used again for the next: chunks are gathered here and go to the disk from here.

    Chunks of nearly equal size are compressed each into a slot of its own, and the slots' ends, which hold nothing,
    stay out of the file but for the rest of a page; others come as bytes and are laid side by side.
    """

    def __init__(self, slots: int, room: int = 0) -> None:
        self._slots, self._room = slots, padded(room)
        self._memory = page_aligned(slots * self._room)
        self._index = page_aligned(slots * 16 + CRC_BYTES)

    def room_for(self, slot: int) -> UInt8[np.ndarray, " _"]:
        """Where a chunk and its checksum may be put."""
        return self._memory[slot * self._room : (slot + 1) * self._room]

    def write_slots(self, path: Path, lengths: Sequence[int]) -> bytes:
        """Write the chunks in the first slots as a shard; its folder is made.

        Args:
            path: of the new file.
            lengths: of the chunks in bytes, each with its checksum at its end.

        Returns what :meth:`Shard.checksums` would.

        Raises:
            OSError: the disk is full, for instance.
        """
        pieces = [self.room_for(slot)[: padded(length)] for slot, length in enumerate(lengths)]
        for piece, length in zip(pieces, lengths, strict=True):
            piece[length:] = 0  # what a chunk before it left there
        taken = np.asarray([len(piece) for piece in pieces], np.int64)
        places = self._places(np.cumsum(taken) - taken, np.asarray(lengths, np.int64))
        index = _encoded(places)
        self._index[: len(index)] = np.frombuffer(index, np.uint8)
        _write(path, [*pieces, self._index], int(taken.sum()) + len(index))
        tails = [piece[length - CRC_BYTES : length] for piece, length in zip(pieces, lengths, strict=True)]
        return _identity(places[:, 1], [tail.tobytes() for tail in tails])

    def lay(self, lengths: Sequence[int]) -> list[UInt8[np.ndarray, " _"]]:
        """Room for chunks of these bytes each, side by side with room for their checksums between them."""
        taken = np.asarray(lengths, np.int64) + CRC_BYTES
        size = int(taken.sum()) + len(self._index)
        if size > len(self._memory):
            self._memory = page_aligned(size + size // 4)
        starts = (np.cumsum(taken) - taken).tolist()
        return [self._memory[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    def write_laid(self, path: Path, lengths: Sequence[int]) -> bytes:
        """Write the chunks that were put where :meth:`lay` said; else as :meth:`write_slots`."""
        taken = np.asarray(lengths, np.int64) + CRC_BYTES
        ends = np.cumsum(taken)
        places = self._places(ends - taken, taken)
        tails = [crc32c(chunk) for chunk in self.lay(lengths)]
        for end, tail in zip(ends.tolist(), tails, strict=True):
            self._memory[end - CRC_BYTES : end] = np.frombuffer(tail, np.uint8)
        size = int(ends[-1])
        index = np.frombuffer(_encoded(places), np.uint8)
        self._memory[size : size + len(index)] = index
        size += len(index)
        _write(path, [self._memory[: padded(size)]], size)
        return _identity(places[:, 1], tails)

    def write_packed(self, path: Path, chunks: Sequence[bytes]) -> bytes:
        """Write ``chunks``, which come without their checksums; else as :meth:`write_slots`."""
        lengths = [len(chunk) for chunk in chunks]
        for room, chunk in zip(self.lay(lengths), chunks, strict=True):
            room[...] = np.frombuffer(chunk, np.uint8)
        return self.write_laid(path, lengths)

    def _places(self, offsets: Int64[np.ndarray, " n"], lengths: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, "_ 2"]:
        places = np.full((self._slots, 2), _ABSENT, "<u8")
        places[: len(lengths)] = np.stack([offsets, lengths], axis=1)
        return places


def open_shard(path: Path, slots: int) -> Shard:
    """Open a shard of ``slots`` chunks and check its index.

    Raises:
        ShardError: gone, cut short, or its index is damaged.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ShardError(f"shard {_name(path)}: {error.strerror}") from error
    try:
        size = os.fstat(file).st_size
        length = slots * 16 + CRC_BYTES
        if size < length:
            raise ShardError(f"shard {_name(path)} has {size} bytes, its index alone takes {length}")
        tail = _read(file, _name(path), length, size - length)
        if crc32c(tail[:-CRC_BYTES]) != tail[-CRC_BYTES:].tobytes():
            raise ShardError(f"the index of shard {_name(path)} does not match its checksum")
    except ShardError:
        os.close(file)
        raise
    return Shard(_name(path), file, tail[:-CRC_BYTES].view("<u8").reshape(slots, 2).astype(np.uint64))


def by_shard(rows: Int64[np.ndarray, " n"], slots: int) -> dict[int, Int64[np.ndarray, " m"]]:
    """Which positions of ``rows`` lie in which shard."""
    shard = rows // slots
    return {int(number): np.flatnonzero(shard == number) for number in np.unique(shard)}


def crc32c(data: bytes | UInt8[np.ndarray, " bytes"]) -> bytes:
    """The checksum of zarr's ``crc32c`` codec, four bytes, little-endian."""
    return google_crc32c.value(cast(bytes, data)).to_bytes(CRC_BYTES, "little")


def _encoded(places: UInt64[np.ndarray, "slots 2"]) -> bytes:
    index = places.tobytes()
    return index + crc32c(index)


def _write(path: Path, pieces: list[UInt8[np.ndarray, " _"]], size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, pieces, size)


def _name(path: Path) -> str:
    return "/".join(path.parts[-5:])


def _identity(lengths: UInt64[np.ndarray, " slots"], tails: Sequence[bytes]) -> bytes:
    return np.asarray(lengths, "<u8").tobytes() + b"".join(tails)


def _read(file: int, name: str, length: int, offset: int) -> UInt8[np.ndarray, " bytes"]:
    try:
        data = os.pread(file, length, offset)
    except (OSError, OverflowError, ValueError) as error:
        if may_pass(error):
            raise
        raise ShardError(f"{name}: {error}") from error
    if len(data) != length:
        raise ShardError(f"{name} ends at byte {offset + len(data)}, {offset + length} expected")
    return np.frombuffer(data, np.uint8)
