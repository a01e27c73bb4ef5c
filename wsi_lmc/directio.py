"""Large files written past the page cache, from memory the disk can take them from.

Pages that the kernel must find, fill and write back cost as much processor time as decoding the tiles they hold, and
push out of memory what others had cached there. Where a file system refuses (some network ones do), it is written as
any other file.
"""

import errno
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

PAGE = 4096  # what disks and file systems in use want addresses, lengths and offsets to be multiples of
_PIECES_PER_CALL = 512  # systems take 1,024


def page_aligned(size: int) -> UInt8[np.ndarray, " _"]:
    """Memory of at least ``size`` bytes, a multiple of :data:`PAGE`, that begins on a page."""
    return np.frombuffer(mmap.mmap(-1, max(padded(size), PAGE)), np.uint8)


def padded(size: int) -> int:
    """The next multiple of :data:`PAGE`."""
    return -(-size // PAGE) * PAGE


def write_file(path: Path, pieces: Sequence[UInt8[np.ndarray, " _"]], size: int) -> None:
    """Write a new file of ``size`` bytes, the first of the pieces laid end to end.

    Its bytes are with the disk then; that it survives a power failure, an ``fsync`` still has to ask for.

    Args:
        path: of the file, in a folder that exists.
        pieces: parts of :func:`page_aligned` memory that begin and end on pages.
        size: in bytes.

    Raises:
        OSError: the disk is full, for instance.
    """
    for flag in [getattr(os, "O_DIRECT", 0), 0]:
        try:
            _write(path, pieces, size, flag)
        except OSError as error:
            if error.errno != errno.EINVAL or not flag:  # which is what a file system says that cannot
                raise
            path.unlink(missing_ok=True)
        else:
            return


def _write(path: Path, pieces: Sequence[UInt8[np.ndarray, " _"]], size: int, flag: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | flag, 0o666)
    try:
        _reserve(file, size)
        left = [memoryview(piece) for piece in pieces if len(piece)]
        while left:
            written = os.writev(file, left[:_PIECES_PER_CALL]) if hasattr(os, "writev") else os.write(file, left[0])
            left = _without(left, written)
        os.ftruncate(file, size)
        if not flag:
            os.fsync(file)  # now, while others work on the next file, not all at once in the end
    finally:
        os.close(file)


def _without(pieces: list[memoryview], count: int) -> list[memoryview]:
    """The pieces without their first ``count`` bytes."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return [piece[count:], *pieces[number + 1 :]]
        count -= len(piece)
    return []


def _reserve(file: int, size: int) -> None:
    """Claim a new file's space at once: a full disk shows before the work, and writing takes half the time."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # these say that the file system cannot
            raise
