"""Batches: which tiles, in which order, from which slide; reading ahead changes nothing."""

import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_lmc.batches import (
    TileBatches,
    TileSampler,
    check_compatible,
    gather,
    in_order,
    split_rows,
    usable_rows,
)
from wsi_lmc.errors import StoreError, TrainingError, UsageError
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore, Validity
from wsi_lmc.tilewriter import TileStoreWriter


class UnevenStore(TileStore):
    """A real store that is slower for some rows than for others, and fails on one."""

    broken_row = -1

    def read(self, rows: np.ndarray, threads: Threads | None = None) -> np.ndarray:
        if self.broken_row in rows:
            raise StoreError(f"row {self.broken_row}", "a readable tile", "Run verify.")
        time.sleep(0.002 * float(rows[0] % 3))
        return super().read(rows, threads)


def _write(folder: Path, slide_id: str, count: int, **other: Any) -> UnevenStore:
    """A store of 8-px tiles whose pixels hold ``number`` (red) and their row (green); some are padded."""
    px, mpp = other.get("px", 8), other.get("mpp", 0.5)
    path = folder / f"{len(list(folder.iterdir()))}.zarr"
    tiles = np.zeros((count, px, px, 3), np.uint8)
    tiles[..., 0] = other.get("number", 0)
    tiles[..., 1] = np.arange(count)[:, None, None]
    valid = np.zeros(count, np.uint8)
    valid[1::7] = Validity.PADDED
    valid[list(other.get("bad", ()))] = Validity.UNREADABLE
    writer = TileStoreWriter(path, count, px, "lossless")
    writer.write(0, tiles, Threads())
    attributes = {"slide": {"id": slide_id}, "tile": {"px": px, "effective_mpp": [mpp, mpp]}}
    writer.close(TileRows(np.zeros((count, 2), np.int32), np.ones(count, np.float32), valid), attributes)
    store = UnevenStore.open(path)
    assert isinstance(store, UnevenStore)
    return store


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[UnevenStore]:
    """Four slides of 50, 5, 0 and 17 tiles; the last one's first and last tile are unreadable."""
    folder = tmp_path_factory.mktemp("cohort")
    sizes = (("a", 50, ()), ("b", 5, ()), ("c", 0, ()), ("d", 17, (0, 16)))
    return [_write(folder, name, count, number=i, bad=bad) for i, (name, count, bad) in enumerate(sizes)]


@pytest.fixture
def stains(cohort: list[UnevenStore]) -> list[np.ndarray]:
    """Vectors that say which tile they belong to."""
    return [
        (number + np.arange(len(store), dtype=np.float32) / 1000)[:, None, None].repeat(2, 1).repeat(3, 2)
        for number, store in enumerate(cohort)
    ]


def _sampler(batch: int = 8, seed: int = 3, tiles_per_slide: int = 0) -> TileSampler:
    rows = [np.arange(50), np.arange(5), np.arange(0), np.arange(1, 16)]  # the usable rows of the cohort
    return TileSampler(rows, batch, seed, tiles_per_slide)


def _epoch(sampler: TileSampler, epoch: int) -> list[tuple[int, int]]:
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    return [(int(s), int(r)) for step in steps for s, r in zip(*sampler.rows_for_step(step), strict=True)]


def test_an_epoch_holds_every_usable_tile_at_most_once_and_drops_the_last_incomplete_batch() -> None:
    sampler = _sampler()
    assert (sampler.tiles_per_epoch, sampler.steps_per_epoch) == (70, 8)
    seen = _epoch(sampler, 0)
    assert len(seen) == len(set(seen)) == 64
    usable = {(0, r) for r in range(50)} | {(1, r) for r in range(5)} | {(3, r) for r in range(1, 16)}
    assert set(seen) < usable
    union = set().union(*(_epoch(sampler, epoch) for epoch in range(6)))
    assert union == usable  # the six left out differ from epoch to epoch; unreadable tiles never come


def test_order_depends_on_seed_and_step_alone() -> None:
    sampler, other = _sampler(), _sampler()
    forward = [sampler.rows_for_step(step) for step in range(20)]
    backward = [other.rows_for_step(step) for step in reversed(range(20))][::-1]
    for (s, r), (s2, r2) in zip(forward, backward, strict=True):
        assert np.array_equal(s, s2)
        assert np.array_equal(r, r2)
    assert _epoch(sampler, 0) != _epoch(sampler, 1)
    assert _epoch(sampler, 0) != _epoch(_sampler(seed=4), 0)


def test_batches_span_slides() -> None:
    stores, _ = _sampler(batch=32).rows_for_step(0)
    assert len(set(stores.tolist())) == 3


def test_tiles_per_slide_bounds_the_largest_slide_and_draws_anew() -> None:
    sampler = _sampler(batch=5, tiles_per_slide=10)
    assert sampler.tiles_per_epoch == 10 + 5 + 0 + 10
    for epoch in range(3):
        assert Counter(store for store, _ in _epoch(sampler, epoch)) == {0: 10, 1: 5, 3: 10}
    assert len(set().union(*({r for s, r in _epoch(sampler, e) if s == 0} for e in range(60)))) == 50


def test_every_tile_is_equally_likely_to_be_drawn() -> None:
    sampler = _sampler(batch=5, tiles_per_slide=10)
    counts = Counter(pair for epoch in range(400) for pair in _epoch(sampler, epoch) if pair[0] == 0)
    expected = 400 * 10 / 50
    chi_squared = sum((counts[0, row] - expected) ** 2 / expected for row in range(50))
    assert chi_squared < 85  # 49 degrees of freedom: 0.1 % quantile


def test_a_cohort_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(TrainingError, match="70 tiles to train on; expected at least one batch of 71"):
        _sampler(batch=71)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5, 50])
def test_batches_are_the_same_whatever_the_prefetch(
    prefetch: int, cohort: list[UnevenStore], stains: list[np.ndarray]
) -> None:
    batches = list(TileBatches(cohort, stains, _sampler(), prefetch).iterate(5, 21))
    assert len(batches) == 16
    for step, batch in zip(range(5, 21), batches, strict=True):
        indices, rows = _sampler().rows_for_step(step)
        assert batch.tiles.shape == (8, 8, 8, 3)
        assert np.array_equal(batch.tiles[:, 3, 5, 0].numpy(), indices)  # number == position in the cohort
        assert np.array_equal(batch.tiles[:, 3, 5, 1].numpy(), rows)
        np.testing.assert_allclose(batch.stains[:, 1, 2].numpy(), indices + rows / 1000, rtol=1e-6)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_readers_error_surfaces_at_its_step_and_threads_end(
    prefetch: int, cohort: list[UnevenStore], stains: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = _sampler()
    first, step = 8, 11  # of one epoch, so that no earlier batch holds the broken tile
    indices, rows = sampler.rows_for_step(step)
    monkeypatch.setattr(cohort[0], "broken_row", int(rows[indices == 0][0]))
    batches = TileBatches(cohort, stains, sampler, prefetch).iterate(first, step + 5)
    for _ in range(first, step):
        next(batches)
    with pytest.raises(StoreError, match="expected a readable tile"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tiles")]


def test_leaving_early_ends_the_threads(cohort: list[UnevenStore], stains: list[np.ndarray]) -> None:
    with closing(TileBatches(cohort, stains, _sampler(), 4).iterate(0, 1000)) as batches:
        next(batches)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("tiles")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tiles")]


def test_incompatible_cohorts_are_refused(cohort: list[UnevenStore], tmp_path: Path) -> None:
    check_compatible(cohort)
    a, b, finer, coarser, larger = (
        _write(tmp_path, "a", 1),
        _write(tmp_path, "b", 1),
        _write(tmp_path, "fine", 1, mpp=0.4948),
        _write(tmp_path, "coarse", 1, mpp=0.5049),
        _write(tmp_path, "large", 1, px=16),
    )
    check_compatible([a, coarser])
    with pytest.raises(UsageError, match=r"0\.4948 um/px in fine, 0\.5049 in coarse"):
        check_compatible([coarser, a, finer])
    with pytest.raises(UsageError, match="16 px tiles in large, 8 px in a"):
        check_compatible([a, larger])
    with pytest.raises(UsageError, match="slide a twice"):
        check_compatible([a, b, a])
    with pytest.raises(UsageError, match="no tile store"):
        check_compatible([])


def test_whole_slides_are_held_out_where_there_are_enough(tmp_path: Path) -> None:
    stores = [_write(tmp_path, f"s{i}", 30 + i) for i in range(10)]
    split = split_rows(stores, share=0.2, most=40, seed=1)
    assert split.unit == "slides"
    empty = [index for index, rows in enumerate(split.train) if len(rows) == 0]
    assert len(empty) == 2
    assert sum(map(len, split.held_out)) == 40
    assert all(len(rows) == 0 for index, rows in enumerate(split.held_out) if index not in empty)
    assert all(np.array_equal(split.train[i], np.arange(30 + i)) for i in range(10) if i not in empty)
    again = split_rows(stores, share=0.2, most=40, seed=1)
    assert all(np.array_equal(x, y) for x, y in zip(split.held_out, again.held_out, strict=True))


def test_single_tiles_are_held_out_of_few_slides_and_never_trained_on(cohort: list[UnevenStore]) -> None:
    split = split_rows(cohort, share=0.1, most=2048, seed=1)
    assert split.unit == "tiles"
    assert sum(map(len, split.held_out)) == 7
    for store, train, held in zip(cohort, split.train, split.held_out, strict=True):
        assert not set(train) & set(held)
        assert set(train) | set(held) == set(usable_rows(store))


def test_where_nothing_can_be_spared_the_split_says_so(cohort: list[UnevenStore]) -> None:
    split = split_rows(cohort, share=0.0, most=9, seed=1)
    assert split.unit == "nothing"
    assert sum(map(len, split.train)) == 70
    assert sum(map(len, split.held_out)) == 9


def test_gather_of_rows_in_order(cohort: list[UnevenStore], stains: list[np.ndarray]) -> None:
    rows = [np.array([4, 2]), np.array([], np.int64), np.array([], np.int64), np.array([9])]
    indices, flat = in_order(rows)
    batch = gather(cohort, stains, indices, flat)
    assert batch.tiles[:, 0, 0, :2].tolist() == [[0, 4], [0, 2], [3, 9]]
    torch.testing.assert_close(batch.stains[:, 0, 0], torch.tensor([0.004, 0.002, 3.009]))


def test_only_unreadable_tiles_are_left_out(cohort: list[UnevenStore]) -> None:
    usable = [usable_rows(store).tolist() for store in cohort]
    assert usable == [list(range(50)), list(range(5)), [], list(range(1, 16))]
