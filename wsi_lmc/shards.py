"""Shards of a zarr v3 array written in one piece and read at random: the format is zarr's, the speed is the disk's.

A shard is a file of compressed chunks, each followed by its crc32c, then an index: little-endian uint64 offset and
length of each chunk (all ones where there is none), then the index's own crc32c. zarr-python reads these files, and its
own are read here (``tests/test_shards.py``); but it takes several times as long to write one or to read a chunk.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt8, UInt64

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
        """
        offset, length = (int(value) for value in self.index[slot])
        if offset == _ABSENT:
            raise ShardError(f"chunk {slot} of {self.name} is absent")
        data = _read(self.file, self.name, length, offset)
        if length < CRC_BYTES or crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
            raise ShardError(f"chunk {slot} of {self.name} does not match its checksum")
        return data[:-CRC_BYTES]

    def checksums(self) -> bytes:
        """Length and crc32c of every chunk, as stored: what identifies the content of a shard."""
        present = np.flatnonzero(self.index[:, 0] != _ABSENT).tolist()
        return _identity(self.index[:, 1], [crc32c(self.chunk(slot)) for slot in present])

    def close(self) -> None:
        """Release the file."""
        os.close(self.file)


def write_shard(path: Path, chunks: Sequence[bytes | UInt8[np.ndarray, " _"]], slots: int) -> bytes:
    """Write compressed ``chunks`` as the first of a shard's ``slots``; returns what :meth:`Shard.checksums` would.

    Args:
        path: of the new file; its folder is made.
        chunks: each with its checksum at its end, see :func:`with_checksum`.
        slots: chunks that a whole shard of this array holds.

    Raises:
        OSError: the disk is full, for instance.
    """
    index = np.full((slots, 2), _ABSENT, "<u8")
    lengths = np.asarray([len(chunk) for chunk in chunks], np.uint64)
    index[: len(chunks), 1] = lengths
    index[: len(chunks), 0] = np.cumsum(lengths) - lengths
    encoded = index.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        _reserve(file.fileno(), int(lengths.sum()) + len(encoded) + CRC_BYTES)
        file.writelines([*chunks, encoded, crc32c(encoded)])
        file.flush()
        os.fsync(file.fileno())  # now, while the next tiles are decoded, not all at once in the end
    return _identity(index[:, 1], [bytes(chunk[-CRC_BYTES:]) for chunk in chunks])


def with_checksum(chunk: bytes) -> bytes:
    """A compressed chunk as it stands in a shard."""
    return chunk + crc32c(chunk)


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


def _reserve(file: int, size: int) -> None:
    """Claim a new file's space at once: a full disk shows before the work, and writing takes half the time."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # these say that the file system cannot
            raise


def _name(path: Path) -> str:
    return "/".join(path.parts[-5:])


def _identity(lengths: UInt64[np.ndarray, " slots"], tails: Sequence[bytes]) -> bytes:
    return np.asarray(lengths, "<u8").tobytes() + b"".join(tails)


def _read(file: int, name: str, length: int, offset: int) -> UInt8[np.ndarray, " bytes"]:
    try:
        data = os.pread(file, length, offset)
    except (OSError, OverflowError, ValueError) as error:
        raise ShardError(f"{name}: {error}") from error
    if len(data) != length:
        raise ShardError(f"{name} ends at byte {offset + len(data)}, {offset + length} expected")
    return np.frombuffer(data, np.uint8)
