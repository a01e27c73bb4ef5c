"""Feature stores: values, types and rows come back as they went in; damage does not come back at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from wsi_lmc.errors import StoreError
from wsi_lmc.featurestore import ROWS_PER_CHUNK, FeatureStore, write_features
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.zarrio import damaged_arrays

DIM = 3


def make_rows(count: int) -> TileRows:
    number = np.arange(count)
    origins = np.stack([number * 7 + 1, number * 5 + 900], axis=1).astype(np.int32)
    return TileRows(origins, (number / max(1, count)).astype(np.float32), (number % 4).astype(np.uint8))


def write(path: Path, count: int, dtype: Any = np.float32) -> tuple[np.ndarray, FeatureStore]:
    features = np.random.default_rng(count).normal(size=(count, DIM)).astype(dtype)
    write_features(path, features, make_rows(count), {"slide": {"id": "a"}, "encoder": {"name": "e"}})
    return features, FeatureStore.open(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("count", [0, 1, 5, ROWS_PER_CHUNK, 2 * ROWS_PER_CHUNK + 1])
def test_what_is_written_is_read_back(dtype: Any, count: int, tmp_path: Path) -> None:
    features, store = write(tmp_path / "a.zarr", count, dtype)
    assert len(store) == count
    assert store.features.dtype == dtype
    assert store.features.shape == (count, DIM)
    np.testing.assert_array_equal(store.features, features)
    rows = make_rows(count)
    np.testing.assert_array_equal(store.origins, rows.origins)
    np.testing.assert_array_equal(store.tissue_fraction, rows.tissue_fraction)
    np.testing.assert_array_equal(store.valid, rows.valid)
    assert store.slide_id == "a"
    assert damaged_arrays(store.path, store.attributes) == []


def test_thousands_of_rows_a_chunk(tmp_path: Path) -> None:
    features, store = write(tmp_path / "a.zarr", 2 * ROWS_PER_CHUNK + 1)
    assert len(list((store.path / "features").glob("c.*"))) == 3
    stock: Any = zarr.open_group(store.path, mode="r")["features"]
    np.testing.assert_array_equal(stock[ROWS_PER_CHUNK - 2 : ROWS_PER_CHUNK + 2], features[ROWS_PER_CHUNK - 2 :][:4])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    _, first = write(tmp_path / "x" / "a.zarr", 9)
    _, second = write(tmp_path / "y" / "a.zarr", 9)
    for path in (path for path in first.path.rglob("*") if path.is_file()):
        assert path.read_bytes() == (second.path / path.relative_to(first.path)).read_bytes()


@pytest.mark.parametrize("name", ["features", "origins", "tissue_fraction", "valid"])
@pytest.mark.parametrize("how", ["deleted", "flipped"])
def test_a_damaged_array_is_found_and_never_read(name: str, how: str, tmp_path: Path) -> None:
    _, store = write(tmp_path / "a.zarr", 9)
    chunk = next(path for path in (store.path / name).glob("c.*"))
    if how == "deleted":
        chunk.unlink()
    else:
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
    store = FeatureStore.open(store.path)
    assert damaged_arrays(store.path, store.attributes) == [name]
    with pytest.raises(StoreError, match=f"{name} cannot be read"):
        getattr(store, name)


def test_a_published_store_is_never_written_over(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 2)
    with pytest.raises(FileExistsError):
        write(tmp_path / "a.zarr", 3)


def test_features_are_not_tiles(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", 2)
    with pytest.raises(StoreError, match="holds wsi-lmc/features; expected wsi-lmc/tiles"):
        TileStore.open(tmp_path / "a.zarr")
