"""Steps run by dask: worker processes on this machine, jobs of a batch system, or a running cluster.

Only tasks and small outcomes travel through the scheduler, never pixels. Besides `jobqueue`, this is the only importer
of dask.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, suppress
from queue import Empty, SimpleQueue
from typing import Any, cast
from urllib.parse import urlsplit

import dask
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from wsi_lmc.cluster.local import CPU, GPU, SCHEDULING, LocalWorkers, MemoryLimit, local_settings, start
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.executor import Executor, SerialExecutor, Step, attempt, failed
from wsi_lmc.jobqueue import JobConfig, Jobs
from wsi_lmc.steps.agenda import Agenda, Item, Task
from wsi_lmc.steps.outcome import Outcome, Split

_GPU_SHARE = 0.25  # of a task that embeds: while one is computed, others are read, opened and written
_LOOK_S = 2.0  # how often workers are counted: they come and go
_CONNECT_S = 15
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class DaskExecutor:
    """Worker processes of this machine, on loopback, those of jobs, or those of the cluster at an address.

    A task whose worker dies is tried again, in the end without company; when its worker dies then, too, its slide has
    failed, and the others go on. So has one that takes longer than ``slide_timeout_s``: its worker is started anew.
    Jobs may have to queue: then this waits until the first worker is there.

    Raises:
        UsageError: no scheduler answers at the address, or it is remote and not encrypted; or jobs cannot be had.
    """

    def __init__(
        self, workers: LocalWorkers | JobConfig | str, insecure: bool = False, slide_timeout_s: float | None = None
    ) -> None:
        self._slide_timeout_s = slide_timeout_s
        self._jobs: Jobs | None = None
        self._counted: tuple[float, dict[str, Any]] = (0.0, {})
        with ExitStack() as opened:
            if isinstance(workers, str):
                self._client = opened.enter_context(closing(_connect(workers, insecure)))
            elif isinstance(workers, JobConfig):
                self._jobs = opened.enter_context(closing(Jobs(workers, SCHEDULING)))
                self._client = opened.enter_context(closing(Client(self._jobs.cluster)))
                while not self._workers():
                    time.sleep(_LOOK_S)
            else:
                with dask.config.set(local_settings(workers.count)):
                    cluster = opened.enter_context(closing(start(workers)))
                self._client = opened.enter_context(closing(Client(cluster)))
                if not workers.gpus:
                    self._client.register_plugin(MemoryLimit(workers.count))
            self._opened = opened.pop_all()

    def run[T: Task](self, step: Step[T], tasks: Sequence[T], on_gpu: bool = False) -> Iterator[Outcome]:
        """See :class:`Executor`.

        Not more tasks are handed over than workers can begin: the scheduler stays small however many there are, and a
        worker that dies takes few with it.
        """
        agenda = Agenda(tasks)
        running: dict[Future, Item[T]] = {}
        ended: SimpleQueue[Future] = SimpleQueue()
        try:
            while True:
                resources, slots = self._offer(on_gpu)
                begun = self._hand_over(step, _next_of(agenda, slots - len(running)), resources)
                running |= begun
                for future in begun:
                    future.add_done_callback(ended.put)
                if not running:
                    return
                found = _all_of(ended)
                outcomes = self._outcomes(found)
                for future in found:
                    if future.status == "pending":  # its worker died with the result: dask does it again
                        future.add_done_callback(ended.put)
                        continue
                    item = running.pop(future, None)
                    if item is None:  # it was overdue, and its slide has failed
                        continue
                    outcome = self._take(agenda, item, future, outcomes.get(str(future.key)))
                    if outcome is not None:
                        yield outcome
                yield from self._end_overdue(agenda, running)
        except (OSError, CancelledError) as error:
            raise _lost_scheduler() from error
        finally:
            if running and self._client.status == "running":
                self._client.cancel(list(running))

    def _hand_over[T: Task](
        self, step: Step[T], items: Sequence[Item[T]], resources: dict[str, float] | None
    ) -> dict[Future, Item[T]]:
        """Give items to the scheduler, together: each message to it costs as much as many tasks."""
        if not items:
            return {}
        tasks, steps = [item.task for item in items], [step] * len(items)
        for item in items:
            item.began = time.monotonic()
        futures = self._client.map(attempt, steps, tasks, pure=False, resources=resources, retries=0)
        return dict(zip(cast(list[Future], futures), items, strict=True))

    def _outcomes(self, futures: Sequence[Future]) -> dict[str, Any]:
        """Results of those that have one, by key: asking for each alone takes the longest part of a task's way."""
        finished = {str(future.key): future for future in futures if future.status == "finished"}
        return cast(dict[str, Any], self._client.gather(finished, errors="skip")) if finished else {}

    def _take[T: Task](
        self, agenda: Agenda[T], item: Item[T], future: Future, result: Outcome | Split[T] | None
    ) -> Outcome | None:
        """A future that is done; only the loss of its worker, or of its task, can be an exception here."""
        if result is not None:
            return agenda.ended(item, result)
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return None if agenda.died(item) else agenda.ended(item, _killed(item.task))
        if error is None:
            raise _lost_scheduler()
        remedy = "See the workers' logs; they need the same versions of wsi-lmc and dask as this machine."
        return agenda.ended(item, failed(item.task, "internal", f"{type(error).__name__}: {error}", remedy))

    def _end_overdue[T: Task](self, agenda: Agenda[T], running: dict[Future, Item[T]]) -> Iterator[Outcome]:
        """Fail tasks that take too long, and end their workers: nothing else stops a thread that hangs in a library.

        What else ran there is tried again, as after any death of a worker.
        """
        if self._slide_timeout_s is None:
            return
        now = time.monotonic()
        overdue = [future for future, item in running.items() if now - item.began > self._slide_timeout_s]
        at_work = cast(dict[str, Any], self._client.processing()) if overdue else {}
        places = {key: worker for worker, keys in at_work.items() for key in keys}
        stuck = [future for future in overdue if future.key in places]
        for future in overdue:
            running[future].began = now  # that it waits for a worker is not the slide's fault
        items = [running.pop(future) for future in stuck]
        if stuck:
            self._client.cancel(stuck)
            with suppress(
                ValueError, KeyError
            ):  # a cluster's workers without nannies stay as they are; others are gone
                self._client.restart_workers(list({places[future.key] for future in stuck}), raise_for_error=False)
        outcomes = [agenda.ended(item, _timed_out(item.task, self._slide_timeout_s)) for item in items]
        yield from [outcome for outcome in outcomes if outcome is not None]

    def _offer(self, on_gpu: bool) -> tuple[dict[str, float] | None, int]:
        """What a task needs of its worker, and how many tasks can run at a time; one can always be handed over."""
        kind, share = (GPU, _GPU_SHARE) if on_gpu else (CPU, 1.0)
        workers = self._workers().values()
        offering = [worker for worker in workers if kind in worker["resources"]]
        if offering:
            slots = sum(min(worker["nthreads"], int(worker["resources"][kind] / share)) for worker in offering)
            return {kind: share}, max(1, slots)
        return None, max(1, sum(worker["nthreads"] for worker in workers))

    def _workers(self) -> dict[str, Any]:
        at, found = self._counted
        if time.monotonic() - at > _LOOK_S:
            try:
                found = self._client.scheduler_info(n_workers=-1)["workers"]
            except OSError as error:
                raise _lost_scheduler() from error
            self._counted = (time.monotonic(), found)
        if not found and self._jobs is not None:
            self._jobs.check()
        return found

    def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See :class:`Executor`; a training that was cut off is resumed by hand, so it is not retried here."""
        if not self.has_gpu():
            return function(*args, **kwargs)
        future = self._client.submit(function, *args, **kwargs, pure=False, resources={GPU: 1}, retries=0)
        try:
            return future.result()
        except KilledWorker as error:
            raise _lost_worker() from error

    def has_gpu(self) -> bool:
        """See :class:`Executor`."""
        return any(GPU in worker["resources"] for worker in self._workers().values())

    def __enter__(self) -> "DaskExecutor":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()


def _next_of[T: Task](agenda: Agenda[T], most: int) -> list[Item[T]]:
    found: list[Item[T]] = []
    while len(found) < most and (item := agenda.take()) is not None:
        found.append(item)
    return found


def _all_of(ended: "SimpleQueue[Future]") -> list[Future]:
    """All futures that have ended, once there is one; none where there is none for a while."""
    found: list[Future] = []
    try:
        found.append(ended.get(timeout=_LOOK_S))
        while True:
            found.append(ended.get_nowait())
    except Empty:
        return found


def make_executor(
    workers: LocalWorkers | JobConfig,
    address: str | None = None,
    insecure: bool = False,
    slide_timeout_s: float | None = None,
) -> Executor:
    """Worker processes, of which there is at least 1, or a cluster's ``address``; this process for 0 of them.

    This process cannot end what hangs in it: there ``slide_timeout_s`` means nothing.
    """
    if address is not None:
        return DaskExecutor(address, insecure, slide_timeout_s)
    if isinstance(workers, JobConfig) or workers.count > 0:
        return DaskExecutor(workers, slide_timeout_s=slide_timeout_s)
    if workers.count < 0:
        raise UsageError(f"--workers {workers.count}", "0 (this process) or more", "Correct it.")
    return SerialExecutor()


def _connect(address: str, insecure: bool) -> Client:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme != "tls" and parts.hostname not in _LOOPBACK and not insecure:
        raise UsageError(
            f"scheduler {address} is remote and not encrypted: whoever reaches it can run code there",
            "tls:// (dask's distributed.comm.tls settings)",
            "Set up TLS, or pass --insecure-scheduler inside a network you trust.",
        )
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # tracebacks of what is told here in a sentence
    try:
        return Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no dask scheduler answers at {address} ({error})",
            "a running one of the same dask version",
            "Start it with 'dask scheduler', and workers with 'dask worker'.",
        ) from error


def _killed(task: Task) -> Outcome:
    return failed(
        task,
        "worker_died",
        "the worker process died whenever it came to this slide (out of memory, or a crash in a codec)",
        "Give workers more memory (fewer --workers), or leave this slide out.",
    )


def _timed_out(task: Task, limit_s: float) -> Outcome:
    return failed(
        task,
        "timed_out",
        f"still at work after {limit_s:.0f} s (a hanging file system, or a damaged slide)",
        "See whether the file can be read; allow more with --slide-timeout, or leave this slide out.",
    )


def _lost_scheduler() -> UsageError:
    return UsageError(
        "the dask scheduler has gone away",
        "one that runs until the end",
        "Start it and its workers again, then run the same command: it goes on from what is done.",
    )


def _lost_worker() -> StoreError:
    return StoreError("the GPU worker died", "a living one", "Look at its log and memory, then train with --resume.")
