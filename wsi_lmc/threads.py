"""A fixed number of threads for work that releases the GIL: decoding, compressing, reading, writing."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

_VARIABLE = "OMP_NUM_THREADS"  # what schedulers and our own workers set to say how many cores a process has
_SMALLEST_PART = 2


@dataclass(frozen=True)
class Pending[R]:
    """Work that was begun: its ``jobs``, and what makes its result of theirs."""

    jobs: Sequence[Future[Any]]
    gather: Callable[[], R]

    def result(self) -> R:
        """Wait until all parts have ended; the result, or the first exception."""
        wait(self.jobs)  # wakes up once; asking one after the other takes the interpreter from those at work
        failed = [error for job in self.jobs if (error := job.exception()) is not None]
        if failed:
            raise failed[0]
        return self.gather()

    def then[S](self, function: Callable[[R], S]) -> "Pending[S]":
        """The same work, whose result goes through ``function`` when it is asked for."""
        return Pending(self.jobs, lambda: function(self.gather()))


class Threads:
    """``count`` threads; with one, the caller does the work itself, which costs no handing over."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def each[T](self, work: Callable[[range], T], items: int) -> list[T]:
        """Call ``work`` with ranges that make up ``range(items)``; the results come in their order.

        The first exception is raised once all parts have ended.
        """
        return self.begin(work, items).result()

    def begin[T](self, work: Callable[[range], T], items: int, smallest: int = _SMALLEST_PART) -> Pending[list[T]]:
        """Begin what `each` does, in parts of ``smallest`` items at least; with one thread it is done at once."""
        if self._pool is None:
            done = [work(range(items))] if items else []
            return Pending([], lambda: done)
        jobs = [self._pool.submit(work, part) for part in self._parts(items, smallest)]
        return Pending(jobs, lambda: [job.result() for job in jobs])

    def _parts(self, items: int, smallest: int) -> list[range]:
        """Ever smaller parts of ``range(items)``: few to hand over, and in the end none waits long for the slowest."""
        parts: list[range] = []
        least = min(smallest, -(-items // self.count))
        start = 0
        while start < items:
            stop = min(items, start + max(least, (items - start) // (2 * self.count)))
            parts.append(range(start, stop))
            start = stop
        return parts

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_turn[R](begin: Callable[[int], Pending[R]], count: int, ahead: int) -> Generator[R]:
    """The results of ``count`` works in order, of which the next ``ahead`` are begun before one is waited for."""
    begun: deque[Pending[R]] = deque()
    try:
        for number in range(count):
            for later in range(number + len(begun), min(number + ahead + 1, count)):
                begun.append(begin(later))
            yield begun.popleft().result()
    finally:
        for work in begun:
            wait(work.jobs)  # nothing goes on in memory or files that the caller takes back


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_process() -> int:
    """Threads for this process: what ``OMP_NUM_THREADS`` says, since other workers may share the cores; else all."""
    stated = os.environ.get(_VARIABLE, "")
    return int(stated) if stated.isdigit() and int(stated) > 0 else available_cores()
