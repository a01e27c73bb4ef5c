"""Tiles that cannot be read, and slides of one huge level: marked and streamed, never guessed or held in memory."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import GridConfig
from wsi_lmc.slide import ReaderName
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tilestore import TileStore, Validity


def _slide(path: Path, side: int = 2560, levels: tuple[int, ...] = (1, 4)) -> Path:
    """Smooth random tissue in JPEG tiles of 256 px, half a micron a pixel."""
    noise = np.random.default_rng(0).integers(60, 200, (40, 40, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    with tifffile.TiffWriter(path) as file:
        for step in levels:
            file.write(
                np.ascontiguousarray(pixels[::step, ::step]), tile=(256, 256), photometric="rgb", compression="jpeg",
                resolution=(20_000 / step, 20_000 / step), resolutionunit="CENTIMETER", subfiletype=int(step > 1),
                metadata=None,
            )  # fmt: skip
    return path


def _damage(path: Path, tiles: range) -> None:
    """Overwrite JPEG data of the finest level."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    with path.open("r+b") as raw:
        for offset, count in places[tiles.start : tiles.stop]:
            raw.seek(offset)
            raw.write(b"\x00" * count)


def _cut(path: Path, out: Path, reader: ReaderName) -> TileStore:
    config = TileConfig(GridConfig(tile_px=128, min_tissue=0.0), reader=reader, codec="lossless")
    tile_slide(TileTask(SlideEntry(path, "slide"), out, config))
    return TileStore.open(out / "tiles" / "slide.zarr")


@pytest.mark.row(6)
@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_tiles_that_cannot_be_read_are_marked_and_the_next_ones_are_whole(reader: ReaderName, tmp_path: Path) -> None:
    """OpenSlide refuses every read after a bad one: without a new handle all tiles after it would be lost."""
    path = _slide(tmp_path / "slide.tif")
    whole = _cut(path, tmp_path / "whole", reader)
    _damage(path, range(31, 34))
    store = _cut(path, tmp_path / "damaged", reader)
    bad = np.flatnonzero(store.valid == Validity.UNREADABLE)
    np.testing.assert_array_equal(store.origins, whole.origins)
    assert {(int(x) // 256, int(y) // 256) for x, y in store.origins[bad]} == {(1, 3), (2, 3), (3, 3)}
    assert len(bad) == 12
    assert (store.read(bad) == 255).all(), "background, not black and not what was read before"
    others = np.flatnonzero(store.valid == Validity.OK)
    assert len(others) == len(store) - 12
    np.testing.assert_array_equal(store.read(others), whole.read(others))


@pytest.mark.row(6)
@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_a_slide_with_too_many_of_them_fails(reader: ReaderName, tmp_path: Path) -> None:
    path = _slide(tmp_path / "slide.tif")
    _damage(path, range(30, 40))
    with pytest.raises(SlideError) as caught:
        _cut(path, tmp_path / "damaged", reader)
    assert caught.value.code == "unreadable_tiles"
    assert not (tmp_path / "damaged" / "tiles" / "slide.zarr").exists()


_MEMORY = """
import json, resource, sys
from pathlib import Path
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.grid import GridConfig
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
for path in sys.argv[2:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = TileConfig(GridConfig(min_tissue=0.0), codec="lossless")
    task = TileTask(SlideEntry(Path(path), Path(path).stem), Path(sys.argv[1]), config)
    outcome = tile_slide(task)
    print(json.dumps([outcome.tiles, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), flush=True)
"""


def _one_level(path: Path, side: int) -> Path:
    """A square of one level only, of the same tile again and again: as much tissue as there is room."""
    noise = np.random.default_rng(0).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    tile = cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)
    jpeg = cv2.imencode(".jpg", tile)[1].tobytes()
    count = (side // 512) ** 2
    tifffile.imwrite(
        path, (jpeg for _ in range(count)), shape=(side, side, 3), dtype=np.uint8, tile=(512, 512), compression=7,
        photometric="ycbcr", subsampling=(2, 2), resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
        metadata=None,
    )  # fmt: skip
    return path


@pytest.mark.row(11)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in kB there")
def test_the_memory_for_a_slide_of_one_level_does_not_depend_on_its_size(tmp_path: Path) -> None:
    """Six times the pixels: 419 million, 1.3 GB as RGB, which are never there at once."""
    small, large = _one_level(tmp_path / "small.tif", 8192), _one_level(tmp_path / "large.tif", 20_480)
    peaks: list[tuple[int, int]] = []
    for path in (small, large):
        command = [sys.executable, "-c", _MEMORY, str(tmp_path / path.stem), str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        tiles, before, after = json.loads(done.stdout)
        peaks.append((tiles, after - before))
    assert peaks[1][0] >= 6 * peaks[0][0] > 0
    assert peaks[1][1] - peaks[0][1] < 150_000, f"kB above the small slide's peak: {peaks}"
