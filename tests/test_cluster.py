"""One test body over both executors: what a step raises becomes an outcome, and the others go on."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from wsi_lmc.cluster import DaskExecutor, Executor, SerialExecutor, make_executor
from wsi_lmc.errors import SlideError, StoreError, UsageError
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
        (job.trace / f"{job.slide_id}-{os.getpid()}").touch()
    match job.how:
        case "slide":
            raise SlideError("damaged", "half a file", "a whole one", "Copy it again.")
        case "store":
            raise StoreError("no store", "a store", "Make it.")
        case "disk":
            raise OSError(28, "No space left on device")
        case "bug":
            raise ZeroDivisionError("a bug")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(job.slide_id, "tile", "done", tiles=len(job.slide_id))


def where() -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def dask_executor() -> Iterator[Executor]:
    # Workers import this file by its name, so they have to find its folder.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    try:
        with DaskExecutor(workers=2) as executor:
            yield executor
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@pytest.fixture(params=["serial", "dask"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return SerialExecutor() if request.param == "serial" else request.getfixturevalue("dask_executor")


def test_every_failure_is_an_outcome_and_the_others_go_on(executor: Executor) -> None:
    jobs = [Job("good"), Job("a", "slide"), Job("bb", "store"), Job("ccc", "disk"), Job("dddd", "bug"), Job("last")]
    found = {outcome.slide_id: outcome for outcome in executor.run(do, jobs)}
    assert {name: (outcome.state, outcome.code) for name, outcome in found.items()} == {
        "good": ("done", ""),
        "a": ("failed", "damaged"),
        "bb": ("failed", "store"),
        "ccc": ("failed", "io"),
        "dddd": ("failed", "internal"),
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
    ran = {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}
    assert os.getpid() not in ran


def test_a_worker_that_dies_fails_its_slide_only(dask_executor: Executor) -> None:
    jobs = [Job("crashing", "crash"), *(Job(f"fine{number}") for number in range(6))]
    found = {outcome.slide_id: outcome for outcome in dask_executor.run(do, jobs)}
    assert (found["crashing"].state, found["crashing"].code) == ("failed", "worker_died")
    assert {found[f"fine{number}"].state for number in range(6)} == {"done"}


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
    with cluster, make_executor(0, cluster.scheduler_address) as executor:
        assert executor.has_gpu()
        assert executor.call(os.getpid) != os.getpid()


@pytest.mark.parametrize(
    ("address", "said"), [("tcp://127.0.0.1:9", "no dask scheduler answers"), ("tcp://10.1.2.3:8786", "not encrypted")]
)
def test_a_scheduler_that_cannot_be_used_is_a_usage_error(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_lmc.cluster._CONNECT_S", 1)
    with pytest.raises(UsageError, match=said):
        make_executor(1, address)


def test_worker_numbers() -> None:
    assert isinstance(make_executor(0), SerialExecutor)
    with pytest.raises(UsageError, match="--workers -1"):
        make_executor(-1)
