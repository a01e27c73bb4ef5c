"""Workers as jobs: what SLURM is asked for, what stays secret, and real workers started by stand-ins for it."""

import csv
import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from dask_jobqueue.slurm import SLURMJob
from distributed import Client, Security

from tests.slurm import Slurm
from wsi_lmc.cluster import DaskExecutor
from wsi_lmc.commands.common import jobs_for
from wsi_lmc.config import build, settings_of
from wsi_lmc.errors import UsageError
from wsi_lmc.jobqueue import JobConfig, Jobs, job_options, make_security

ENCODER = "untrained:vit-demo"
SMALL = {"cores": 1, "memory_gib": 2, "interface": "lo"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """SLURM's programs, found first; whatever their jobs left over is a failure of its own."""
    slurm = Slurm(tmp_path / "slurm").install()
    monkeypatch.setenv("PATH", str(slurm.programs), prepend=os.pathsep)
    return slurm


def small(folder: Path, **own: Any) -> JobConfig:
    return JobConfig(**{**SMALL, "folder": str(folder / "shared"), **own})


def script(config: JobConfig, folder: Path) -> str:
    """The script of a job, as dask-jobqueue makes it."""
    options = job_options(config, folder, make_security(folder))
    return SLURMJob("tls://10.0.0.1:4711", name="wsi-lmc-0", **options).job_script()


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsi_lmc", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


def test_a_script_asks_for_what_the_file_says(tmp_path: Path) -> None:
    config = JobConfig(
        cores=16, memory_gib=64, walltime_h=36.5, partition="long", account="lab",
        directives=["--constraint=avx512"], prologue=["module load gcc"],
    )  # fmt: skip
    lines = script(config, tmp_path).splitlines()
    wanted = ["-p long", "-A lab", "--cpus-per-task=16", "--mem=64G", "-t 36:30:00", "--constraint=avx512"]
    assert {f"#SBATCH {words}" for words in wanted} <= set(lines)
    assert {"module load gcc", "export OMP_NUM_THREADS=1"} <= set(lines)
    assert "gres" not in "".join(lines)
    worker = lines[-1]
    for words in ("--nworkers 16", "--nthreads 1", "--memory-limit 4.00GiB", "--no-dashboard", "--protocol tls"):
        assert words in worker


def test_a_worker_process_a_gpu(tmp_path: Path) -> None:
    text = script(JobConfig(cores=24, gpus=4, interface="ib0"), tmp_path)
    assert "#SBATCH --gres=gpu:4\n" in text
    assert "#SBATCH --cpus-per-task=24\n" in text
    assert "export OMP_NUM_THREADS=6\n" in text
    for words in ("--nworkers 4", "--nthreads 4", "--resources GPU=1", "--interface ib0"):
        assert words in text


def test_credentials_of_a_run_are_for_their_owner_and_no_script(tmp_path: Path) -> None:
    security = make_security(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert security.tls_worker_key in {str(path) for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    text = script(JobConfig(), tmp_path)
    assert f"--tls-key {tmp_path}/" in text
    assert "BEGIN" not in text
    secret = Path(str(security.tls_worker_key)).read_text().splitlines()
    assert secret[0] == "-----BEGIN PRIVATE KEY-----"
    assert not any(line in text for line in secret)


@pytest.mark.parametrize("as_text", [False, True])
def test_credentials_of_dask_are_used(as_text: bool, tmp_path: Path) -> None:
    """One file holds certificate and key, as dask allows it; or its settings hold what would stand in the file."""
    made = Security.temporary()
    text = f"{made.tls_worker_cert}{made.tls_worker_key}"
    (tmp_path / "own.pem").write_text(text)
    own = text if as_text else str(tmp_path / "own.pem")
    roles = {f"distributed.comm.tls.{role}.cert": own for role in ("client", "scheduler", "worker")}
    private = tmp_path / "private"
    private.mkdir()
    with dask.config.set({"distributed.comm.tls.ca-file": own, **roles}):
        found = make_security(private)
        line = script(JobConfig(), private).splitlines()[-1]
    assert found.require_encryption
    assert Path(str(found.tls_worker_cert)).read_text() == text
    assert Path(str(found.tls_worker_key)).read_text() == text
    assert "None" not in line
    assert bool(list(private.iterdir())) == as_text
    assert found.get_connection_args("worker")["ssl_context"]


def test_workers_speak_tls_have_a_gpu_each_and_end(slurm: Slurm, tmp_path: Path) -> None:
    config = small(tmp_path, gpus=2)
    with closing(Jobs(config, {})) as jobs, Client(jobs.cluster) as client:
        client.wait_for_workers(2, timeout=60)
        address = jobs.cluster.scheduler_address
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert address.startswith("tls://127.0.0.1:")
        assert all(name.startswith("tls://127.0.0.1:") for name in workers)
        assert [worker["resources"] for worker in workers.values()] == [{"GPU": 1}, {"GPU": 1}]
        found: Any = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert set(found.values()) == {"5", "7"}
        with pytest.raises(OSError, match=r"(?i)time|handshake|tls"):
            Client(address, security=Security.temporary(), timeout=2)
        with pytest.raises(OSError, match=r"(?i)time|handshake|tcp"):
            Client(address.replace("tls", "tcp"), security=Security(), timeout=2)
        listening = {
            connection.laddr.ip
            for process in [psutil.Process(), *slurm.running()]
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        arguments = " ".join(word for process in slurm.running() for word in process.cmdline())
        assert "--tls-key" in arguments
        assert "BEGIN" not in arguments
    assert slurm.left() == []
    assert [path for path in jobs.folder.iterdir() if path.name.startswith(".tls")] == []


def test_a_cohort_is_tiled_and_embedded_by_jobs(slurm: Slurm, small_cohort: Path, tmp_path: Path) -> None:
    slides = sorted((small_cohort / "slides").glob("north*"))
    assert len(slides) == 2
    shared = "\n".join(f"  {name}: {value}" for name, value in SMALL.items())
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(f"cpu:\n  jobs: 2\n{shared}\ngpu:\n  gpus: 1\n{shared}\n")
    tiled = run("tile", *slides, "-o", "out", "--cluster", cluster, cwd=tmp_path)
    assert tiled.returncode == 0, tiled.stderr + slurm.output()
    assert "2 done" in tiled.stdout
    embedded = run("embed", "out", "-o", "out", "--encoder", ENCODER, "--cluster", cluster, cwd=tmp_path)
    assert embedded.returncode == 0, embedded.stderr + slurm.output()
    with (tmp_path / "out" / "slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done"] * 2
    assert len(list((tmp_path / "out" / "features").glob("*.zarr"))) == 2
    assert [("gres" in text, "dask_worker tls://127.0.0.1:" in text) for text in slurm.scripts()] == [
        (False, True), (False, True), (True, True),
    ]  # fmt: skip
    assert slurm.left() == []


def test_what_sbatch_says_is_said_and_accepted_jobs_are_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    sbatch = (slurm.programs / "sbatch").read_text()
    refusal = '#!/bin/sh\necho "sbatch: error: invalid partition specified: fast" >&2; exit 1\n'
    once = refusal.replace("echo", f'mkdir "{tmp_path}/first" 2>/dev/null && exec "$0.first" "$1"; echo', 1)
    slurm.write("sbatch.first", sbatch)
    slurm.write("sbatch", once)
    with pytest.raises(UsageError, match="sbatch: error: invalid partition specified: fast"):
        Jobs(small(tmp_path, jobs=2, prologue=["sleep 1000"]), {})
    assert len(slurm.scripts()) == 1
    assert slurm.left() == []


def test_jobs_that_end_at_once_are_not_waited_for(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_lmc.jobqueue._ASK_S", 0)
    with pytest.raises(UsageError, match=r"all 2 jobs have ended.*See their logs in .*shared"):
        DaskExecutor(small(tmp_path, jobs=2, prologue=["exit 1"]))
    assert slurm.left() == []


def test_jobs_are_waited_for_while_slurm_does_not_answer(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_lmc.jobqueue._ASK_S", 0)
    slurm.write("squeue", "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    with closing(Jobs(small(tmp_path, prologue=["exit 1"]), {})) as jobs:
        assert slurm.left() == []
        jobs.check()


def test_ending_the_command_ends_jobs_that_still_queue(slurm: Slurm, small_cohort: Path, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("cpu:\n  interface: lo\n  jobs: 2\n  prologue: [sleep 1000]\n")
    command = [sys.executable, "-m", "wsi_lmc", "tile", small_cohort / "slides", "--cluster", cluster]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while len(slurm.running()) < 6 and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "the same command goes on from there" in said
    assert slurm.left() == []


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no sbatch on this machine"):
        Jobs(small(tmp_path), {})


@pytest.mark.parametrize(
    ("module", "package"), [("dask_jobqueue.slurm", "dask-jobqueue"), ("cryptography", "cryptography")]
)
def test_a_missing_package_is_named(
    module: str, package: str, slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"no package {package}.*pip install 'wsi-lmc\[slurm\]'"):
        Jobs(small(tmp_path), {})


def test_an_interface_that_is_not_there(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be started: .*nowhere0"):
        Jobs(small(tmp_path, interface="nowhere0"), {})
    assert slurm.scripts() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"jobs": 0}, "jobs = 0; expected at least 1"),
        ({"gpus": -1}, "gpus = -1"),
        ({"walltime_h": 0}, "walltime_h = 0"),
        ({"gpus": 2, "processes": 4}, "one worker process a GPU"),
        ({"folder": "my jobs"}, "special character"),
    ],
)
def test_jobs_that_make_no_sense(wrong: dict[str, Any], said: str, slurm: Slurm) -> None:
    with pytest.raises(UsageError, match=said):
        Jobs(JobConfig(**wrong), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu:\n  walltime: 4\n", r"section cpu: unknown key 'walltime'.*Did you mean walltime_h\?"),
        ("gpus:\n  jobs: 4\n", r"unknown key 'gpus'.*Did you mean gpu\?"),
        ("gpu:\n  memory_gib: 64G\n", "memory_gib = '64G'"),
        ("gpu:\n  prologue: module load cuda\n", "prologue = 'module load cuda'"),
        ("{}\n", "no jobs in"),
    ],
)
def test_a_cluster_file_is_strict(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        jobs_for("gpu", path, None)


def test_a_command_takes_its_section_or_the_only_one(tmp_path: Path) -> None:
    both, one = tmp_path / "both.yaml", tmp_path / "one.yaml"
    both.write_text("cpu:\n  cores: 3\ngpu:\n  cores: 5\n")
    one.write_text("gpu:\n  cores: 5\n")
    found = [jobs_for(section, path, None) for path in (both, one) for section in ("cpu", "gpu")]
    assert [config.cores for config in found if config] == [3, 5, 5, 5]
    assert jobs_for("cpu", None, None) is None
    with pytest.raises(UsageError, match="both --cluster and --scheduler"):
        jobs_for("cpu", one, "tls://10.0.0.1:8786")


def test_training_needs_a_gpu_job(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("cpu:\n  cores: 3\n")
    result = run("train", "--cluster", path, cwd=tmp_path)
    assert (result.returncode, "no jobs with GPUs" in result.stderr) == (2, True)


def test_the_guide_shows_every_setting_and_they_are_valid() -> None:
    import yaml

    text = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
    example = next(
        block for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if "cpu:" in block
    )
    sections = yaml.safe_load(example)
    configs = {name: build(JobConfig, values, name) for name, values in sections.items()}
    assert (configs["cpu"].gpus, configs["gpu"].gpus) == (0, 1)
    assert {setting.name for setting in settings_of(JobConfig)} <= set(re.findall(r"\w+", text))
