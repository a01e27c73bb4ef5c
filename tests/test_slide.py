"""One contract for both readers, one calibration for all files, a reason for every file that cannot be used."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc.errors import SlideError
from wsi_lmc.slide import (
    GivenMpp,
    MppStatement,
    Reader,
    ReaderName,
    ReadOptions,
    SlideGeometry,
    calibrate,
    choose_sampling,
    open_slide,
    parse_mpp,
)
from wsi_lmc.slide.geometry import whole_slide
from wsi_lmc.slide.openslide_reader import OpenSlideReader
from wsi_lmc.slide.tiffslide_reader import TiffSlideReader
from wsi_lmc.units import LevelSize, Mpp, SlidePoint, SlideSize

READERS: list[ReaderName] = ["openslide", "tiffslide"]


@contextmanager
def _reading(name: ReaderName, path: Path) -> Iterator[Reader]:
    with closing(OpenSlideReader(path) if name == "openslide" else TiffSlideReader(path)) as reader:
        yield reader


@contextmanager
def _both(path: Path) -> Iterator[list[Reader]]:
    with _reading("openslide", path) as one, _reading("tiffslide", path) as other:
        yield [one, other]


def _code(path: Path, given: GivenMpp | None = None, options: ReadOptions | None = None) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path, given=given, options=options)
    error = caught.value
    assert error.found
    assert error.expected
    assert error.remedy
    assert str(path.parent) not in str(error), "no folder in a message that is recorded"
    return error.code


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("slide", ["north-01.tif", "south-02.svs"])
def test_a_reader_keeps_the_contract(name: ReaderName, slide: str, small_cohort: Path) -> None:
    with _reading(name, small_cohort / "slides" / slide) as reader:
        assert isinstance(reader, Reader)
        assert reader.name == name
        assert reader.vendor == ("aperio" if slide.endswith("svs") else "generic-tiff")
        assert reader.level_sizes == (LevelSize(1024, 1280), LevelSize(512, 640), LevelSize(256, 320))
        statement = reader.mpp_statements()[0]
        assert (parse_mpp(statement.x), parse_mpp(statement.y)) == (pytest.approx(0.5), pytest.approx(0.5))
        outside = reader.read(SlidePoint(-40, 1250), 0, LevelSize(100, 60))
    assert outside.shape == (60, 100, 4)
    assert (outside[:30, 40:, 3] == 255).all()
    assert (outside[30:, :, 3] == 0).all()
    assert (outside[:, :40, 3] == 0).all()


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("slide", ["north-01.tif", "south-02.svs"])
def test_both_readers_give_the_same_pixels(level: int, slide: str, small_cohort: Path) -> None:
    scale = 2**level
    with _both(small_cohort / "slides" / slide) as readers:
        for x, y in ((0, 0), (512, 256), (36 * scale, 100 * scale), (-8 * scale, 1200)):
            one, other = (reader.read(SlidePoint(x, y), level, LevelSize(130, 70)) for reader in readers)
            inside = one[..., 3] > 0
            np.testing.assert_array_equal(one[..., 3], other[..., 3])
            np.testing.assert_array_equal(one[inside], other[inside])
            assert inside.any()


@pytest.mark.real
def test_both_readers_agree_on_a_real_slide(real_slides: Path) -> None:
    with _both(real_slides / "CMU-1-Small-Region.svs") as readers:
        stated = [(reader.mpp_statements()[0].source, float(reader.mpp_statements()[0].x)) for reader in readers]
        assert stated == [("aperio.MPP", 0.499)] * 2
        for origin in (SlidePoint(0, 0), SlidePoint(701, 1333), SlidePoint(1900, 2700)):
            one, other = (reader.read(origin, 0, LevelSize(256, 200)) for reader in readers)
            np.testing.assert_array_equal(one, other)


@pytest.mark.real
def test_both_readers_agree_on_the_levels_of_a_large_slide(real_slides: Path) -> None:
    with _both(next((real_slides / "kang_P2_0039").glob("*lower.tif"))) as readers:
        assert readers[0].level_sizes == readers[1].level_sizes
        for level in range(3):
            one, other = (reader.read(SlidePoint(4096, 8192), level, LevelSize(300, 280)) for reader in readers)
            np.testing.assert_array_equal(one, other)
        assert readers[0].mpp_statements() == readers[1].mpp_statements() == ()


@pytest.mark.real
@pytest.mark.parametrize("name", READERS)
def test_a_pixel_size_that_is_missing_is_not_invented(name: ReaderName, real_slides: Path) -> None:
    """tiffslide itself reports 0.5 for this file, which says nothing."""
    path = real_slides / "tcga-cr-7395-01a-01-ts1.svs"
    with _reading(name, path) as reader:
        assert reader.mpp_statements() == ()
    assert _code(path, options=ReadOptions(name)) == "mpp_missing"
    with open_slide(path, given=GivenMpp(0.25, "option --mpp"), options=ReadOptions(name)) as slide:
        assert slide.info.mpp == (0.25, 0.25)
        assert slide.info.mpp_source == "option --mpp"


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("0,5", 0.5), (" 0.25 ", 0.25), ("10", 10.0), ("0.05", 0.05)]
)
def test_pixel_sizes_are_read(text: str, value: float) -> None:
    assert parse_mpp(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "0", "-0.5", "1e-6", "20", "half", "0.5 um", "1.000,5"])
def test_absurd_pixel_sizes_are_not(text: str) -> None:
    assert parse_mpp(text) is None


def _stated(x: str, y: str | None = None) -> tuple[MppStatement, ...]:
    return (MppStatement("aperio.MPP", x, y or x),)


def test_who_is_believed() -> None:
    manifest, flag = GivenMpp(0.25, "manifest"), GivenMpp(0.25, "option --mpp")
    assert calibrate(_stated("0.5"), None).mpp == Mpp(0.5, 0.5)
    assert calibrate(_stated("0.5"), manifest).source == "manifest"
    assert calibrate((), flag) == calibrate(_stated("0"), flag)
    assert calibrate(_stated("0.252"), flag).source == "aperio.MPP"
    assert calibrate(_stated("0.25", "0.26"), None).mpp == Mpp(0.25, 0.26)
    assert (
        calibrate((*_stated("nan"), MppStatement("tiff.XResolution", "0.3", "0.3")), None).source == "tiff.XResolution"
    )


@pytest.mark.parametrize(
    ("statements", "given", "code"),
    [
        ((), None, "mpp_missing"),
        (_stated("0"), None, "mpp_invalid"),
        (_stated("0.5"), GivenMpp(0.25, "option --mpp"), "mpp_conflict"),
        ((), GivenMpp(20.0, "option --mpp"), "mpp_invalid"),
        ((), GivenMpp(float("nan"), "manifest"), "mpp_invalid"),
    ],
)
def test_nothing_is_guessed(statements: tuple[MppStatement, ...], given: GivenMpp | None, code: str) -> None:
    with pytest.raises(SlideError) as caught:
        calibrate(statements, given)
    assert caught.value.code == code


# ---------------------------------------------------------------- geometry


def _geometry(mpp: Mpp, downsamples: tuple[float, ...] = (1.0, 4.0, 16.0)) -> SlideGeometry:
    size = SlideSize(40_000, 30_000)
    return SlideGeometry(size, mpp, downsamples, whole_slide(size))


@pytest.mark.parametrize(
    ("mpp", "wanted", "level", "read", "footprint"),
    [
        (0.25, 0.25, 0, 256, 256.0),
        (0.499, 0.5, 0, 256, 256.0),
        (0.2527, 1.0, 1, 256, 1024.0),
        (0.25, 0.5, 0, 512, 512.0),
        (0.265, 0.5, 0, 483, 483.0),
        (0.25, 2.0, 1, 512, 2048.0),
        (0.25, 4.0, 2, 256, 4096.0),
    ],
)
def test_the_level_and_the_footprint_follow_from_microns(
    mpp: float, wanted: float, level: int, read: int, footprint: float
) -> None:
    sampling = choose_sampling(_geometry(Mpp(mpp, mpp)), 256, wanted)
    assert (sampling.level, sampling.read.width, sampling.footprint[0]) == (level, read, footprint)
    assert sampling.resampled == (read != 256)


@given(st.floats(0.1, 1.0), st.floats(0.9, 1.1), st.floats(0.1, 8.0), st.sampled_from([64, 224, 256, 512]))
def test_a_tile_covers_the_microns_asked_for_in_x_and_in_y(x: float, ratio: float, wanted: float, px: int) -> None:
    geometry = _geometry(Mpp(x, x * ratio))
    if wanted < max(geometry.mpp.x, geometry.mpp.y) * 1.03:
        return
    sampling = choose_sampling(geometry, px, wanted)
    for side, mpp in zip(sampling.footprint, (x, x * ratio), strict=True):
        assert side * mpp == pytest.approx(px * wanted, rel=0.021)


def test_tiles_are_never_magnified() -> None:
    with pytest.raises(SlideError) as caught:
        choose_sampling(_geometry(Mpp(0.5, 0.5)), 256, 0.25)
    assert caught.value.code == "too_coarse"


# ---------------------------------------------------------------- opening


def test_files_that_are_no_slides_each_have_their_reason(tmp_path: Path, small_cohort: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("a letter to a pathologist " * 40)
    (tmp_path / "folder.svs").mkdir()
    os.mkfifo(tmp_path / "pipe.svs")
    whole = (small_cohort / "slides" / "south-02.svs").read_bytes()
    (tmp_path / "half.svs").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "start.svs").write_bytes(whole[:100])
    tifffile.imwrite(tmp_path / "strips.tif", np.zeros((60, 80), np.uint16))
    found = {path.stem: _code(path) for path in sorted(tmp_path.iterdir())}
    assert found == {
        "empty": "empty_file",
        "text": "not_a_slide",
        "folder": "folder",
        "pipe": "not_a_file",
        "half": "truncated",
        "start": "truncated",
        "strips": "unsupported",
    }
    assert _code(tmp_path / "none.svs") == "missing"


@pytest.mark.real
def test_malformed_real_files_are_explained(real_slides: Path) -> None:
    assert _code(real_slides / "broken.svs") == "not_a_slide"
    with open_slide(real_slides / "openslide_unreadable.svs") as slide:
        assert not slide.read_level(SlidePoint(0, 0), 0, LevelSize(16, 16)).readable
    with open_slide(real_slides / "camelyon16_jpeg_baseline.dcm", given=GivenMpp(10.0, "manifest")) as slide:
        assert slide.info.reader == "openslide"


def test_links_are_followed(tmp_path: Path, small_cohort: Path) -> None:
    (tmp_path / "link.tif").symlink_to(small_cohort / "slides" / "north-01.tif")
    with open_slide(tmp_path / "link.tif") as slide:
        assert slide.slide_id == "link"


# ---------------------------------------------------------------- slide


@pytest.mark.parametrize(("reader", "worst", "mean"), [("openslide", 0.51, 0.3), ("direct", 16, 1.0)])
def test_an_overview_is_the_area_mean_and_keeps_its_frame(
    small_cohort: Path, reader: ReaderName, worst: float, mean: float
) -> None:
    path = small_cohort / "slides" / "north-01.tif"
    with open_slide(path, options=ReadOptions(reader)) as slide:
        overview = slide.overview(8.0)
    assert overview.downsample == (16.0, 16.0)
    assert overview.pixels.shape == (80, 64, 3)
    with openslide.OpenSlide(path) as reference:
        level = np.asarray(reference.read_region((0, 0), 2, (256, 320)))[..., :3].astype(float)
    expected = level.reshape(80, 4, 64, 4, 3).mean((1, 3))
    difference = np.abs(overview.pixels - expected)
    assert difference.max() <= worst  # JPEG decoded at an eighth rounds and clips otherwise
    assert difference.mean() <= mean


def test_an_overview_of_one_large_level_is_made_in_blocks(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(4500) // 32, np.arange(2300) // 32).astype(np.uint8)
    pixels = np.stack([ramp, ramp // 2, 255 - ramp], -1)
    tifffile.imwrite(
        tmp_path / "x.tif", pixels, tile=(256, 256), photometric="rgb", compression="zlib",
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    with open_slide(tmp_path / "x.tif") as slide:
        overview = slide.overview(8.0)
    assert overview.pixels.shape[:2] == (-(-4500 // 16), -(-2300 // 16))
    assert np.abs(overview.pixels[:281, :143].astype(int) - pixels[8 : 281 * 16 : 16, 8 : 143 * 16 : 16]).max() <= 1


def test_a_slide_goes_on_after_an_unreadable_tile(tmp_path: Path, small_cohort: Path) -> None:
    path = tmp_path / "x.tif"
    shutil.copy(small_cohort / "slides" / "north-01.tif", path)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[6], file.pages[0].databytecounts[6]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\x00" * count)
    with open_slide(path) as slide, open_slide(small_cohort / "slides" / "north-01.tif") as whole:
        bad = slide.read_level(SlidePoint(512, 256), 0, LevelSize(256, 256))
        assert not bad.readable
        assert (bad.pixels == 255).all()
        good = slide.read_level(SlidePoint(256, 256), 0, LevelSize(256, 256))
        assert good.readable
        np.testing.assert_array_equal(
            good.pixels, whole.read_level(SlidePoint(256, 256), 0, LevelSize(256, 256)).pixels
        )


def test_what_is_recorded_of_a_slide_names_nobody(small_cohort: Path) -> None:
    with open_slide(small_cohort / "slides" / "south-02.svs", "s-2") as slide:
        info = slide.info
    assert info.id == "s-2"
    allowed = {"id", "width", "height", "mpp", "mpp_source", "vendor", "reader", "compared", "quickhash", "bounds"}
    assert set(vars(info)) == allowed
