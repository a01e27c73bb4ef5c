"""One test body over both executors: what a step raises becomes an outcome, and the others go on."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from wsi_lmc.cluster import DaskExecutor, LocalWorkers, make_executor
from wsi_lmc.errors import SlideError, StoreError, UsageError
from wsi_lmc.executor import Executor, SerialExecutor
from wsi_lmc.steps.outcome import Outcome, Stage


@dataclass(frozen=True)
class Job:
    """A task that behaves as it is told."""

    slide_id: str
    how: str = "well"
    trace: Path | None = None

    @property
    def stage(self) -> Stage:
        return "tile"


def do(job: Job) -> Outcome:
    if job.trace:
        (job.trace / f"{job.slide_id}-{time.monotonic_ns()}-{os.getpid()}").touch()
    match job.how:
        case "slide":
            raise SlideError("damaged", "half a file", "a whole one", "Copy it again.")
        case "store":
            raise StoreError("no store", "a store", "Make it.")
        case "disk" | "full":
            raise OSError({"disk": errno.EACCES, "full": errno.ENOSPC}[job.how], "says the system")
        case "bug":
            raise ZeroDivisionError("a bug")
        case "slowly":
            time.sleep(0.3)
    return Outcome(job.slide_id, "tile", "done", tiles=len(job.slide_id))


def where() -> int:
    return os.getpid()


@pytest.fixture(scope="module", autouse=True)
def found_by_workers() -> Iterator[None]:
    """Workers import this file by its name, so they have to find its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def dask_executor(found_by_workers: None) -> Iterator[Executor]:
    with DaskExecutor(LocalWorkers(2)) as executor:
        yield executor


@pytest.fixture(params=["serial", "dask"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return SerialExecutor() if request.param == "serial" else request.getfixturevalue("dask_executor")


def test_every_failure_is_an_outcome_and_the_others_go_on(executor: Executor) -> None:
    jobs = [
        Job("good"),
        Job("a", "slide"),
        Job("bb", "store"),
        Job("ccc", "disk"),
        Job("dddd", "bug"),
        Job("e", "full"),
    ]
    jobs.append(Job("last"))
    found = {outcome.slide_id: outcome for outcome in executor.run(do, jobs)}
    assert {name: (outcome.state, outcome.code) for name, outcome in found.items()} == {
        "good": ("done", ""),
        "a": ("failed", "damaged"),
        "bb": ("failed", "store"),
        "ccc": ("failed", "io"),
        "dddd": ("failed", "internal"),
        "e": ("failed", "disk_full"),
        "last": ("done", ""),
    }
    assert found["a"].reason == "half a file; expected a whole one"
    assert found["a"].remedy == "Copy it again."
    assert "ZeroDivisionError" in found["dddd"].detail
    assert found["good"].tiles == 4


def test_no_tasks_no_outcomes(executor: Executor) -> None:
    assert list(executor.run(do, [])) == []


def test_without_a_gpu_worker_a_call_stays_here(executor: Executor) -> None:
    assert not executor.has_gpu()
    assert executor.call(where) == os.getpid()


def test_tasks_run_in_worker_processes(dask_executor: Executor, tmp_path: Path) -> None:
    list(dask_executor.run(do, [Job(f"s{number}", trace=tmp_path) for number in range(4)]))
    ran = {int(path.name.split("-")[2]) for path in tmp_path.iterdir()}
    assert os.getpid() not in ran


def environment(name: str) -> str:
    time.sleep(0.2)
    return os.environ.get(name, "")


def visible(job: Job) -> Outcome:
    return Outcome(job.slide_id, "embed", "done", reason=environment("CUDA_VISIBLE_DEVICES"))


def test_every_gpu_has_a_worker_and_every_worker_a_gpu() -> None:
    with DaskExecutor(LocalWorkers(2, tasks=4, gpus=("5", "GPU-abc"))) as executor:
        assert executor.has_gpu()
        found = list(executor.run(visible, [Job(str(number)) for number in range(12)], on_gpu=True))
        assert {outcome.reason for outcome in found} == {"5", "GPU-abc"}
        assert executor.call(environment, "CUDA_VISIBLE_DEVICES") in {"5", "GPU-abc"}


@pytest.mark.parametrize("on_gpu", [True, False])
def test_workers_do_what_their_resources_are_for(on_gpu: bool) -> None:
    """In a cluster with both kinds, tiling stays off the GPU workers and embedding off the others."""
    from distributed import Nanny, Scheduler, SpecCluster

    def nanny(kind: str) -> dict[str, Any]:
        own = {"nthreads": 4, "resources": {kind: 2}, "env": {"KIND": kind}}
        return {"cls": Nanny, "options": {"host": "127.0.0.1", "dashboard": False, **own}}

    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with (
        closing(SpecCluster({0: nanny("CPU"), 1: nanny("GPU")}, scheduler)) as cluster,
        DaskExecutor(cluster.scheduler_address) as executor,
    ):
        found = list(executor.run(kind_of, [Job(str(number)) for number in range(6)], on_gpu=on_gpu))
        assert {outcome.reason for outcome in found} == {"GPU" if on_gpu else "CPU"}


def kind_of(job: Job) -> Outcome:
    return Outcome(job.slide_id, "embed", "done", reason=environment("KIND"))


def test_nothing_listens_beyond_loopback(dask_executor: Executor) -> None:
    del dask_executor
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    addresses = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_gpu_workers_of_a_running_cluster_are_used(tmp_path: Path) -> None:
    from distributed import LocalCluster

    cluster: Any = LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", resources={"GPU": 1}
    )
    with cluster, make_executor(LocalWorkers(0), cluster.scheduler_address) as executor:
        assert executor.has_gpu()
        assert executor.call(os.getpid) != os.getpid()


@pytest.mark.parametrize(
    ("address", "said"), [("tcp://127.0.0.1:9", "no dask scheduler answers"), ("tcp://10.1.2.3:8786", "not encrypted")]
)
def test_a_scheduler_that_cannot_be_used_is_a_usage_error(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_lmc.cluster.executor._CONNECT_S", 1)
    with pytest.raises(UsageError, match=said):
        make_executor(LocalWorkers(1), address)


def test_worker_numbers() -> None:
    assert isinstance(make_executor(LocalWorkers(0)), SerialExecutor)
    with pytest.raises(UsageError, match="--workers -1"):
        make_executor(LocalWorkers(-1))
