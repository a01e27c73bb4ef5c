"""Tiles on disk are the slide's pixels; what cannot be read is marked, and too much of it fails the slide."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from tests.tiffs import Kind, write_tiff
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import GridConfig, TileGrid, place_tiles
from wsi_lmc.slide import ReadOptions, Slide, open_slide
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileStore, Validity
from wsi_lmc.tiling import cut_tiles, describe_tiles
from wsi_lmc.tissue import TissueMask


def _slide_file(path: Path, damaged: int = 0) -> Path:
    """A pyramid of random smooth colours, 1100 x 1500; the JPEG data of ``damaged`` tiles is overwritten."""
    noise = np.random.default_rng(0).integers(0, 256, (38, 28, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (1100, 1500), interpolation=cv2.INTER_CUBIC)
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            file.write(
                np.ascontiguousarray(pixels[::step, ::step]), tile=(256, 256), photometric="rgb", compression="jpeg",
                resolution=(20_000 / step, 20_000 / step), resolutionunit="CENTIMETER", subfiletype=step - 1,
                metadata=None,
            )  # fmt: skip
    with tifffile.TiffFile(path) as file:
        places = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    with path.open("r+b") as raw:
        for offset, count in places[7 : 7 + damaged]:
            raw.seek(offset)
            raw.write(b"\x00" * count)
    return path


def _everywhere(slide: Slide, config: GridConfig) -> TileGrid:
    size = slide.geometry.size
    mask = TissueMask(np.ones((size.height // 16 + 1, size.width // 16 + 1), bool), (16.0, 16.0), None)
    return place_tiles(mask, slide.geometry, config)


def _cut(path: Path, out: Path, config: GridConfig) -> TileStore:
    with open_slide(path) as slide:
        cut_tiles(
            slide, _everywhere(slide, config), out, "lossless", {"slide_fingerprint": "a", "config_fingerprint": "b"}
        )
    return TileStore.open(out)


def test_native_tiles_are_the_readers_pixels(tmp_path: Path) -> None:
    path = _slide_file(tmp_path / "x.tif")
    store = _cut(path, tmp_path / "x.zarr", GridConfig(tile_mpp=0.5))
    tiles = store.read(np.arange(len(store)))
    assert len(store) == 4 * 5
    assert set(store.valid.tolist()) == {Validity.OK}
    with openslide.OpenSlide(path) as reference:
        for (x, y), tile in zip(store.origins.tolist(), tiles, strict=True):
            np.testing.assert_array_equal(tile, np.asarray(reference.read_region((x, y), 0, (256, 256)))[..., :3])


def test_resampled_tiles_are_reduced_by_area_as_stated(tmp_path: Path) -> None:
    path = _slide_file(tmp_path / "x.tif")
    store = _cut(path, tmp_path / "x.zarr", GridConfig(tile_mpp=0.75))
    assert store.attributes["tile"]["resampled"] == "area"
    assert store.attributes["tile"]["level"] == 0
    assert store.attributes["tile"]["read_px"] == [384, 384]
    assert store.attributes["tile"]["footprint"] == [384.0, 384.0]
    tiles = store.read(np.arange(len(store)))
    with openslide.OpenSlide(path) as reference:
        for (x, y), tile in zip(store.origins.tolist(), tiles, strict=True):
            region = np.asarray(reference.read_region((x, y), 0, (384, 384)))[..., :3]
            expected = cv2.resize(np.ascontiguousarray(region), (256, 256), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(tile, expected)


def test_the_next_level_is_taken_where_it_fits(tmp_path: Path) -> None:
    store = _cut(_slide_file(tmp_path / "x.tif"), tmp_path / "x.zarr", GridConfig(tile_mpp=1.0))
    assert store.attributes["tile"]["level"] == 1
    assert store.attributes["tile"]["resampled"] == "no"
    assert store.attributes["tile"]["footprint"] == [512.0, 512.0]


def test_padded_tiles_are_marked(tmp_path: Path) -> None:
    store = _cut(_slide_file(tmp_path / "x.tif"), tmp_path / "x.zarr", GridConfig(edge="pad", min_tissue=0.0))
    right = store.origins[:, 0] + 256 > 1100
    bottom = store.origins[:, 1] + 256 > 1500
    np.testing.assert_array_equal(store.valid == Validity.PADDED, right | bottom)
    last = store.read(np.array([len(store) - 1]))[0]
    assert (last[-10:, -10:] == 255).all(), "beyond the slide is background"


def test_an_unreadable_tile_is_marked_and_its_neighbours_are_whole(tmp_path: Path) -> None:
    whole = _cut(_slide_file(tmp_path / "x.tif"), tmp_path / "x.zarr", GridConfig())
    store = _cut(_slide_file(tmp_path / "y.tif", damaged=1), tmp_path / "y.zarr", GridConfig())
    bad = np.nonzero(store.valid == Validity.UNREADABLE)[0]
    assert [tuple(store.origins[row]) for row in bad.tolist()] == [(512, 256)]
    assert (store.read(bad) == 255).all()
    others = np.nonzero(store.valid == Validity.OK)[0]
    np.testing.assert_array_equal(store.read(others), whole.read(others))


def test_too_many_unreadable_tiles_fail_the_slide(tmp_path: Path) -> None:
    with pytest.raises(SlideError) as caught:
        _cut(_slide_file(tmp_path / "x.tif", damaged=4), tmp_path / "x.zarr", GridConfig())
    assert caught.value.code == "unreadable_tiles"


def test_what_was_cut_is_described(tmp_path: Path) -> None:
    with open_slide(_slide_file(tmp_path / "x.tif")) as slide:
        described = describe_tiles(slide, _everywhere(slide, GridConfig(tile_mpp=0.5, stride=128)))
    assert described["stride"] == 128
    assert described["px"] == 256
    assert described["effective_mpp"] == pytest.approx([0.5, 0.5])


KEPT = {"YCbCr": Kind(), "RGB, tables apart": Kind(rgb=True, tables=True), "tables apart": Kind(tables=True)}


@pytest.fixture(params=KEPT)
def jpeg_slide(request: pytest.FixtureRequest, small_cohort: Path, tmp_path: Path) -> Path:
    """Tissue in JPEG tiles of 256 px, of a size that is no multiple of theirs."""
    with openslide.OpenSlide(small_cohort / "slides" / "south-01.tif") as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, (900, 1142)))[..., :3].copy()
    return write_tiff(tmp_path / "x.tif", [pixels], KEPT[request.param])


def test_the_slides_own_jpeg_bytes_are_kept_where_tiles_are_its_tiles(jpeg_slide: Path, tmp_path: Path) -> None:
    with open_slide(jpeg_slide, options=ReadOptions(threads=2)) as slide:
        cut_tiles(slide, _everywhere(slide, GridConfig()), tmp_path / "kept.zarr", "auto", {})
    store = TileStore.open(tmp_path / "kept.zarr")
    assert store.attributes["codec"] == "the slide's own jpeg + crc32c"
    assert len(store) == 3 * 4, "the border's tiles are no whole JPEG tiles"
    with openslide.OpenSlide(jpeg_slide) as reference:
        expected = [
            np.asarray(reference.read_region((x, y), 0, (256, 256)))[..., :3] for x, y in store.origins.tolist()
        ]
    np.testing.assert_array_equal(store.read(np.arange(12)), expected)
    np.testing.assert_array_equal(store.read(np.asarray([7, 2]), Threads(2)), [expected[7], expected[2]])
    code = f"""
import numpy as np, zarr
from imagecodecs.zarr import register_codecs
register_codecs({{"jpeg"}}, verbose=False)
np.save({str(tmp_path / "stock.npy")!r}, zarr.open_group({str(store.path)!r}, mode="r")["tiles"][...])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "stock.npy"), expected)


@pytest.mark.parametrize(
    "grid", [GridConfig(edge="pad"), GridConfig(stride=128), GridConfig(tile_px=128), GridConfig(tile_mpp=1.0)], ids=str
)
def test_other_grids_are_stored_lossless(small_cohort: Path, tmp_path: Path, grid: GridConfig) -> None:
    with openslide.OpenSlide(small_cohort / "slides" / "south-01.tif") as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, (900, 1142)))[..., :3].copy()
    path = write_tiff(tmp_path / "x.tif", [pixels], Kind())
    stores = []
    for reader in ("direct", "openslide"):
        with open_slide(path, options=ReadOptions(reader, resample="area")) as slide:
            cut_tiles(slide, _everywhere(slide, grid), tmp_path / f"{reader}.zarr", "auto", {})
        stores.append(TileStore.open(tmp_path / f"{reader}.zarr"))
        assert stores[-1].attributes["codec"] == "blosc lz4 + crc32c"
    rows = np.arange(len(stores[0]))
    np.testing.assert_array_equal(stores[0].read(rows), stores[1].read(rows))
    np.testing.assert_array_equal(stores[0].valid, stores[1].valid)


def _break_segment(path: Path, segment: int, start: int, data: bytes) -> None:
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[segment]
    with path.open("r+b") as raw:
        raw.seek(offset + start)
        raw.write(data)


def test_a_kept_tile_that_is_visibly_damaged_is_white_and_said_so(jpeg_slide: Path, tmp_path: Path) -> None:
    with open_slide(jpeg_slide) as slide:  # opened before the damage: else it would show in the comparison
        _break_segment(jpeg_slide, 5, 0, bytes(1000))
        grid = _everywhere(slide, GridConfig(stride=256))
        with pytest.raises(SlideError, match="1 of 12 tiles"):
            cut_tiles(slide, grid, tmp_path / "refused.zarr", "auto", {})
        rows = np.concatenate([np.arange(12), *[np.delete(np.arange(12), 4)] * 2])  # enough whole ones for the share
        fields = {name: getattr(grid, name)[rows] for name in ("origins", "tissue_fraction", "padded")}
        many = replace(grid, **fields)
        cut_tiles(slide, many, tmp_path / "kept.zarr", "auto", {})
    store = TileStore.open(tmp_path / "kept.zarr")
    broken = np.flatnonzero(store.valid == Validity.UNREADABLE)
    assert broken.tolist() == [4]  # segment 5 of rows of four is tile 4 of rows of three
    assert (store.read(broken) == 255).all()
    assert store.read(np.asarray([3])).min() < 200


def test_damage_inside_a_kept_tile_shows_when_it_is_decoded(small_cohort: Path, tmp_path: Path) -> None:
    with openslide.OpenSlide(small_cohort / "slides" / "south-01.tif") as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, (768, 1024)))[..., :3].copy()
    path = write_tiff(tmp_path / "x.tif", [pixels], Kind())
    with tifffile.TiffFile(path) as file:
        count = file.pages.first.databytecounts[4]
    with open_slide(path) as slide:
        _break_segment(path, 4, count // 2, b"\xff\xd5" * 40)
        cut_tiles(slide, _everywhere(slide, GridConfig()), tmp_path / "kept.zarr", "auto", {})
    store = TileStore.open(tmp_path / "kept.zarr")
    assert (store.valid == Validity.OK).all()
    tiles, damaged = store.read_checked(np.arange(12))
    assert np.flatnonzero(damaged).tolist() == [4]
    assert (tiles[4] == 255).all()
    assert tiles[3].min() < 200
