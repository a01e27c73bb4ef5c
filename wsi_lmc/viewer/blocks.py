"""Features of many slides, a block at a time: memory stays bounded, and what is asked for again is at hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from wsi_lmc.errors import StoreError
from wsi_lmc.featurestore import ROWS_PER_CHUNK, FeatureStore
from wsi_lmc.viewer.caching import Cache
from wsi_lmc.zarrio import open_array

MOST_BYTES = 1 << 30
"""Of features that are kept in memory."""


@dataclass(frozen=True)
class Head:
    """What is known of a slide's features beside themselves."""

    store: FeatureStore
    rows: int
    encoder: str
    origins: Int32[np.ndarray, "n 2"]
    valid: UInt8[np.ndarray, " n"]


class FeatureBlocks:
    """Reads feature stores by blocks of rows and keeps some of them, for several threads."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._blocks: Cache[tuple[str, int, int], np.ndarray] = Cache(most, lambda block: block.nbytes)
        self._heads: Cache[tuple[str, int], Head] = Cache(most // 8, lambda head: head.origins.nbytes + 4096)

    def head(self, path: Path) -> Head:
        """Open a store; its features stay on disk.

        Raises:
            StoreError: it is gone, damaged or of another version.
        """
        return self._heads.get(_version(path), lambda: _open(path))

    def each(self, path: Path) -> Iterator[tuple[int, Float32[np.ndarray, "m d"]]]:
        """The features of a slide in order: the number of a block's first row, and the block.

        Raises:
            StoreError: a block is damaged or gone.
        """
        head = self.head(path)
        for start in range(0, head.rows, ROWS_PER_CHUNK):
            yield start, self.block(path, start)

    def block(self, path: Path, start: int) -> Float32[np.ndarray, "m d"]:
        """The rows of a slide from ``start`` (a multiple of the block's length) on.

        Raises:
            StoreError: the block is damaged or gone.
        """
        head = self.head(path)
        read: Callable[[], np.ndarray] = lambda: _read(head.store, start)  # noqa: E731
        return self._blocks.get((*_version(path), start), read).astype(np.float32)

    def row(self, path: Path, row: int) -> Float32[np.ndarray, " d"]:
        """The features of one tile.

        Raises:
            StoreError: its block is damaged or gone.
        """
        start = row // ROWS_PER_CHUNK * ROWS_PER_CHUNK
        return self.block(path, start)[row - start]


def _version(path: Path) -> tuple[str, int]:
    """A store as it is now: one made anew is another."""
    try:
        return str(path), (path / "zarr.json").stat().st_mtime_ns
    except OSError as error:
        raise StoreError(f"no features at {path.name}", "a store of features", "Embed this slide again.") from error


def _open(path: Path) -> Head:
    store = FeatureStore.open(path)
    encoder = str(store.attributes.get("encoder", {}).get("sha256", ""))
    return Head(store, len(store), encoder, store.origins, store.valid)


def _read(store: FeatureStore, start: int) -> Float[np.ndarray, "m d"]:
    try:
        array: Any = open_array(store.group, "features")
        return np.asarray(array[start : start + ROWS_PER_CHUNK])
    except (ValueError, RuntimeError, OSError) as error:
        raise StoreError(
            f"{store.path.name}: features cannot be read", "intact chunks", "Embed this slide again with --overwrite."
        ) from error
