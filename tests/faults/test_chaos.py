"""Workers and schedulers are killed in the middle of embedding: all slides come out whole, little is done twice."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from wsi_lmc.cluster import DaskExecutor, LocalWorkers
from wsi_lmc.cohort import find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_features
from wsi_lmc.runfolder import outcomes
from wsi_lmc.steps.embed import EmbedTask, embed_slide
from wsi_lmc.steps.outcome import Outcome, Split
from wsi_lmc.steps.tile import TileConfig, TileTask
from wsi_lmc.synthetic import write_cohort

pytestmark = pytest.mark.row(23)
ENCODER = "untrained:vit-demo"
CONFIG = EmbedConfig(batch=4, block=4, device="cpu")
TRACES = "WSI_LMC_TEST_TRACES"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, {"north": 4, "south": 4}, seed=3, size=(1536, 1280))
    return folder / "slides"


@pytest.fixture(scope="module")
def expected(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of an undisturbed run, in this process, without blocks."""
    out = tmp_path_factory.mktemp("expected")
    config = EmbedConfig(batch=4, device="cpu")
    found = embed_cohort(
        EmbedInputs(slides=find_slides([str(slides)])), ENCODER, out, config, RunOptions(SerialExecutor())
    )
    assert [outcome.state for outcome in found] == ["done"] * 8
    return out


def traced(task: EmbedTask) -> Outcome | Split[EmbedTask]:
    """Embeds slowly, and leaves a trace of every block that was finished."""
    time.sleep(0.05)
    result = embed_slide(task)
    if task.part is not None:
        Path(os.environ[TRACES], f"{task.slide_id}.{task.part}.{time.monotonic_ns()}").touch()
    return result


def _workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [
        child for child in process.children(recursive=True) if any("spawn_main" in part for part in child.cmdline())
    ]


def _same(found: Path, expected: Path) -> None:
    ours, theirs = find_features(found), find_features(expected)
    assert [store.slide_id for store in ours] == [store.slide_id for store in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.features.tobytes() == other.features.tobytes()
        assert one.attributes["sha256"] == other.attributes["sha256"]


def test_workers_killed_at_random_lose_their_blocks_only(
    slides: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = tmp_path / "traces"
    traces.mkdir()
    monkeypatch.setenv(TRACES, str(traces))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    rng = random.Random(5)  # noqa: S311  any victim will do
    sha256 = load_encoder(ENCODER, resolve_device("cpu")).sha256
    tasks = [
        EmbedTask(entry.slide_id, TileTask(entry, tmp_path, TileConfig()), tmp_path, ENCODER, sha256, CONFIG)
        for entry in find_slides([str(slides)])
    ]
    killed, running = 0, 3
    with DaskExecutor(LocalWorkers(2, tasks=running)) as executor:
        found = []
        deadline = time.monotonic()
        for outcome in executor.run(traced, tasks):
            found.append(outcome)
            if killed < 4 and time.monotonic() > deadline:
                rng.choice(_workers_of(psutil.Process())).send_signal(signal.SIGKILL)
                killed += 1
                deadline = time.monotonic() + 1.0
    assert killed >= 2
    assert Counter(outcome.state for outcome in found) == {"done": 8}
    _same(tmp_path, expected)
    done = Counter(path.name.rsplit(".", 1)[0] for path in traces.iterdir())
    assert len(done) > 16
    assert sum(done.values()) - len(done) <= running * killed
    assert not list((tmp_path / ".parts").iterdir())
    assert not list((tmp_path / ".working").iterdir())


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _dask(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class _Cluster:
    """A dask scheduler and a worker, as one starts them by hand."""

    def __init__(self, port: int) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = _dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.worker = _dask("worker", self.address, "--host", "127.0.0.1", "--nthreads", "2", "--no-dashboard")

    def stop(self) -> None:
        for process in (self.scheduler, self.worker):
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait()


@pytest.fixture
def cluster() -> Iterator[_Cluster]:
    found = _Cluster(_free_port())
    yield found
    found.stop()


def test_a_scheduler_that_dies_is_told_and_the_same_command_goes_on(
    slides: Path, expected: Path, tmp_path: Path, cluster: _Cluster
) -> None:
    command = [
        sys.executable, "-m", "wsi_lmc", "embed", str(slides), "--encoder", ENCODER, "-o", str(tmp_path), "--quiet",
        "--batch", "4", "--block", "4", "--device", "cpu", "--scheduler", cluster.address,
    ]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (done := outcomes(tmp_path, "embed")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    cluster.scheduler.kill()
    _, said = running.communicate(timeout=90)
    assert running.returncode == 2
    assert re.search("scheduler .*gone away", said), said
    assert "Traceback" not in said, said
    cluster.stop()

    before = {outcome.slide_id: (tmp_path / "features" / f"{outcome.slide_id}.zarr").stat().st_ino for outcome in done}
    again = _Cluster(int(cluster.address.rsplit(":", 1)[1]))
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        again.stop()
    assert result.returncode == 0, result.stderr
    assert "before" in result.stdout
    for slide_id, inode in before.items():
        assert (tmp_path / "features" / f"{slide_id}.zarr").stat().st_ino == inode
    _same(tmp_path, expected)
