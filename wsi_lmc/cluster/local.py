"""A scheduler in this process and workers in others, all on this machine and on loopback, with limits of memory."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from distributed import Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin
from distributed.system import MEMORY_LIMIT

from wsi_lmc.threads import available_cores

GPU, CPU = "GPU", "CPU"
"""Resources of workers: the first is for those that embed and train, the second for those that tile."""


_LEAST_MEMORY = 2 << 30  # bytes a worker may always have: libraries reserve more than they use
SCHEDULING = {
    "distributed.scheduler.allowed-failures": 0,  # who may be tried again is decided here, see Agenda
    "distributed.scheduler.worker-saturation": 1.0,  # nothing queues at a worker, so nothing else dies with it
}
_NO_PROFILE = {"distributed.worker.profile.enabled": False}  # 100 samples a second of all threads, nobody looks at


@dataclass(frozen=True)
class LocalWorkers:
    """Worker processes of this machine: each runs ``tasks`` at a time and, where there are ``gpus``, has one of them.

    ``gpus`` are names as CUDA_VISIBLE_DEVICES takes them. Cores are shared out evenly.
    """

    count: int
    tasks: int = 1
    gpus: Sequence[str] = ()


class MemoryLimit(WorkerPlugin):
    """Lets an allocation fail that exceeds a worker's share of the memory, before the system ends some process.

    dask's own limit looks at a worker five times a second, and a damaged slide can ask for everything at once.
    """

    name = "memory-limit"

    def __init__(self, workers: int) -> None:
        self.limit = max(int(MEMORY_LIMIT) // workers, _LEAST_MEMORY)

    def setup(self, worker: Worker) -> None:
        """Set it, on a worker that has just begun."""
        del worker
        try:
            import resource  # not on Windows
        except ImportError:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = self.limit if hard == resource.RLIM_INFINITY else min(self.limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def start(workers: LocalWorkers) -> SpecCluster:
    """A scheduler in this process and workers in others, all on loopback."""
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "nthreads": workers.tasks,
        "memory_limit": 1 / workers.count,
        "dashboard": False,
        "silence_logs": logging.ERROR,
    }
    spec: dict[int, Any] = {}
    for number in range(workers.count):
        own = dict(options)
        if workers.gpus:
            gpu = workers.gpus[number % len(workers.gpus)]
            own |= {"resources": {GPU: 1}, "env": {"CUDA_VISIBLE_DEVICES": gpu}}
        spec[number] = {"cls": Nanny, "options": own}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(spec, scheduler, silence_logs=cast(Any, logging.ERROR))  # a level, whatever its type says


def local_settings(workers: int) -> dict[str, Any]:
    """What dask is told about this machine: an even share of its cores for each of ``workers`` processes."""
    threads = str(max(1, available_cores() // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**SCHEDULING, **_NO_PROFILE, "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)}
