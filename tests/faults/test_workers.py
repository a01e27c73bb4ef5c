"""A slide that kills its worker, wants all memory or hangs fails alone; what ran beside it is done."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from wsi_lmc.cluster import DaskExecutor, LocalWorkers
from wsi_lmc.executor import Executor
from wsi_lmc.steps.outcome import Outcome, Stage

pytestmark = pytest.mark.row(2)


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
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "greedy":
            bytearray(psutil.virtual_memory().total // 4 * 3)
        case "hang":
            time.sleep(600)
        case "slowly":
            time.sleep(0.3)
    return Outcome(job.slide_id, "tile", "done", tiles=len(job.slide_id))


@pytest.fixture(scope="module", autouse=True)
def found_by_workers() -> Iterator[None]:
    """Workers import this file by its name, so they have to find its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def dask_executor(found_by_workers: None) -> Iterator[Executor]:
    with DaskExecutor(LocalWorkers(2)) as executor:
        yield executor


@pytest.mark.parametrize("how", ["crash", "segfault"])
def test_a_worker_that_dies_fails_its_slide_only(how: str, dask_executor: Executor) -> None:
    jobs = [Job("crashing", how), *(Job(f"fine{number}") for number in range(6))]
    found = {outcome.slide_id: outcome for outcome in dask_executor.run(do, jobs)}
    assert (found["crashing"].state, found["crashing"].code) == ("failed", "worker_died")
    assert {found[f"fine{number}"].state for number in range(6)} == {"done"}


def test_who_runs_beside_a_killer_is_not_blamed(tmp_path: Path) -> None:
    """Three tasks at a time in each worker: whatever ran beside the killer is done in the end, and by nobody twice."""
    jobs = [Job(f"s{number:02d}", "crash" if number in (3, 11) else "slowly", tmp_path) for number in range(24)]
    with DaskExecutor(LocalWorkers(2, tasks=3)) as executor:
        found = {outcome.slide_id: outcome for outcome in executor.run(do, jobs)}
    assert {name for name, outcome in found.items() if outcome.code == "worker_died"} == {"s03", "s11"}
    assert sum(outcome.state == "done" for outcome in found.values()) == 22
    assert len(list(tmp_path.glob("s03-*"))) == 3, "twice in company, then alone"


def test_a_slide_that_wants_more_memory_than_its_worker_has_fails_alone(dask_executor: Executor) -> None:
    jobs = [Job("greedy", "greedy"), *(Job(f"fine{number}") for number in range(4))]
    found = {outcome.slide_id: outcome for outcome in dask_executor.run(do, jobs)}
    assert (found.pop("greedy").code, {outcome.state for outcome in found.values()}) == ("out_of_memory", {"done"})


def test_a_slide_that_hangs_fails_alone_and_its_worker_goes_on() -> None:
    """What ran beside it in the same worker is done, too, once it is tried again."""
    jobs = [Job("hanging", "hang"), *(Job(f"s{number}", "slowly") for number in range(8)), Job("hanging too", "hang")]
    with DaskExecutor(LocalWorkers(2, tasks=2), slide_timeout_s=4) as executor:
        began = time.monotonic()
        found = {outcome.slide_id: outcome for outcome in executor.run(do, jobs)}
        assert time.monotonic() - began < 60
        again = list(executor.run(do, [Job("fine")]))
    assert {name for name, outcome in found.items() if outcome.code == "timed_out"} == {"hanging", "hanging too"}
    assert sum(outcome.state == "done" for outcome in found.values()) == 8
    assert [outcome.state for outcome in again] == ["done"]
