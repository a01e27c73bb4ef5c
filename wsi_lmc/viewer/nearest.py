"""The tiles most like one, over the whole cohort: by cosine of their features, block by block, few from each slide.

A search runs in a thread of its own and can be looked at meanwhile; the next one stops it.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np
from jaxtyping import Float, Float32

from wsi_lmc.errors import StoreError
from wsi_lmc.tilestore import Validity
from wsi_lmc.viewer.blocks import FeatureBlocks

MOST, PER_SLIDE = 24, 3


@dataclass(frozen=True, order=True)
class Hit:
    """A tile that was found: ``similarity`` is the cosine, -1 to 1."""

    similarity: float
    slide_id: str
    row: int
    site: str = ""


@dataclass(frozen=True)
class Wanted:
    """What is searched for: a tile, by its slide and row, and the site it is from."""

    slide_id: str
    row: int
    site: str


@dataclass(frozen=True)
class Source:
    """Where is searched: a slide, its site, and its store of features."""

    slide_id: str
    site: str
    path: Path


@dataclass(frozen=True)
class Found:
    """A search as far as it has come: slides looked through ``of`` how many, and those that could not be."""

    wanted: Wanted
    looked: int
    of: int
    skipped: int
    nearest: tuple[Hit, ...]
    elsewhere: tuple[Hit, ...]

    @property
    def done(self) -> bool:
        """Whether all slides have been looked through."""
        return self.looked == self.of


@dataclass
class _Best:
    """The most similar hits so far, the least of them on top of the heap."""

    hits: list[Hit] = field(default_factory=list)

    def add(self, hit: Hit) -> None:
        if len(self.hits) < MOST:
            heapq.heappush(self.hits, hit)
        elif hit > self.hits[0]:
            heapq.heapreplace(self.hits, hit)

    def listed(self) -> tuple[Hit, ...]:
        return tuple(sorted(self.hits, key=lambda hit: (-hit.similarity, hit.slide_id, hit.row)))


class Search:
    """One search: begun by :meth:`start`, looked at by :meth:`found`."""

    def __init__(self, blocks: FeatureBlocks, wanted: Wanted, sources: Sequence[Source], own: Path) -> None:
        self._blocks, self._wanted, self._sources, self._own = blocks, wanted, sources, own
        self._nearest, self._elsewhere = _Best(), _Best()
        self._looked = self._skipped = 0
        self._stop, self._lock = Event(), Lock()
        self._thread = Thread(target=self.run, name="nearest tiles", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Let it end early."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def found(self) -> Found:
        """What has been found so far."""
        with self._lock:
            nearest, elsewhere = self._nearest.listed(), self._elsewhere.listed()
            return Found(self._wanted, self._looked, len(self._sources), self._skipped, nearest, elsewhere)

    def run(self) -> None:
        """Look through all slides; one that cannot be read, or has another encoder's features, is skipped."""
        try:
            vector = self._blocks.row(self._own, self._wanted.row)
            encoder = self._blocks.head(self._own).encoder
        except StoreError:
            with self._lock:
                self._looked = self._skipped = len(self._sources)
            return
        for source in self._sources:
            if self._stop.is_set():
                return
            try:
                hits = self._of(source, vector, encoder)
            except StoreError:
                hits = None
            with self._lock:
                self._looked += 1
                self._skipped += hits is None
                for hit in hits or ():
                    self._nearest.add(hit)
                    if hit.site != self._wanted.site:
                        self._elsewhere.add(hit)

    def _of(self, source: Source, vector: Float32[np.ndarray, " d"], encoder: str) -> list[Hit] | None:
        """The best tiles of a slide; None where its features cannot be compared."""
        if self._blocks.head(source.path).encoder != encoder:
            return None
        best: list[tuple[float, int]] = []
        own = self._wanted.row if source.slide_id == self._wanted.slide_id else None
        for start, values in scores(self._blocks, source.path, vector):
            if own is not None and start <= own < start + len(values):
                values[own - start] = -np.inf
            top = np.argsort(-values, kind="stable")[:PER_SLIDE]
            found = [(float(values[each]), start + int(each)) for each in top if np.isfinite(values[each])]
            best = sorted([*best, *found], key=lambda pair: (-pair[0], pair[1]))[:PER_SLIDE]
        return [Hit(value, source.slide_id, row, source.site) for value, row in best]


def scores(
    blocks: FeatureBlocks, path: Path, vector: Float32[np.ndarray, " d"]
) -> Iterator[tuple[int, Float32[np.ndarray, " _"]]]:
    """Cosine of each of a slide's tiles with a vector, by blocks; -inf of those that were unreadable.

    Raises:
        StoreError: the features cannot be read, or have another length.
    """
    unreadable = blocks.head(path).valid == Validity.UNREADABLE
    for start, block in blocks.each(path):
        if block.shape[1] != len(vector):
            raise StoreError(f"features of length {block.shape[1]}", str(len(vector)), "Compare one encoder's.")
        values = cosines(block, vector)
        values[unreadable[start : start + len(values)]] = -np.inf
        yield start, values


def cosines(block: Float[np.ndarray, "m d"], vector: Float[np.ndarray, " d"]) -> Float32[np.ndarray, " m"]:
    """Cosine of each row with a vector; -inf where there is none, because one of them is all zeros or no number."""
    lengths = np.linalg.norm(block, axis=1) * np.linalg.norm(vector)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (block @ vector / lengths).astype(np.float32)
    return np.where(np.isfinite(values), np.clip(values, -1, 1), np.float32(-np.inf)).astype(np.float32)
