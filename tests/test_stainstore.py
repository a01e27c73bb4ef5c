"""Stains are estimated once, follow their tiles, and are never the identity."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.stain import RUIFROK, SeparationConfig, separate
from wsi_lmc.stainstore import Stains, estimate, fill_untrusted, load_or_estimate
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.synthetic import load_truth
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tilewriter import TileStoreWriter

CPU = torch.device("cpu")


@pytest.fixture
def store(small_cohort: Path, tmp_path: Path) -> TileStore:
    entry = SlideEntry(small_cohort / "slides" / "north-01.tif", "north-01")
    tile_slide(TileTask(entry, tmp_path, TileConfig()))
    return TileStore.open(tmp_path / "tiles" / "north-01.zarr")


def test_stains_of_a_slide_are_the_true_ones(store: TileStore, small_cohort: Path) -> None:
    truth = load_truth(small_cohort / "truth", "north-01").stain_matrix
    found = estimate(store, SeparationConfig(), CPU)
    assert found.vectors.shape == (len(store), 2, 3)
    assert found.slide_trusted
    assert found.trusted.mean() > 0.9
    angles = np.degrees(np.arccos(np.clip((found.vectors * truth).sum(-1), -1, 1)))
    assert np.median(angles) < 8


def test_a_second_time_they_are_read(store: TileStore) -> None:
    first = load_or_estimate(store, SeparationConfig(), CPU)
    path = store.path.parent.parent / "stains" / "north-01.zarr"
    before = (path / "zarr.json").stat().st_mtime_ns
    again = load_or_estimate(store, SeparationConfig(), CPU)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert (path / "zarr.json").stat().st_mtime_ns == before
    other = load_or_estimate(store, SeparationConfig(alpha=5.0), CPU)
    assert not np.array_equal(first.vectors, other.vectors)
    assert (path / "zarr.json").stat().st_mtime_ns != before


def test_a_tile_that_is_not_trusted_gets_its_slides(tmp_path: Path, store: TileStore) -> None:
    good = store.read(np.arange(4))
    tiles = np.concatenate([good, np.full((1, *good.shape[1:]), 243, np.uint8)])
    path = tmp_path / "other" / "tiles" / "mixed.zarr"
    path.parent.mkdir(parents=True)
    writer = TileStoreWriter(path, 5, 256, "lossless")
    writer.write(0, tiles, Threads())
    rows = TileRows(np.zeros((5, 2), np.int32), np.ones(5, np.float32), np.zeros(5, np.uint8))
    about = {"slide": {"id": "mixed"}, "tile": {"px": 256}, "slide_fingerprint": "a", "config_fingerprint": "b"}
    writer.close(rows, about)
    found = estimate(TileStore.open(path), SeparationConfig(), CPU)
    assert found.trusted.tolist() == [True] * 4 + [False]
    np.testing.assert_array_equal(found.vectors[4], found.slide_vectors)
    own = separate(torch.from_numpy(good), SeparationConfig()).vectors.numpy()
    np.testing.assert_allclose(found.vectors[:4], own, atol=1e-6)


def test_slides_that_are_not_trusted_get_the_data_sets() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.random((3, 2, 3), dtype=np.float32)
    reliable = Stains(vectors, np.array([True, True, True]), np.asarray(RUIFROK, np.float32)[:, ::-1].copy(), True)
    doubtful = Stains(vectors, np.array([True, False, True]), vectors[0], slide_trusted=False)
    filled = fill_untrusted([reliable, doubtful])
    np.testing.assert_array_equal(filled[0], vectors)
    np.testing.assert_allclose(filled[1][1], reliable.slide_vectors, atol=1e-5)
    np.testing.assert_array_equal(filled[1][[0, 2]], vectors[[0, 2]])
    np.testing.assert_allclose(fill_untrusted([doubtful])[0][1], RUIFROK, atol=1e-6)
