"""Direct decoding gives OpenSlide's pixels, box by box, on every kind of TIFF slide it takes on."""

import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiffs import Kind, halve, write_tiff
from wsi_lmc.errors import SlideError
from wsi_lmc.slide import ReaderName, ReadOptions, Slide, choose_sampling, open_slide
from wsi_lmc.slide.decoding import decode_segment
from wsi_lmc.slide.segments import SegmentTable
from wsi_lmc.units import LevelSize, SlidePoint

KINDS = {
    "YCbCr, 4:2:0, 256": Kind(),
    "YCbCr, 4:4:4, 256": Kind(subsampling="444"),
    "RGB, tables apart, 240": Kind(tile=240, rgb=True, tables=True),
    "YCbCr, tables apart, 512": Kind(tile=512, tables=True),
    "BigTIFF": Kind(bigtiff=True, tables=True),
}


@pytest.fixture(scope="module")
def pixels(small_cohort: Path) -> np.ndarray:
    """Synthetic tissue, of no tile size's multiple, taller than wide."""
    with openslide.OpenSlide(small_cohort / "slides" / "north-01.tif") as slide:
        return np.asarray(slide.read_region((37, 90), 0, (900, 1142)))[..., :3].copy()


@pytest.fixture(scope="module", params=KINDS)
def slide_path(request: pytest.FixtureRequest, pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of two levels, of a kind of its own."""
    return write_tiff(tmp_path_factory.mktemp("k") / "x.tif", [pixels, halve(pixels)], KINDS[request.param])


@settings(max_examples=40)
@given(
    x=st.integers(-300, 1000), y=st.integers(-300, 1250), width=st.integers(1, 600), height=st.integers(1, 600),
    level=st.integers(0, 1),
)  # fmt: skip
def test_any_box_is_openslides(slide_path: Path, x: int, y: int, width: int, height: int, level: int) -> None:
    origin, size = SlidePoint(x * 2**level, y * 2**level), LevelSize(width, height)
    with (
        open_slide(slide_path, options=ReadOptions("direct")) as direct,
        open_slide(slide_path, options=ReadOptions("openslide")) as reference,
    ):
        assert direct.direct is not None
        ours, theirs = direct.read_level(origin, level, size), reference.read_level(origin, level, size)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    assert (ours.transparent, ours.readable) == (theirs.transparent, True)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("side", [100, 256, 333])
def test_many_boxes_in_blocks_are_openslides(slide_path: Path, side: int, threads: int) -> None:
    """Segments shared by neighbours, within a block and over its end; overlapping boxes; boxes off the edge."""
    for step in (side, side * 2 // 3):
        origins = np.stack(np.meshgrid(np.arange(-50, 900, step), np.arange(-70, 1150, step)), -1)
        corners = origins.reshape(-1, 2).astype(np.int32)
        found = []
        for options in (ReadOptions("direct", threads=threads), ReadOptions("openslide", threads=threads)):
            with open_slide(slide_path, options=options) as slide:
                plan = slide.plan(corners, choose_sampling(slide.geometry, side, 0.5))
                out = np.empty((len(corners), side, side, 3), np.uint8)
                flags = [slide.read_tiles(plan, start, out[start : start + 7]) for start in range(0, len(corners), 7)]
                found.append((out, np.concatenate([flag.transparent for flag in flags])))
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(found[0][1], found[1][1])


def test_no_segment_is_decoded_twice(slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def decode(table: SegmentTable, data: bytes | None, *rest: object) -> None:
        decoded.append(hash(data))
        decode_segment(table, data, *rest)  # pyright: ignore[reportArgumentType]  passed on as they came

    monkeypatch.setattr("wsi_lmc.slide.direct_reader.decode_segment", decode)
    corners = np.asarray([[x, y] for y in range(0, 1024, 128) for x in range(0, 768, 128)], np.int32)
    with open_slide(slide_path, options=ReadOptions("direct", threads=2)) as slide:
        decoded.clear()
        plan = slide.plan(corners, choose_sampling(slide.geometry, 128, 0.5))
        out = np.empty((len(corners), 128, 128, 3), np.uint8)
        for start in range(0, len(corners), 10):
            slide.read_tiles(plan, start, out[start : start + 10])
    assert len(decoded) == len(set(decoded))


def test_auto_reads_directly_and_says_what_it_was_compared_with(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        info = slide.info
    assert info.reader == "direct"
    assert info.compared is not None
    against, regions, differences = info.compared
    assert against == "openslide"
    assert regions >= 4
    assert differences == (0.0, 0.0)


def test_jpeg_2000_is_read_directly_and_is_openslides(pixels: np.ndarray, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.svs", [pixels, halve(pixels)], Kind(codec="jpeg2000", aperio=True))
    with open_slide(path) as direct, open_slide(path, options=ReadOptions("openslide")) as reference:
        assert direct.direct is not None
        assert direct.direct.tables[1].codec == "jpeg2000"
        for level in (0, 1):
            regions = [
                slide.read_level(SlidePoint(120, 600), level, LevelSize(500, 400)) for slide in (direct, reference)
            ]
            np.testing.assert_array_equal(regions[0].pixels, regions[1].pixels)


def test_real_slides_are_read_directly(real_slides: Path) -> None:
    with open_slide(real_slides / "CMU-1-Small-Region.svs") as slide:
        assert slide.info.compared == ("openslide", 4, (0.0,))


@pytest.mark.parametrize("denominator", [2, 4, 8])
def test_reducing_while_decoding_is_near_area_means(pixels: np.ndarray, tmp_path: Path, denominator: int) -> None:
    path = write_tiff(tmp_path / "x.tif", [pixels], Kind(), um=0.25)
    corners = np.asarray([[0, 0], [256, 512], [128, 256]], np.int32)
    found, names = [], []
    for resample in ("dct", "area"):
        with open_slide(path, options=ReadOptions("direct", resample)) as slide:
            plan = slide.plan(corners, choose_sampling(slide.geometry, 64, 0.25 * denominator))
            out = np.empty((3, 64, 64, 3), np.uint8)
            slide.read_tiles(plan, 0, out)
            found.append(out.astype(float))
            names.append(plan.reduction)
    assert names == ["dct", "area"]
    assert np.abs(found[0] - found[1]).mean() < 1.5


def test_what_the_decoder_cannot_reduce_is_reduced_by_area(pixels: np.ndarray, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", [pixels], Kind(), um=0.25)
    with open_slide(path) as slide:
        by_two = choose_sampling(slide.geometry, 64, 0.5)
        assert slide.plan(np.asarray([[1, 0]], np.int32), by_two).reduction == "area"  # between the reduced pixels
        assert slide.plan(np.asarray([[2, 0]], np.int32), by_two).reduction == "dct"
        by_three = choose_sampling(slide.geometry, 64, 0.75)
        assert slide.plan(np.asarray([[0, 0]], np.int32), by_three).reduction == "area"


def test_slides_that_miss_tiles_are_left_to_openslide(pixels: np.ndarray, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", [pixels], Kind())
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags["TileByteCounts"]
        at = tag.valueoffset + 3 * (4 if tag.dtype == 4 else 2)
        size = 4 if tag.dtype == 4 else 2
    with path.open("r+b") as raw:
        raw.seek(at)
        raw.write(bytes(size))
    with open_slide(path) as slide:
        assert slide.direct is None
    with pytest.raises(SlideError, match="misses some") as caught:
        open_slide(path, options=ReadOptions("direct"))
    assert caught.value.code == "unsupported"


def _damage(path: Path, segment: int, how: str) -> None:
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages.first.dataoffsets[segment], file.pages.first.databytecounts[segment]
    with path.open("r+b") as raw:
        raw.seek(offset)
        data = bytearray(raw.read(count))
        if how == "zeros":
            data[:] = bytes(count)
        elif how == "cut short":
            data[count // 2 :] = bytes(count - count // 2)
        elif how == "another size":
            at = data.index(b"\xff\xc0")
            data[at + 5 : at + 9] = (128).to_bytes(2, "big") * 2
        raw.seek(offset)
        raw.write(data)


def _read_all(slide: Slide) -> tuple[np.ndarray, np.ndarray]:
    corners = np.asarray([[x, y] for y in range(0, 1024, 256) for x in range(0, 768, 256)], np.int32)
    out = np.empty((len(corners), 256, 256, 3), np.uint8)
    flags = slide.read_tiles(slide.plan(corners, choose_sampling(slide.geometry, 256, 0.5)), 0, out)
    return out, flags.unreadable


@pytest.mark.parametrize("how", ["zeros", "cut short", "another size"])
def test_a_damaged_segment_costs_its_own_tiles_only(pixels: np.ndarray, tmp_path: Path, how: str) -> None:
    whole = write_tiff(tmp_path / "whole.tif", [pixels], Kind())
    path = Path(shutil.copy(whole, tmp_path / "x.tif"))
    with tifffile.TiffFile(path) as file:
        counts = np.asarray(file.pages.first.databytecounts)
    fullest = np.argsort(counts)
    chosen = next(int(n) for n in range(4, 12) if n not in fullest[[-1, len(counts) // 2]] and n % 4 != 3)
    _damage(path, chosen, how)
    with open_slide(whole) as slide:
        expected, _ = _read_all(slide)
    with open_slide(path, options=ReadOptions("direct")) as slide:
        found, unreadable = _read_all(slide)
    row, column = divmod(chosen, 4)
    assert np.flatnonzero(unreadable).tolist() == [row * 3 + column]
    assert (found[unreadable] == 255).all()
    np.testing.assert_array_equal(found[~unreadable], expected[~unreadable])


@pytest.mark.parametrize("reader", ["direct", "openslide"])  # tiffslide leaves such levels out
def test_levels_of_different_shapes_are_damage(reader: ReaderName, pixels: np.ndarray, tmp_path: Path) -> None:
    """A directory whose width is damaged can claim millions of pixels, of which an overview would be made."""
    flat = np.ascontiguousarray(pixels[:64:2, : pixels.shape[1] // 2])
    path = write_tiff(tmp_path / "x.tif", [pixels, flat], Kind(64))
    with pytest.raises(SlideError, match=f"and {flat.shape[1]} x 32 pixels; expected levels of one shape") as caught:
        open_slide(path, options=ReadOptions(reader))
    assert caught.value.code == "damaged"
