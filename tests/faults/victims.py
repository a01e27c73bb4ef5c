"""A process in which one slide is cut at a time, and which may crash, hang or ask for too much memory."""

import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from wsi_lmc.executor import attempt
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileTask, tile_slide
from wsi_lmc.tilestore import TileStore

_MEMORY = 8 << 30
"""Bytes of address space: far more than a small slide needs, and few enough for a bomb to be noticed."""


def cut(task: TileTask) -> str:
    """Cut one slide in this process: "done", "empty", or the code of its failure; what is done must read back."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    outcome = attempt(tile_slide, task)
    assert isinstance(outcome, Outcome)
    if outcome.code == "internal":
        raise AssertionError(outcome.detail)
    if outcome.state == "done":
        store = TileStore.open(task.out / "tiles" / f"{task.slide_id}.zarr")
        store.read_checked(np.arange(len(store)))
    return outcome.code or outcome.state


class Victim:
    """A worker process of its own, started anew after it died; ``limit_s`` is how long a slide may take."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._pool = self._start()

    def cut(self, task: TileTask) -> str:
        """What becomes of a slide; "died" and "hangs" where it killed or blocked the process, else see :func:`cut`."""
        return self._watch(cut, task)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)

    def _watch(self, work: Callable[[TileTask], str], task: TileTask) -> str:
        shutil.rmtree(task.out, ignore_errors=True)
        try:
            return self._pool.submit(work, task).result(timeout=self._limit_s)
        except BrokenProcessPool:
            said = "died"
        except TimeoutError:
            said = "hangs"
        for process in list(self._pool._processes.values()):
            process.kill()
        self._pool.shutdown()
        self._pool = self._start()
        return said

    @staticmethod
    def _start() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"))


def scratch(folder: Path, number: int) -> Path:
    """A folder of a victim's own."""
    path = folder / f"victim-{number}"
    path.mkdir(exist_ok=True)
    return path
