"""Who runs the steps: this process, worker processes on this machine, or a running dask cluster.

Only tasks and small outcomes travel through the scheduler, never pixels. This is the one place where an exception of a
step becomes a value, and the only importer of dask.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import dask
from distributed import Client, Future, LocalCluster, as_completed
from distributed.scheduler import KilledWorker

from wsi_lmc.errors import SlideCode, SlideError, StoreError, UsageError
from wsi_lmc.steps.outcome import Outcome, Stage
from wsi_lmc.threads import available_cores

GPU = "GPU"
_CONNECT_S = 15
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@runtime_checkable
class Task(Protocol):
    """A picklable unit of work on one slide."""

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        ...

    @property
    def stage(self) -> Stage:
        """Which stage the task belongs to."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs steps; used as a context manager."""

    def run[T: Task](self, step: Callable[[T], Outcome], tasks: Sequence[T], on_gpu: bool = False) -> Iterator[Outcome]:
        """Yield one outcome a task, in whatever order they come; no exception of a step gets through.

        ``on_gpu`` keeps tasks on workers with the resource "GPU", where the executor has such workers.
        """
        ...

    def has_gpu(self) -> bool:
        """Whether there is a worker with the resource "GPU"."""
        ...

    def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one long function on a worker with the resource "GPU", or in this process where there is none."""
        ...

    def __enter__(self) -> "Executor": ...

    def __exit__(self, *error: object) -> None: ...


def attempt[T: Task](step: Callable[[T], Outcome], task: T) -> Outcome:
    """Run a step and turn whatever it raises into a failed outcome: one bad slide never stops a run."""
    try:
        return step(task)
    except SlideError as error:
        return _failed(task, error.code, f"{error.found}; expected {error.expected}", error.remedy)
    except StoreError as error:
        return _failed(task, "store", f"{error.found}; expected {error.expected}", error.remedy)
    except OSError as error:
        return _failed(task, "io", str(error), "Check the disk and the permissions, then run the command again.")
    except Exception as error:  # noqa: BLE001  the single place where an unforeseen error becomes a slide's outcome
        remedy = "This is a bug in wsi-lmc: report it with this slide's file in logs/; other slides are not affected."
        failed = _failed(task, "internal", f"{type(error).__name__}: {error}", remedy)
        return replace(failed, detail=traceback.format_exc())


class SerialExecutor:
    """Everything in this process, one task after the other; a crash of a codec ends the run."""

    def run[T: Task](self, step: Callable[[T], Outcome], tasks: Sequence[T], on_gpu: bool = False) -> Iterator[Outcome]:
        """See :class:`Executor`; outcomes come in the order of the tasks."""
        del on_gpu
        for task in tasks:
            yield attempt(step, task)

    def has_gpu(self) -> bool:
        """See :class:`Executor`."""
        return False

    def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See :class:`Executor`."""
        return function(*args, **kwargs)

    def __enter__(self) -> "SerialExecutor":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class DaskExecutor:
    """Worker processes: ``workers`` of them on loopback, or those of the cluster at ``address``.

    A task whose worker dies is tried once more; then its slide has failed, and the others go on.

    Raises:
        UsageError: no scheduler answers at ``address``, or it is remote and not encrypted.
    """

    def __init__(self, workers: int = 1, address: str | None = None, insecure: bool = False) -> None:
        self._cluster: LocalCluster | None = None
        if address is None:
            with dask.config.set(_local_settings(workers)):
                self._cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.ERROR,
                )
            self._client = Client(self._cluster)
        else:
            self._client = _connect(address, insecure)

    def run[T: Task](self, step: Callable[[T], Outcome], tasks: Sequence[T], on_gpu: bool = False) -> Iterator[Outcome]:
        """See :class:`Executor`."""
        resources = {GPU: 1} if on_gpu and self.has_gpu() else None
        futures = {
            self._client.submit(attempt, step, task, pure=False, resources=resources, retries=0): task for task in tasks
        }
        try:
            for future in as_completed(list(futures)):
                task = futures.pop(future)
                yield _result(future, task)
                future.release()
        finally:
            self._client.cancel(list(futures))

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
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return any(GPU in worker["resources"] for worker in workers.values())

    def __enter__(self) -> "DaskExecutor":
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def make_executor(workers: int, address: str | None = None, insecure: bool = False) -> Executor:
    """Worker processes for ``workers`` of at least 1 or a cluster's ``address``; this process for 0."""
    if workers < 0:
        raise UsageError(f"--workers {workers}", "0 (this process) or more", "Correct it.")
    if address is None and workers == 0:
        return SerialExecutor()
    return DaskExecutor(workers, address, insecure)


def _local_settings(workers: int) -> dict[str, Any]:
    threads = str(max(1, available_cores() // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.scheduler.worker-saturation": 1.0,  # nothing queues at a worker, so nothing else dies with it
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads),
    }


def _connect(address: str, insecure: bool) -> Client:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme != "tls" and parts.hostname not in _LOOPBACK and not insecure:
        raise UsageError(
            f"scheduler {address} is remote and not encrypted: whoever reaches it can run code there",
            "tls:// (dask's distributed.comm.tls settings)",
            "Set up TLS, or pass --insecure-scheduler inside a network you trust.",
        )
    try:
        return Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no dask scheduler answers at {address} ({error})",
            "a running one of the same dask version",
            "Start it with 'dask scheduler', and workers with 'dask worker'.",
        ) from error


def _result(future: Future, task: Task) -> Outcome:
    """A finished future's outcome; only the loss of its worker, or of its task, can be an exception here."""
    if future.status == "finished":
        return future.result()
    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        return _failed(
            task,
            "worker_died",
            "the worker process died twice on this slide (out of memory, or a crash in a codec)",
            "Give workers more memory (fewer --workers), or leave this slide out.",
        )
    remedy = "See the workers' logs; they need the same versions of wsi-lmc and dask as this machine."
    return _failed(task, "internal", f"{type(error).__name__}: {error}" if error else "the task was lost", remedy)


def _lost_worker() -> StoreError:
    return StoreError("the GPU worker died", "a living one", "Look at its log and memory, then train with --resume.")


def _failed(task: Task, code: SlideCode, reason: str, remedy: str) -> Outcome:
    return Outcome(task.slide_id, task.stage, "failed", code, reason, remedy)
