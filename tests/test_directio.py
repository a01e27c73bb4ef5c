"""Files written past the page cache hold what was given, whatever its length, and errors get through."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from wsi_lmc.directio import PAGE, padded, page_aligned, write_file


def _pieces(*lengths: int) -> tuple[list[np.ndarray], bytes]:
    """Aligned pieces of random bytes, and all of them together."""
    rng = np.random.default_rng(0)
    pieces = [page_aligned(length)[:length] for length in lengths]
    for piece in pieces:
        piece[...] = rng.integers(0, 256, len(piece), np.uint8)
    return pieces, b"".join(piece.tobytes() for piece in pieces)


@pytest.mark.parametrize("cut", [0, 1, 100, PAGE - 1])
@pytest.mark.parametrize("lengths", [(PAGE,), (3 * PAGE, PAGE, 5 * PAGE), (PAGE,) * 1300])
def test_the_file_is_the_pieces_cut_at_its_size(lengths: tuple[int, ...], cut: int, tmp_path: Path) -> None:
    pieces, whole = _pieces(*lengths)
    write_file(tmp_path / "a", pieces, len(whole) - cut)
    assert (tmp_path / "a").read_bytes() == whole[: len(whole) - cut]


def test_memory_begins_on_a_page_and_is_large_enough() -> None:
    for size in (0, 1, PAGE, PAGE + 1):
        memory = page_aligned(size)
        assert len(memory) >= size
        assert memory.ctypes.data % PAGE == 0
        assert len(memory) % PAGE == 0
    assert [padded(size) for size in (0, 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, 2 * PAGE]


def test_a_file_system_that_refuses_gets_an_ordinary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system calls are real but for the flag: what they refuse is a file that is not aligned."""
    pieces, whole = _pieces(2 * PAGE)
    unaligned = page_aligned(3 * PAGE)[1 : 1 + len(whole)]
    unaligned[...] = pieces[0]
    write_file(tmp_path / "a", [unaligned], len(whole) - 7)
    assert (tmp_path / "a").read_bytes() == whole[:-7]
    monkeypatch.delattr(os, "writev")
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    write_file(tmp_path / "b", [unaligned], len(whole) - 7)
    assert (tmp_path / "b").read_bytes() == whole[:-7]


def test_what_cannot_be_written_is_an_error() -> None:
    pieces, whole = _pieces(PAGE)
    with pytest.raises(OSError) as found:  # noqa: PT011 - which one depends on where
        write_file(Path("/proc/nothing/here"), pieces, len(whole))
    assert found.value.errno == errno.ENOENT


def test_what_stands_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"precious")
    pieces, whole = _pieces(PAGE)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", pieces, len(whole))
    assert (tmp_path / "a").read_bytes() == b"precious"
