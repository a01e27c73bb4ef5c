"""Changing single fields of TIFF files that are already written: what no library would write, and damage leaves."""

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

_SHORT, _LONG, _RATIONAL = 3, 4, 5
_BYTES = {_SHORT: 2, _LONG: 4}


@dataclass(frozen=True)
class Field:
    """What to put into a directory's entry; what is None stays as it is.

    ``value`` are the raw bytes of its value, ``at`` is where in the file the value shall be looked for.
    """

    value: bytes | None = None
    count: int | None = None
    at: int | None = None


def then(base: Callable[[Path], object], *changes: Callable[[Path], object]) -> Callable[[Path], None]:
    """Make a file, then change it."""

    def make(path: Path) -> None:
        base(path)
        for change in changes:
            change(path)

    return make


def tag(name: str, field: Field, page: int = 0) -> Callable[[Path], None]:
    """Change an entry of a directory of a classic, little-endian TIFF."""

    def change(path: Path) -> None:
        with tifffile.TiffFile(path) as file:
            assert not file.is_bigtiff
            assert file.byteorder == "<"
            entry = _page(file, page).tags[name]
            place, lies = entry.offset, entry.valueoffset
        for at, number in ((place + 4, field.count), (place + 8, field.at)):
            if number is not None:
                overwrite(path, at, number_of(number))
        if field.value is not None:
            overwrite(path, lies, field.value)

    return change


def number_of(value: int, size: int = 4) -> bytes:
    """A number as little-endian TIFF keeps it."""
    return value.to_bytes(size, "little")


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Put bytes over those at an offset."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes wherever they stand by as many others."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert old in data
    path.write_bytes(data.replace(old, new))


def cut(share: float) -> Callable[[Path], None]:
    """Keep the first ``share`` of a file."""
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def point_back(number: int) -> Callable[[Path], None]:
    """Make the last directory point to an earlier one, or itself, instead of ending the list."""

    def change(path: Path) -> None:
        with tifffile.TiffFile(path) as file:
            last, target = _page(file, len(file.pages) - 1), _page(file, min(number, len(file.pages) - 1)).offset
            head, entry, size = (8, 20, 8) if file.is_bigtiff else (2, 12, 4)
            at = last.offset + head + entry * len(last.tags)
        overwrite(path, at, number_of(target, size))

    return change


def swap_entries(path: Path) -> None:
    """Put the first two entries of the first directory in the wrong order."""
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.offset + 2
    data = path.read_bytes()
    one, other = (data[start + 12 * n : start + 12 * n + 12] for n in (0, 1))
    overwrite(path, start, other + one)


def change_segments(old: bytes, new: bytes, numbers: Iterable[int] | None = None) -> Callable[[Path], None]:
    """Replace the first occurrence of ``old`` in compressed tiles of level 0, by default in all."""

    def change(path: Path) -> None:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        data = path.read_bytes()
        assert len(old) == len(new)
        for number in range(len(places)) if numbers is None else numbers:
            start, count = places[number]
            overwrite(path, data.index(old, start, start + count), new)

    return change


def page_count(path: Path, page: int) -> int:
    """How many tiles a page has."""
    with tifffile.TiffFile(path) as file:
        return len(_page(file, page).dataoffsets)


def drop_segments(path: Path, numbers: list[int], page: int = 0) -> None:
    """Make tiles missing: neither offset nor length, as sparse slides have it."""
    for number in numbers:
        for name in ("TileOffsets", "TileByteCounts"):
            _set(path, name, number, 0, page)


def set_tile_count(path: Path, number: int, value: int) -> None:
    """Say another length of one tile of level 0."""
    _set(path, "TileByteCounts", number, value)


def set_tile_offset(path: Path, number: int, value: int) -> None:
    """Say that one tile of level 0 lies elsewhere."""
    _set(path, "TileOffsets", number, value)


def bomb(path: Path, side: int, tile: int) -> None:
    """A file that claims side x side pixels in deflated tiles, all of which are the same few bytes in it."""
    black, count = _deflated(tile * tile * 3), (-(-side // tile)) ** 2
    resolution = struct.pack("<II", 20_000, 1)
    entries: list[tuple[int, int, int, int | bytes]] = [
        (256, _LONG, 1, side), (257, _LONG, 1, side), (258, _SHORT, 3, struct.pack("<HHH", 8, 8, 8)),
        (259, _SHORT, 1, 8), (262, _SHORT, 1, 2), (277, _SHORT, 1, 3), (282, _RATIONAL, 1, resolution),
        (283, _RATIONAL, 1, resolution), (296, _SHORT, 1, 3), (322, _LONG, 1, tile), (323, _LONG, 1, tile),
    ]  # fmt: skip
    lies = 8 + 2 + 12 * (len(entries) + 2) + 4
    places, counts = (np.full(count, value, "<u4").tobytes() for value in (lies, len(black)))
    entries += [
        (324, _LONG, count, places if count > 1 else lies),
        (325, _LONG, count, counts if count > 1 else len(black)),
    ]
    head, body = struct.pack("<2sHIH", b"II", 42, 8, len(entries)), black
    for code, dtype, number, value in entries:
        if isinstance(value, bytes):
            head += struct.pack("<HHII", code, dtype, number, lies + len(body))
            body += value
        else:
            head += struct.pack("<HHII", code, dtype, number, value)
    path.write_bytes(head + bytes(4) + body)


def _deflated(size: int) -> bytes:
    """Zeros, compressed: one piece of them as often as it takes, since a bomb must be cheap to make."""
    machine, piece = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20)
    whole, rest = divmod(size, len(piece))
    again = machine.compress(piece) + machine.flush(zlib.Z_FULL_FLUSH)
    end = machine.compress(piece[:rest]) + machine.flush()
    checksum = size % 65_521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + again * whole + end + checksum.to_bytes(4, "big")


def _set(path: Path, name: str, number: int, value: int, page: int = 0) -> None:
    with tifffile.TiffFile(path) as file:
        entry = _page(file, page).tags[name]
        size = _BYTES[int(entry.dtype)]
        at = entry.valueoffset + number * size
    overwrite(path, at, number_of(value, size))


def _page(file: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    """A page that is whole, not a mere frame."""
    page = file.pages[number]
    assert isinstance(page, tifffile.TiffPage)
    return page
