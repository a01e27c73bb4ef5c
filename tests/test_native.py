"""JPEG files made of the slide's own bytes: they hold the slide's pixels, and visible damage is seen."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from tests.tiffs import Kind, write_tiff
from wsi_lmc.slide import NativeTiles, ReadOptions, choose_sampling, decode_jpeg, open_slide
from wsi_lmc.slide.native import _silence

SIDE = 64
KINDS = [Kind(SIDE), Kind(SIDE, tables=True), Kind(SIDE, rgb=True, tables=True, aperio=True), Kind(SIDE, bigtiff=True)]


def _pixels() -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = np.kron(random.integers(90, 200, (5, 7, 3)), np.ones((SIDE, SIDE, 1)))
    return (coarse + random.integers(0, 40, coarse.shape)).astype(np.uint8)[: 5 * SIDE - 9]  # no whole last row


@pytest.fixture
def whole(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, NativeTiles, np.ndarray]]:
    """A slide's file, its whole tiles in an order of their own, and their pixels as the slide is read."""
    path = write_tiff(tmp_path / "x.tif", [_pixels()], request.param)
    corners = np.asarray([[x * SIDE, y * SIDE] for y in range(4) for x in range(7)], np.int32)
    corners = corners[np.random.default_rng(1).permutation(len(corners))]
    with open_slide(path, options=ReadOptions("direct")) as slide:
        plan = slide.plan(corners, choose_sampling(slide.geometry, SIDE, 0.5))
        expected = np.empty((len(corners), SIDE, SIDE, 3), np.uint8)
        slide.read_tiles(plan, 0, expected)
        native = slide.native_tiles(plan)
        assert native is not None
        yield path, native, expected


def _laid(native: NativeTiles, part: slice) -> list[np.ndarray] | None:
    rooms = [np.empty(length, np.uint8) for length in native.lengths(part)]
    return rooms if native.lay(part, rooms) else None


@pytest.mark.parametrize("whole", KINDS, indirect=True)
def test_files_hold_the_tiles_pixels(whole: tuple[Path, NativeTiles, np.ndarray]) -> None:
    _, native, expected = whole
    found = _laid(native, slice(3, 20))
    assert found is not None
    assert [room.tobytes() for room in found] == native.files(slice(3, 20))
    for room, tile in zip(found, expected[3:20], strict=True):
        out = np.empty_like(tile)
        decode_jpeg(room, out)
        np.testing.assert_array_equal(out, tile)


@pytest.mark.parametrize("whole", [Kind(SIDE), Kind(SIDE, tables=True)], indirect=True)
@pytest.mark.parametrize("how", ["no end", "another size", "no JPEG"])
def test_visible_damage_is_seen_in_the_one_tile(whole: tuple[Path, NativeTiles, np.ndarray], how: str) -> None:
    path, native, _ = whole
    assert _laid(native, slice(0, 4)) is not None  # their header is known from now on
    jpeg = native.files(slice(4, 5))[0]
    assert jpeg is not None
    data = bytearray(path.read_bytes())
    at = data.index(jpeg[-300:])  # of the compressed data, which is the tile's own
    start, end = data.rindex(b"\xff\xd8", 0, at), at + 300
    size = data.index(b"\xff\xc0", start)
    if how == "no end":
        data[end - 2 : end] = b"\0\1"
    elif how == "another size":
        data[size + 5 : size + 9] = (128).to_bytes(2, "big") * 2
    else:
        data[start : size + 12] = bytes(size + 12 - start)
    path.write_bytes(data)
    assert _laid(native, slice(2, 7)) is None
    assert [file is None for file in native.files(slice(2, 7))] == [False, False, True, False, False]


@pytest.mark.parametrize("whole", [Kind(SIDE)], indirect=True)
def test_a_file_that_shrank_is_seen(whole: tuple[Path, NativeTiles, np.ndarray]) -> None:
    path, native, _ = whole
    with path.open("r+b") as file:
        file.truncate(100)
    assert _laid(native, slice(0, 3)) is None
    assert native.files(slice(0, 3)) == [None] * 3


def test_a_header_keeps_what_decoders_need_and_nothing_else() -> None:
    """Comments, Exif, a thumbnail in JFIF, bytes that fill up: blanked in place, and the picture is the same."""
    tile = np.random.default_rng(2).integers(0, 256, (2, 3, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    plain = bytes(imagecodecs.jpeg8_encode(tile, level=90))
    assert plain[2:4] == b"\xff\xe0", "JFIF"
    jfif, rest = plain[2:20], plain[20:]
    thumbnail = jfif[:2] + (16 + 6).to_bytes(2, "big") + jfif[4:16] + bytes((2, 1)) + b"Nobody"
    said = b"\xff\xff\xff\xfe\x00\x0aNobody!!" + b"\xff\xe1\x00\x0eExif\0\0Nobody"
    jpeg = np.frombuffer(plain[:2] + thumbnail + said + rest, np.uint8).copy()
    length = _silence(jpeg)
    assert jpeg[length:].tobytes() == plain[-len(jpeg) + length :], "up to the compressed data"
    assert b"Nob" not in jpeg.tobytes()
    assert b"JFIF\0" in jpeg.tobytes()
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(jpeg.tobytes()), imagecodecs.jpeg8_decode(plain))
    assert _silence(np.frombuffer(b"\xff\xd8no markers here", np.uint8).copy()) == 0
