"""A SLURM of one machine: sbatch starts a job at once in the background, squeue lists jobs, scancel ends one."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_SBATCH = """#!/bin/sh
jobs=$(dirname "$0")/../jobs
cp "$1" "$jobs/$$.sh"
touch "$jobs/$$.queued"
setsid sh -c 'CUDA_VISIBLE_DEVICES=5,7 sh "$0.sh"; rm -f "$0.queued"' "$jobs/$$" >"$jobs/$$.out" 2>&1 </dev/null &
echo $! >"$jobs/$$.group"
echo "Submitted batch job $$"
"""
_SCANCEL = """#!/bin/sh
jobs=$(dirname "$0")/../jobs
rm -f "$jobs/$1.queued"
kill -TERM "-$(cat "$jobs/$1.group")"
"""
_SQUEUE = """#!/bin/sh
cd "$(dirname "$0")/../jobs" && ls | sed -n 's/[.]queued$//p'
"""
_ENDING_S = 15


@dataclass(frozen=True)
class Slurm:
    """Where the stand-ins lie, and what became of their jobs."""

    folder: Path

    @property
    def programs(self) -> Path:
        """The folder to be found on PATH."""
        return self.folder / "bin"

    def install(self) -> "Slurm":
        """Write the programs."""
        self.programs.mkdir(parents=True)
        (self.folder / "jobs").mkdir()
        for name, text in (("sbatch", _SBATCH), ("scancel", _SCANCEL), ("squeue", _SQUEUE)):
            self.write(name, text)
        return self

    def write(self, name: str, text: str) -> None:
        """Put a program in the place of what has its name."""
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o700)

    def scripts(self) -> list[str]:
        """Texts of the jobs' scripts, in the order they came."""
        found = sorted((self.folder / "jobs").glob("*.sh"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_text() for path in found]

    def output(self) -> str:
        """What all jobs printed."""
        return "".join(path.read_text() for path in (self.folder / "jobs").glob("*.out"))

    def left(self) -> list[psutil.Process]:
        """Processes of jobs that still run when those that are about to end have had their time."""
        until = time.monotonic() + _ENDING_S
        while (found := self.running()) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def running(self) -> list[psutil.Process]:
        """Processes of jobs."""
        groups = {int(path.read_text()) for path in (self.folder / "jobs").glob("*.group")}
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found
