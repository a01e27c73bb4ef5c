"""Batches that span slides: any number of readers feed one device, which waits for none of them alone.

Every batch has the same number of tiles, whoever they come from; one that nobody can fill goes through the encoder as
it stands, the rest of it being left-overs. So on a CPU the bytes of a tile's feature depend on no other tile.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wsi_lmc.encoder import Encoder
from wsi_lmc.memory import make_room, out_of_memory
from wsi_lmc.normalisers import Normaliser

Block = UInt8[np.ndarray, "_ h w 3"]  # blocks differ in their number of tiles
Valid = UInt8[np.ndarray, " _"]

_AHEAD = 3  # batches beside those in the lanes: being filled, full, and travelling; bounds memory


@dataclass(eq=False)
class _Feed:
    """One reader's results: ``missing`` tiles are on their way."""

    features: Float[np.ndarray, "n d"]
    missing: int = 0


@dataclass(eq=False)
class _Batch:
    """Tiles in memory that is used again; ``parts`` says whose, as (feed, its first row, first slot, tiles)."""

    tiles: Tensor
    pixels: Block  # the same memory
    filled: int = 0
    copied: int = 0
    parts: list[tuple[_Feed, int, int, int]] = field(default_factory=list)


@dataclass(eq=False)
class _Session:
    """The time in which lanes serve the device: from the first reader to the last result, or to an error."""

    left: int  # lanes that still serve
    serving: list["Future[None]"] = field(default_factory=list)
    ended: bool = False

    def expect_error(self) -> None:
        """Raise what ended it."""
        for lane in self.serving:
            lane.result()


class Engine:
    """An encoder on its device, shared by the threads that read tiles.

    Args:
        encoder: gives features.
        normalise: changes tiles before the encoder sees them.
        batch: tiles that go through the encoder together.
        lanes: batches that are computed at a time, each by a thread of its own.

    Attributes:
        at_once: tiles in one pass; fewer than ``batch`` once memory was short.
        idle_s: seconds in which there was no full batch for the device, or for one lane of it, while somebody read.
    """

    def __init__(self, encoder: Encoder, normalise: Normaliser | None, batch: int, lanes: int = 1) -> None:
        self.encoder = encoder
        self.at_once = batch
        self.idle_s = 0.0
        self._normalise = normalise
        self._size, self._lanes = batch, lanes
        self._changed = Condition()
        self._feeding = 0
        self._filling: _Batch | None = None
        self._full: deque[_Batch] = deque()
        self._free: list[_Batch] = []
        self._made = 0
        self._session: _Session | None = None
        self._threads = ThreadPoolExecutor(lanes, "device")
        cuda = encoder.device.type == "cuda"
        # Two streams in turn: one batch travels while the other is computed.
        self._streams = deque(torch.cuda.Stream(encoder.device) for _ in range(2 if cuda else 0))

    def embed(self, blocks: Iterable[tuple[Block, Valid]], features: Float[np.ndarray, "n d"]) -> Valid:
        """Fill ``features`` with those of ``n`` tiles that come in blocks, in their order; the tiles' validity.

        Blocks may use their memory again as soon as the next one is asked for. Whatever the encoder raises is raised
        in every thread that waits for it.
        """
        feed = _Feed(features)
        valid: list[Valid] = [np.empty(0, np.uint8)]
        row = 0
        with self._joined() as session:
            for block, block_valid in blocks:
                self._put(session, feed, row, block)
                row += len(block)
                valid.append(block_valid)
        with self._changed:
            self._changed.wait_for(lambda: not feed.missing or session.ended)
        if feed.missing:
            session.expect_error()
        return np.concatenate(valid)

    @contextmanager
    def _joined(self) -> Iterator[_Session]:
        """Count as a reader; once the last one leaves, a batch that is not full will not become so."""
        with self._changed:
            self._feeding += 1
            session = self._session
            if session is None:
                session = self._session = _Session(self._lanes)
                session.serving += [self._threads.submit(self._serve, session) for _ in range(self._lanes)]
        try:
            yield session
        finally:
            with self._changed:
                self._feeding -= 1
                if not self._feeding:
                    self._seal()
                self._changed.notify_all()

    def _put(self, session: _Session, feed: _Feed, row: int, block: Block) -> None:
        start = 0
        while start < len(block):
            with self._changed:
                batch = self._claim(session, block.shape[1:])
                if batch is None:
                    break
                slot, taken = batch.filled, min(self._size - batch.filled, len(block) - start)
                batch.parts.append((feed, row + start, slot, taken))
                batch.filled += taken
                feed.missing += taken
                if batch.filled == self._size:
                    self._seal()
            try:
                batch.pixels[slot : slot + taken] = block[start : start + taken]
            finally:  # an interrupted reader must not hold up the others
                with self._changed:
                    batch.copied += taken
                    self._changed.notify_all()
            start += taken
        else:
            return
        session.expect_error()  # without the lock, which other lanes need to end

    def _claim(self, session: _Session, shape: tuple[int, ...]) -> _Batch | None:
        """The batch that is being filled, or a free one as soon as there is one; None once the session has ended.

        Called under the lock.
        """
        while not session.ended:
            if self._filling is not None and self._filling.pixels.shape[1:] != shape:
                self._seal()
            if self._filling is None and (self._free or self._made < _AHEAD + self._lanes):
                self._filling = self._new(shape)
            if self._filling is not None:
                return self._filling
            self._changed.wait()
        return None

    def _new(self, shape: tuple[int, ...]) -> _Batch:
        batch = self._free.pop() if self._free else None
        self._made += batch is None
        if batch is not None and batch.pixels.shape[1:] == shape:
            batch.filled = batch.copied = 0
            batch.parts.clear()
            return batch
        tiles = torch.zeros((self._size, *shape), dtype=torch.uint8, pin_memory=bool(self._streams))
        return _Batch(tiles, tiles.numpy())

    def _seal(self) -> None:
        """Nothing more goes into the batch that is being filled; called under the lock."""
        if self._filling is not None:
            self._full.append(self._filling)
            self._filling = None
            self._changed.notify_all()

    def _serve(self, session: _Session) -> None:
        """Take full batches through the device until nobody reads any more."""
        running: deque[tuple[_Batch, Tensor, torch.cuda.Event | None]] = deque()
        whole = False
        try:
            while True:
                batch = self._next(session, wait=not running)
                if batch is not None:
                    running.append(self._launch(batch))
                elif not running:
                    whole = True
                    return
                if batch is None or len(running) >= max(1, len(self._streams)):
                    self._deliver(*running.popleft())
        finally:
            self._leave(session, failed=not whole)

    def _next(self, session: _Session, wait: bool) -> _Batch | None:
        """A full batch; None where there is none yet and ``wait`` is not set, or where there will be none."""
        with self._changed:
            while self._session is session:
                if self._full and self._full[0].copied == self._full[0].filled:
                    return self._full.popleft()
                if not wait:
                    return None
                if not self._feeding and not self._full:
                    self._session = None  # whoever comes now begins another
                    self._changed.notify_all()
                    return None
                began = time.perf_counter()
                self._changed.wait()
                self.idle_s += (time.perf_counter() - began) / self._lanes
            return None

    def _leave(self, session: _Session, failed: bool) -> None:
        with self._changed:
            session.left -= 1
            session.ended |= failed or not session.left
            if failed and self._session is session:
                self._session = None
                self._full.clear()  # readers may still be writing into these
                self._free.clear()
                self._filling, self._made = None, 0
            self._changed.notify_all()

    def _launch(self, batch: _Batch) -> tuple[_Batch, Tensor, torch.cuda.Event | None]:
        """Begin a batch on the device: its features in memory of the host, and when they will be there."""
        if not self._streams:
            return batch, self._forward(batch.tiles), None
        stream = self._streams[0]
        self._streams.rotate()
        with torch.cuda.stream(stream):
            found = self._forward(batch.tiles)
            host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            host.copy_(found, non_blocking=True)
            there = torch.cuda.Event()
            there.record(stream)
            return batch, host, there

    def _forward(self, tiles: Tensor) -> Tensor:
        """Features; where memory is short, of fewer tiles at once from now on."""
        while True:
            tried = self.at_once
            try:
                return torch.cat([self._features(part) for part in tiles.split(tried)])
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or tried == 1:
                    raise
                said = str(error)
            self.at_once = min(self.at_once, tried // 2)  # another lane may have been here
            make_room(self.encoder.device, said)

    def _features(self, tiles: Tensor) -> Tensor:
        if self._normalise is None:
            return self.encoder.embed(tiles)
        return self.encoder.embed(self._normalise(tiles.to(self.encoder.device, non_blocking=True)))

    def _deliver(self, batch: _Batch, found: Tensor, there: torch.cuda.Event | None) -> None:
        """Hand each reader its rows, and give the batch's memory back."""
        if there is not None:
            there.synchronize()
        values = found.numpy()
        for feed, row, slot, taken in batch.parts:
            feed.features[row : row + taken] = values[slot : slot + taken]
        with self._changed:
            for feed, _, _, taken in batch.parts:
                feed.missing -= taken
            self._free.append(batch)
            self._changed.notify_all()
