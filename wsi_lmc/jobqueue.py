"""Workers as jobs of a batch system (SLURM): submitted when they are needed, cancelled in the end.

The scheduler runs in this process, and whoever reaches it could run code here and in the jobs. So it speaks TLS with
certificates on both sides: those of dask's own settings where there are any, else a pair made for this run. Of that
pair, the jobs get the names of files that only their owner can read; nothing secret stands in a job's script or on a
command line. This is the only importer of dask_jobqueue.
"""

import getpass
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import dask
from annotated_doc import Doc
from distributed import Nanny, Scheduler, Security, SpecCluster
from distributed.deploy.spec import ProcessInterface

from wsi_lmc.errors import UsageError

GROUPS = ("cpu", "gpu")
"""Sections of a cluster file: the jobs that tile, and those that train and embed."""

_ASK_S = 30.0  # how often SLURM is asked for the jobs while no worker is there: a busy controller serves many users
_ANSWER_S = 60
_SLIDES_A_GPU = 4
_LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class JobConfig:
    """Jobs that are all alike: what each asks SLURM for, and which workers it runs."""

    jobs: Annotated[int, Doc("Jobs to submit.")] = 1
    cores: Annotated[int, Doc("Cores of a job.")] = 8
    memory_gib: Annotated[int, Doc("Memory of a job in GiB; its worker processes share it evenly.")] = 32
    gpus: Annotated[int, Doc("GPUs of a job; each has a worker process of its own.")] = 0
    processes: Annotated[
        int | None, Doc("Worker processes of a job without GPUs; by default one a core, as tiling wants it.")
    ] = None
    tasks: Annotated[
        int | None, Doc("Slides in work at once in a worker process; by default 1, and 4 where it has a GPU.")
    ] = None
    walltime_h: Annotated[float, Doc("Hours after which SLURM ends a job.")] = 4.0
    partition: Annotated[str | None, Doc("Partition (queue) of the jobs; by default the cluster's own.")] = None
    account: Annotated[str | None, Doc("Account that the jobs are charged to; by default yours.")] = None
    interface: Annotated[
        str | None,
        Doc(
            "Network interface, such as ib0, that scheduler and workers listen on; by default they listen on all, and "
            "are reached by the address of the machine's default route."
        ),
    ] = None
    directives: Annotated[Sequence[str], Doc("More options of sbatch, each as --name=value.")] = ()
    prologue: Annotated[Sequence[str], Doc("Lines of shell before the workers start, such as module load cuda.")] = ()
    folder: Annotated[
        str,
        Doc("Folder that all machines see, for the jobs' logs and, while the command runs, its TLS key."),
    ] = "wsi-lmc-jobs"

    def __post_init__(self) -> None:
        for name, least in {"jobs": 1, "cores": 1, "memory_gib": 1, "gpus": 0, "processes": 1, "tasks": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} = {value}", f"at least {least}", "Correct it.")
        if self.walltime_h * 60 < 1:
            raise UsageError(f"walltime_h = {self.walltime_h:g}", "a minute or more", "Give it in hours.")
        if self.gpus and self.processes is not None:
            found = f"processes = {self.processes} beside gpus = {self.gpus}"
            raise UsageError(found, "one worker process a GPU", "Leave processes out.")

    @property
    def workers(self) -> int:
        """Worker processes of a job."""
        return self.gpus or self.processes or self.cores

    @property
    def slides_at_once(self) -> int:
        """Tasks that a worker process has in work."""
        return self.tasks or (_SLIDES_A_GPU if self.gpus else 1)


class Jobs:
    """The scheduler and its jobs, for as long as this is open.

    Raises:
        UsageError: a package or sbatch is not there, sbatch refused, or the scheduler cannot listen as it should.
    """

    def __init__(self, config: JobConfig, settings: Mapping[str, Any]) -> None:
        """``settings`` are dask's, for the scheduler."""
        if shutil.which("sbatch") is None:
            raise UsageError("no sbatch on this machine", "a machine that submits to SLURM", "Run it on a login node.")
        self.folder = _folder(config)
        with ExitStack() as opened:
            private = Path(opened.enter_context(TemporaryDirectory(prefix=".tls-", dir=self.folder)))
            security = make_security(private)
            # HTTP pages would tell other users of a login node the names of slides
            with dask.config.set({**settings, "distributed.scheduler.http.routes": []}):
                self.cluster = _submit(config, self.folder, security)
            opened.enter_context(closing(self.cluster))
            self._ids = {str(cast(Any, job).job_id) for job in self.cluster.workers.values()}
            self._asked = time.monotonic()
            self._opened = opened.pop_all()

    def check(self) -> None:
        """To be called while no worker is there.

        Raises:
            UsageError: all jobs have ended, so that none will ever come.
        """
        if time.monotonic() - self._asked < _ASK_S:
            return
        self._asked = time.monotonic()
        queued = _queued()
        if queued is not None and not queued & self._ids:
            raise UsageError(
                f"all {len(self._ids)} jobs have ended, and there is work left",
                "jobs that run until the end",
                f"See their logs in {self.folder}; give them what they lack (walltime_h, memory_gib, interface), then "
                "run the same command again: it goes on from what is done.",
            )

    def close(self) -> None:
        """Cancel the jobs and remove the key."""
        self._opened.close()


def dask_setup(nanny: Nanny) -> None:
    """Give a worker the GPU of its number among those of its job.

    Dask calls this by its name in the process that is about to start the worker (``--preload-nanny``).
    """
    number = int(str(nanny.name).rpartition("-")[2])
    gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    nanny.env["CUDA_VISIBLE_DEVICES"] = gpus[number] if number < len(gpus) else str(number)


def job_options(config: JobConfig, folder: Path, security: Security) -> dict[str, Any]:
    """What dask-jobqueue makes the script of a job from."""
    threads = max(1, config.cores // config.workers)
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    minutes = int(config.walltime_h * 60)
    directives = [f"--gres=gpu:{config.gpus}"] if config.gpus else []
    arguments = ["--no-dashboard", "--dashboard-address", _LOOPBACK]
    if config.gpus:
        arguments += ["--resources", "GPU=1"]
    if config.gpus > 1:
        arguments += ["--preload-nanny", __name__]
    return {
        "job_name": "wsi-lmc",
        "cores": config.workers * config.slides_at_once,  # to dask, threads of workers
        "job_cpu": config.cores,
        "memory": f"{config.memory_gib}GiB",
        "processes": config.workers,
        "walltime": f"{minutes // 60:02}:{minutes % 60:02}:00",
        "queue": config.partition,
        "account": config.account,
        "interface": config.interface,
        "protocol": "tls",
        "security": security,
        "python": shlex.quote(sys.executable),
        "worker_extra_args": arguments,
        "job_extra_directives": [*directives, *config.directives],
        "job_script_prologue": [*(f"export {name}={threads}" for name in variables), *config.prologue],
        "log_directory": str(folder),
    }


def make_security(private: Path) -> Security:
    """Dask's own TLS settings, or a certificate for this run; what a worker needs of it lies in files.

    ``private`` is the folder for those that are none yet.
    """
    security = Security(require_encryption=True)
    if not security.tls_ca_file:
        try:
            security = Security.temporary()
        except ImportError as error:
            raise _missing("cryptography") from error
    security.tls_worker_key = security.tls_worker_key or security.tls_worker_cert  # one file may hold both
    for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        value = getattr(security, name)
        if value and "\n" in value:  # the credential itself, which dask would put on the worker's command line
            path = private / f"{name}.pem"
            path.touch(mode=0o600)
            path.write_text(value, encoding="ascii")
            setattr(security, name, str(path))
    return security


def _submit(config: JobConfig, folder: Path, security: Security) -> SpecCluster:
    """A scheduler in this process, and jobs that have been accepted; dask-jobqueue's own cluster would not say so."""
    job: dict[str, Any] = {"cls": _job_class(), "options": job_options(config, folder, security)}
    if config.workers > 1:
        job["group"] = [f"-{number}" for number in range(config.workers)]  # as dask numbers the workers of a job
    scheduler_options = {
        "protocol": "tls",
        "interface": config.interface,
        "security": security,
        "dashboard": False,
        "dashboard_address": _LOOPBACK,
    }
    try:
        return SpecCluster(
            {f"wsi-lmc-{number}": job for number in range(config.jobs)},
            {"cls": Scheduler, "options": scheduler_options},
            security=security,
            silence_logs=cast(Any, logging.ERROR),  # a level, whatever its type says
        )
    except (OSError, RuntimeError, ValueError) as error:
        said = str(error).rpartition("stderr:")[2].strip() or str(error)
        raise UsageError(
            f"the jobs cannot be started: {said}", "jobs that SLURM accepts", "Correct the file."
        ) from error


def _job_class() -> type[ProcessInterface]:
    """A job of SLURM that is known to be closed once it is; dask-jobqueue's own stays "running", which dask asserts."""
    try:
        from dask_jobqueue.slurm import SLURMJob
    except ImportError as error:
        raise _missing("dask-jobqueue") from error

    class Job(SLURMJob):
        async def close(self) -> None:
            await super().close()
            await ProcessInterface.close(self)

    return Job


def _folder(config: JobConfig) -> Path:
    folder = Path(config.folder).expanduser().resolve()
    if shlex.quote(str(folder)) != str(folder):
        raise UsageError(
            f"folder {folder} has a blank or another special character in its path",
            "a path that a job's script can name",
            "Name another with folder:.",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _queued() -> set[str] | None:
    """Numbers of this user's jobs that wait or run; None where SLURM does not say."""
    command = ["squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ANSWER_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())


def _missing(package: str) -> UsageError:
    return UsageError(f"no package {package}", "the extra slurm", "Run: pip install 'wsi-lmc[slurm]'.")
