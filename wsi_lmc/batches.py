"""Which tiles make up which training batch, and reading them ahead of time.

The batch of a step follows from (seed, step) alone: a resumed training, or one with another number of reading threads,
sees the same tiles in the same order. Batches span slides. Notable: an epoch is a fresh permutation of all tiles; its
last incomplete batch is dropped; ``tiles_per_slide`` keeps one huge slide from outweighing the others.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from wsi_lmc.errors import TrainingError, UsageError
from wsi_lmc.tilestore import TileStore, Validity

_MPP_TOLERANCE = 0.02
_SPLIT_STREAM = 0x5EED  # keeps the draw of held-out tiles apart from the order of the epochs


@dataclass(frozen=True)
class TileBatch:
    """Tiles with the H and E vectors (unit optical density, one row each) that their views are made with."""

    tiles: UInt8[Tensor, "b h w 3"]
    stains: Float32[Tensor, "b 2 3"]


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows held out, one array per store.

    ``unit`` says what was held out: whole "slides"; single "tiles" of slides that are also trained on (too few slides
    to spare one); or "nothing", in which case ``held_out`` repeats training tiles and measures no generalisation.
    """

    train: list[Int64[np.ndarray, "_"]]
    held_out: list[Int64[np.ndarray, "_"]]
    unit: Literal["slides", "tiles", "nothing"]


def check_compatible(stores: Sequence[TileStore]) -> None:
    """Refuse a cohort whose tiles cannot stand in one batch.

    Raises:
        UsageError: no store; a slide twice; tile sides differ; pixel sizes differ by more than 2 %.
    """
    if not stores:
        raise UsageError("no tile store", "at least one", "Give the folders that tile wrote.")
    ids = sorted(store.slide_id for store in stores)
    for first, second in pairwise(ids):
        if first == second:
            raise UsageError(f"slide {first} twice", "every slide once", "Remove one of the two stores.")
    reference = stores[0]
    for store in stores[1:]:
        if store.tile_px != reference.tile_px:
            raise UsageError(
                f"{store.tile_px} px tiles in {store.slide_id}, {reference.tile_px} px in {reference.slide_id}",
                "one tile size in a training",
                "Tile the cohort with one configuration.",
            )
    finest, coarsest = min(stores, key=lambda s: s.mpp.mean), max(stores, key=lambda s: s.mpp.mean)
    if coarsest.mpp.mean > finest.mpp.mean * (1 + _MPP_TOLERANCE):
        raise UsageError(
            f"{finest.mpp.mean:.4f} um/px in {finest.slide_id}, {coarsest.mpp.mean:.4f} in {coarsest.slide_id}",
            f"pixel sizes within {_MPP_TOLERANCE:.0%} of each other",
            "Tile the cohort at one mpp.",
        )


def usable_rows(store: TileStore) -> Int64[np.ndarray, "_"]:
    """Rows of all tiles that were readable."""
    return np.flatnonzero(store.valid != Validity.UNREADABLE).astype(np.int64)


def split_rows(stores: Sequence[TileStore], share: float, most: int, seed: int) -> Split:
    """Set aside about ``share`` of the cohort, and ``most`` tiles at the most, for evaluation.

    Whole slides where the share amounts to at least one of them, otherwise single tiles.
    """
    rows = [usable_rows(store) for store in stores]
    generator = np.random.default_rng([seed, _SPLIT_STREAM])
    slides = round(share * len(stores))
    if slides and slides < len(stores):
        chosen = set(generator.permutation(len(stores))[:slides].tolist())
        none = np.empty(0, np.int64)
        train = [none if index in chosen else row for index, row in enumerate(rows)]
        held = [row if index in chosen else none for index, row in enumerate(rows)]
        if sum(map(len, held)) > 1:
            return Split(train, _draw(held, most, generator), "slides")
    total = sum(map(len, rows))
    if int(share * total) > 1:
        held = _draw(rows, min(most, int(share * total)), generator)
        train = [np.setdiff1d(row, apart, assume_unique=True) for row, apart in zip(rows, held, strict=True)]
        return Split(train, held, "tiles")
    return Split(rows, _draw(rows, most, generator), "nothing")


def _draw(rows: list[np.ndarray], most: int, generator: np.random.Generator) -> list[np.ndarray]:
    """A random subset of ``most`` rows over all stores, sorted within each store."""
    bounds = np.cumsum([len(row) for row in rows])
    picked = np.sort(generator.permutation(bounds[-1])[:most])
    return np.split(np.concatenate(rows)[picked], np.searchsorted(picked, bounds[:-1]))


class TileSampler:
    """The tiles of every step.

    Args:
        rows: rows that may be drawn, one array per store.
        batch: tiles per step.
        seed: decides every epoch's order.
        tiles_per_slide: most tiles of one store in an epoch, drawn anew each epoch; 0 takes all.

    Raises:
        TrainingError: an epoch would not fill one batch.
    """

    def __init__(self, rows: Sequence[Int64[np.ndarray, "_"]], batch: int, seed: int, tiles_per_slide: int = 0) -> None:
        self._rows = list(rows)
        self._offsets = np.cumsum([0, *(len(row) for row in rows)])
        self._batch, self._seed, self._cap = batch, seed, tiles_per_slide
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self.tiles_per_epoch = sum(min(len(row), tiles_per_slide or len(row)) for row in rows)
        self.steps_per_epoch = self.tiles_per_epoch // batch
        if not self.steps_per_epoch:
            found, remedy = f"{self.tiles_per_epoch} tiles to train on", "Add slides, or lower batch."
            raise TrainingError(found, f"at least one batch of {batch}", remedy)

    def rows_for_step(self, step: int) -> tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
        """Store index and row of every tile in the batch of ``step`` (from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._epoch_order(epoch)
        flat = self._order[position * self._batch : (position + 1) * self._batch]
        stores = np.searchsorted(self._offsets, flat, side="right") - 1
        rows = [self._rows[store][index] for store, index in zip(stores, flat - self._offsets[stores], strict=True)]
        return stores.astype(np.int64), np.asarray(rows, np.int64)

    def _epoch_order(self, epoch: int) -> Int64[np.ndarray, " tiles"]:
        """Positions in the concatenated rows of all stores, in the order of one epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        parts = []
        for start, stop in pairwise(self._offsets):
            within = np.arange(start, stop, dtype=np.int64)
            if self._cap and len(within) > self._cap:
                within = generator.choice(within, self._cap, replace=False)
            parts.append(within)
        return generator.permutation(np.concatenate(parts))


class TileBatches:
    """Reads the sampler's batches from the stores, a few steps ahead of the training.

    Args:
        stores: tile stores in the sampler's order.
        stains: float32 (N, 2, 3) per store, a vector pair for each of its tiles.
        sampler: which tiles make a step.
        prefetch: batches read ahead in background threads; 0 reads in the caller's. It never changes a batch.
        share: which of each batch's tiles are read; all of them unless several processes train together.
    """

    def __init__(
        self,
        stores: Sequence[TileStore],
        stains: Sequence[Float32[np.ndarray, "_ 2 3"]],
        sampler: TileSampler,
        prefetch: int = 2,
        share: slice = slice(None),
    ) -> None:
        self._stores, self._stains, self._sampler, self._prefetch = stores, stains, sampler, prefetch
        self._share = share

    def iterate(self, start: int, stop: int) -> Generator[TileBatch]:
        """Batches of steps ``start`` to ``stop`` - 1. Errors of the reader surface here, at the step they belong to.

        Close the iterator (``contextlib.closing``) when leaving early: it waits for its threads.
        """
        if not self._prefetch:
            for step in range(start, stop):
                yield gather(self._stores, self._stains, *self._rows(step))
            return
        pool = ThreadPoolExecutor(self._prefetch, thread_name_prefix="tiles")
        try:
            ahead: deque[Future[TileBatch]] = deque()
            for step in range(start, stop + self._prefetch):
                if step < stop:  # the sampler runs in this thread alone: it holds the order of one epoch at a time
                    ahead.append(pool.submit(gather, self._stores, self._stains, *self._rows(step)))
                if step >= start + self._prefetch and ahead:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _rows(self, step: int) -> tuple[Int64[np.ndarray, " share"], Int64[np.ndarray, " share"]]:
        stores, rows = self._sampler.rows_for_step(step)
        return stores[self._share], rows[self._share]


def gather(
    stores: Sequence[TileStore],
    stains: Sequence[Float32[np.ndarray, "_ 2 3"]],
    indices: Int64[np.ndarray, " batch"],
    rows: Int64[np.ndarray, " batch"],
) -> TileBatch:
    """Read one batch: tile ``rows[i]`` of ``stores[indices[i]]``, one read per store."""
    px = stores[0].tile_px
    tiles = np.empty((len(rows), px, px, 3), np.uint8)
    vectors = np.empty((len(rows), 2, 3), np.float32)
    for index in np.unique(indices):
        here = indices == index
        tiles[here] = stores[index].read(rows[here])
        vectors[here] = stains[index][rows[here]]
    return TileBatch(torch.from_numpy(tiles), torch.from_numpy(vectors))


def in_order(rows: Sequence[Int64[np.ndarray, "_"]]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Store index and row of all ``rows``, store by store."""
    indices = np.repeat(np.arange(len(rows), dtype=np.int64), [len(row) for row in rows])
    return indices, np.concatenate(rows)
