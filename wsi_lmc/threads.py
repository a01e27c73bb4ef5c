"""A fixed number of threads for work that releases the GIL: decoding, compressing, reading, writing."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_VARIABLE = "OMP_NUM_THREADS"  # what schedulers and our own workers set to say how many cores a process has
_PARTS_PER_THREAD = 4  # so that none waits long for the slowest


class Threads:
    """``count`` threads; with one, the caller does the work itself, which costs no handing over."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def each[T](self, work: Callable[[range], T], items: int) -> list[T]:
        """Call ``work`` with ranges that make up ``range(items)``; the results come in their order.

        The first exception is raised once all parts have ended.
        """
        if self._pool is None or items <= 1:
            return [work(range(items))] if items else []
        step = max(1, -(-items // (self.count * _PARTS_PER_THREAD)))
        parts = [range(start, min(start + step, items)) for start in range(0, items, step)]
        jobs = [self._pool.submit(work, part) for part in parts]
        failed = [error for job in jobs if (error := job.exception()) is not None]
        if failed:
            raise failed[0]
        return [job.result() for job in jobs]

    def begin[**P, T](self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start something that the caller does not wait for yet; with one thread it is done at once."""
        if self._pool is not None:
            return self._pool.submit(work, *args, **kwargs)
        done: Future[T] = Future()
        done.set_result(work(*args, **kwargs))
        return done

    def close(self) -> None:
        """Wait for what was begun and end the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_process() -> int:
    """Threads for this process: what ``OMP_NUM_THREADS`` says, since other workers may share the cores; else all."""
    stated = os.environ.get(_VARIABLE, "")
    return int(stated) if stated.isdigit() and int(stated) > 0 else available_cores()
