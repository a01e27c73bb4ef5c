"""Stains are estimated once, follow their tiles, and are never the identity."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tissue import HOPELESS, hostile
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.stain import RUIFROK, SeparationConfig, ViewConfig, separate, two_views
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


@pytest.mark.parametrize("changes", [{"beta": 0.2}, {"alpha": 5.0}, {"centred": True}, {"stride": 3}])
def test_no_setting_reads_what_another_wrote(store: TileStore, changes: dict[str, float]) -> None:
    first = load_or_estimate(store, SeparationConfig(), CPU)
    config = replace(SeparationConfig(), **changes)
    assert not np.array_equal(load_or_estimate(store, config, CPU).vectors, first.vectors)
    np.testing.assert_array_equal(load_or_estimate(store, config, CPU).vectors, estimate(store, config, CPU).vectors)


def _write(path: Path, tiles: np.ndarray) -> TileStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TileStoreWriter(path, len(tiles), 256, "lossless")
    writer.write(0, tiles, Threads())
    rows = TileRows(
        np.zeros((len(tiles), 2), np.int32), np.ones(len(tiles), np.float32), np.zeros(len(tiles), np.uint8)
    )
    about = {"slide": {"id": path.stem}, "tile": {"px": 256}, "slide_fingerprint": path.stem, "config_fingerprint": "b"}
    writer.close(rows, about)
    return TileStore.open(path)


def _hopeless(like: np.ndarray) -> np.ndarray:
    return np.stack([hostile(kind, seed, like) for seed in (0, 1) for kind in sorted(HOPELESS)])


def test_a_tile_that_is_not_trusted_gets_its_slides(tmp_path: Path, store: TileStore) -> None:
    good = store.read(np.arange(4))
    tiles = np.concatenate([good, np.full((1, *good.shape[1:]), 243, np.uint8)])
    path = tmp_path / "other" / "tiles" / "mixed.zarr"
    _write(path, tiles)
    found = estimate(TileStore.open(path), SeparationConfig(), CPU)
    assert found.trusted.tolist() == [True] * 4 + [False]
    np.testing.assert_array_equal(found.vectors[4], found.slide_vectors)
    own = separate(torch.from_numpy(good), SeparationConfig()).vectors.numpy()
    np.testing.assert_allclose(found.vectors[:4], own, atol=1e-6)


def test_from_disk_no_tile_keeps_vectors_that_are_not_trusted(tmp_path: Path, store: TileStore) -> None:
    """Of a slide in part hopeless and of one wholly so; estimated, then read again; every pair of views differs."""
    good, folder = store.read(np.arange(6)), tmp_path / "run" / "tiles"
    mixed = np.concatenate([good, _hopeless(good[0])[:6]])
    stores = [_write(folder / "mixed.zarr", mixed), _write(folder / "lost.zarr", _hopeless(good[0]))]
    config = SeparationConfig()
    for stains in ([load_or_estimate(part, config, CPU) for part in stores] for _ in range(2)):
        assert [part.slide_trusted for part in stains] == [True, False]
        assert stains[0].trusted.tolist() == [True] * 6 + [False] * 6
        assert not stains[1].trusted.any()
        filled = fill_untrusted(stains)
        np.testing.assert_array_equal(filled[0][6:], np.broadcast_to(stains[0].slide_vectors, (6, 2, 3)))
        expected = np.broadcast_to(stains[0].slide_vectors, filled[1].shape)
        np.testing.assert_allclose(filled[1], expected, atol=1e-6)
        assert _mean_difference(filled[1][:1]) > 0.02, "no pair of equal views"
    clean = estimate(_write(folder / "clean.zarr", good), config, CPU)
    np.testing.assert_array_equal(clean.slide_vectors, load_or_estimate(stores[0], config, CPU).slide_vectors)


def _mean_difference(vectors: np.ndarray) -> float:
    """Between two views of a tile of one colour."""
    tiles = torch.from_numpy(np.full((1, 32, 32, 3), (180, 90, 150), np.uint8))
    views = two_views(tiles, torch.from_numpy(vectors), ViewConfig(), torch.Generator().manual_seed(0))
    return float((views.a - views.b).abs().mean())


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
