"""Tile stores: pixels come back in the order asked for, over shards, codecs and damage."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_lmc.errors import StoreError
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TILES_PER_SHARD, StoredCodec, TileRows, TileStore, Validity
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.units import Mpp
from wsi_lmc.zarrio import damaged_arrays

PX = 16
COUNT = 2 * TILES_PER_SHARD + 37
CODECS: list[StoredCodec] = ["lossless", "jpeg"]


def make_tiles(count: int) -> np.ndarray:
    """Smooth tiles, so that JPEG keeps them: red grows to the right, green downwards, blue with the row."""
    tiles = np.zeros((count, PX, PX, 3), np.uint8)
    tiles[..., 0] = np.arange(PX) * 12
    tiles[..., 1] = np.arange(PX)[:, None] * 7
    tiles[..., 2] = (np.arange(count) % 251)[:, None, None]
    return tiles


def make_rows(count: int) -> TileRows:
    number = np.arange(count)
    origins = np.stack([number % 23 * 512 + 5, number // 23 * 384 + 11], axis=1).astype(np.int32)
    valid = np.where(number % 9 == 4, int(Validity.PADDED), int(Validity.OK)).astype(np.uint8)
    return TileRows(origins, (number / max(1, count)).astype(np.float32), valid)


def write(path: Path, tiles: np.ndarray, codec: StoredCodec, **attributes: Any) -> TileStore:
    writer = TileStoreWriter(path, len(tiles), PX, codec)
    for start in range(0, len(tiles), 100):  # blocks that do not fit the shards
        writer.write(start, tiles[start : start + 100], Threads(2))
    described = {
        "slide": {"id": "a", "width": 90_001, "height": 70_003},
        "tile": {"px": PX, "effective_mpp": [0.5, 0.49]},
        "slide_fingerprint": "1",
        "config_fingerprint": "2",
    }
    writer.close(make_rows(len(tiles)), described | attributes)
    return TileStore.open(path)


@pytest.fixture(scope="module", params=CODECS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    """Three shards, the last one partly filled."""
    return write(tmp_path_factory.mktemp("tiles") / "a.zarr", make_tiles(COUNT), request.param)


def tolerance(store: TileStore) -> int:
    """JPEG at quality 95 changes smooth tiles by a few grey levels; lossless by none."""
    return 6 if "jpeg" in store.attributes["codec"] else 0


def assert_tiles(store: TileStore, tiles: np.ndarray, rows: Any) -> None:
    expected = make_tiles(COUNT)[rows].astype(int)
    assert tiles.shape == expected.shape
    assert tiles.dtype == np.uint8
    assert np.abs(tiles - expected).max() <= tolerance(store)


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(COUNT),
        np.arange(200, 300),
        np.array([COUNT - 1]),
        np.array([540, 3, 255, 256, 257, 0]),
        np.array([7, 7, 300, 7, 300]),
        np.array([12, 11, 10, 9]),
    ],
    ids=["all", "over a border", "last", "scattered", "repeated", "backwards"],
)
def test_tiles_come_in_the_order_asked_for(store: TileStore, rows: np.ndarray) -> None:
    assert_tiles(store, store.read(rows), rows)


def test_random_rows(store: TileStore) -> None:
    rows = np.random.default_rng(3).integers(0, COUNT, 64)
    assert_tiles(store, store.read(rows), rows)


def test_no_rows_are_no_tiles(store: TileStore) -> None:
    assert store.read(np.zeros(0, np.int64)).shape == (0, PX, PX, 3)


def test_what_is_known_of_each_tile(store: TileStore) -> None:
    rows = make_rows(COUNT)
    assert len(store) == COUNT
    np.testing.assert_array_equal(store.origins, rows.origins)
    np.testing.assert_array_equal(store.tissue_fraction, rows.tissue_fraction)
    np.testing.assert_array_equal(store.valid, rows.valid)
    assert (store.slide_id, store.tile_px, store.mpp) == ("a", PX, Mpp(0.5, 0.49))


def test_one_tile_a_chunk_and_256_a_shard(store: TileStore) -> None:
    shards = list((store.path / "tiles").glob("c.*"))
    assert len(shards) == 3
    assert damaged_arrays(store.path, store.attributes) == []


def test_lossless_is_lossless_on_noise_and_jpeg_is_near(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, PX, PX, 3), dtype=np.uint8)
    smooth = make_tiles(5)
    np.testing.assert_array_equal(write(tmp_path / "l", noise, "lossless").read(np.arange(5)), noise)
    near = write(tmp_path / "j", smooth, "jpeg").read(np.arange(5))
    assert 0 < np.abs(near.astype(int) - smooth).max() <= 6


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    """Columns in turn of hematoxylin's and eosin's colour: with halved chroma they would run into each other."""
    tiles = np.empty((1, PX, PX, 3), np.uint8)
    tiles[:, :, 0::2], tiles[:, :, 1::2] = (90, 60, 140), (220, 130, 180)
    read = write(tmp_path / "j", tiles, "jpeg").read(np.array([0]))
    assert np.abs(read.astype(int) - tiles).max() <= 16


@pytest.mark.parametrize("codec", CODECS)
def test_a_store_without_tiles(codec: StoredCodec, tmp_path: Path) -> None:
    store = write(tmp_path / "none.zarr", make_tiles(0), codec)
    assert len(store) == 0
    assert store.read(np.zeros(0, np.int64)).shape == (0, PX, PX, 3)
    assert store.origins.shape == (0, 2)
    assert store.valid.shape == store.tissue_fraction.shape == (0,)
    assert damaged_arrays(store.path, store.attributes) == []


@pytest.mark.parametrize("codec", CODECS)
def test_a_black_tile_is_data_and_not_a_hole(codec: StoredCodec, tmp_path: Path) -> None:
    store = write(tmp_path / "black.zarr", np.zeros((3, PX, PX, 3), np.uint8), codec)
    assert store.read(np.arange(3)).max() == 0
    next(path for path in (store.path / "tiles").glob("c.*")).unlink()
    with pytest.raises(StoreError):
        TileStore.open(store.path).read(np.arange(3))


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_input_gives_the_same_bytes(codec: StoredCodec, tmp_path: Path) -> None:
    first, second = (write(tmp_path / name / "a.zarr", make_tiles(300), codec) for name in "xy")
    files = sorted(path.relative_to(first.path) for path in first.path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second.path) for path in second.path.rglob("*") if path.is_file())
    for file in files:
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes(), file
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_covers_slide_settings_and_every_byte(tmp_path: Path) -> None:
    tiles = make_tiles(4)
    other = tiles.copy()
    other[3, 15, 15, 2] += 1
    stores = [
        write(tmp_path / "0", tiles, "lossless"),
        write(tmp_path / "1", other, "lossless"),
        write(tmp_path / "2", tiles, "jpeg"),
        write(tmp_path / "3", tiles, "lossless", slide_fingerprint="other"),
        write(tmp_path / "4", tiles, "lossless", config_fingerprint="other"),
    ]
    assert len({store.fingerprint for store in stores}) == len(stores)


def damage(store: TileStore, how: str) -> None:
    """Damage the middle one of three shards."""
    shard = sorted(path for path in (store.path / "tiles").glob("c.*"))[1]
    data = bytearray(shard.read_bytes())
    if how == "deleted":
        shard.unlink()
    elif how == "truncated":
        shard.write_bytes(data[: len(data) // 2])
    elif how == "emptied":
        shard.write_bytes(b"")
    elif how == "flipped":
        data[40] ^= 1  # within the first tile of the shard
        shard.write_bytes(data)
    else:
        data[-10] ^= 1  # within the index at its end
        shard.write_bytes(data)


@pytest.mark.parametrize("how", ["deleted", "truncated", "emptied", "flipped", "index flipped"])
@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_found_and_the_other_shards_stay_readable(codec: StoredCodec, how: str, tmp_path: Path) -> None:
    store = write(tmp_path / "a.zarr", make_tiles(COUNT), codec)
    damage(store, how)
    store = TileStore.open(store.path)
    assert damaged_arrays(store.path, store.attributes) == ["tiles"]
    for rows in (np.array([TILES_PER_SHARD]), np.array([0, TILES_PER_SHARD, COUNT - 1]), np.arange(COUNT)):
        with pytest.raises(StoreError, match=r"a\.zarr: tiles \d+ to \d+ cannot be read"):
            store.read(rows)
    for rows in (np.arange(TILES_PER_SHARD), np.array([COUNT - 1, 0])):
        assert_tiles(store, store.read(rows), rows)


def test_stock_zarr_reads_it_without_this_package(store: TileStore) -> None:
    """zarr alone for lossless; with imagecodecs, the author of the codec, for JPEG."""
    code = """
import sys, numpy, zarr
if sys.argv[2] == "jpeg":
    import imagecodecs.zarr
    imagecodecs.zarr.register_codecs({"jpeg"}, verbose=False)
tiles = zarr.open_group(sys.argv[1], mode="r")["tiles"]
numpy.save(sys.argv[3], tiles[250:260])
assert "wsi_lmc" not in sys.modules
"""
    codec = "jpeg" if "jpeg" in store.attributes["codec"] else "lossless"
    copy = store.path.parent / f"{codec}.npy"
    subprocess.run([sys.executable, "-c", code, str(store.path), codec, str(copy)], check=True)
    np.testing.assert_array_equal(np.load(copy), store.read(np.arange(250, 260)))


def test_a_folder_of_something_else_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no zarr v3 group"):
        TileStore.open(tmp_path)
