"""The command line on request, each command in a process of its own that may meet faults: see ``Commands``.

Everything is imported once and each command is a fork that calls the program's own entry, so that a command takes as
long as its work. The parent computes nothing itself: threads do not survive a fork.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.faults.injection import Counters, faulty
from wsi_lmc.cli import COMMANDS, module_of

_LATE = (  # what commands import when they need it
    "torch.utils.tensorboard",
    "timm",
    "openslide",
    "tiffslide",
    "wsi_lmc.training.run",
    "wsi_lmc.steps.embed",
)


class Commands:
    """The process that runs commands; a context manager.

    ``shim`` is the library that injects faults; its ``counters`` are begun anew with every command.
    """

    def __init__(self, folder: Path, shim: Path | None = None) -> None:
        self.counters = Counters(folder / "counters")
        self._told = folder / "told"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(self._told)],
            env=faulty(shim, self.counters) if shim else os.environ | {"COLUMNS": "120", "OMP_NUM_THREADS": "1"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        **faults: object,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``wsi-lmc`` with these arguments in ``cwd``; faults are named as in ``shim.c`` without FAULT_."""
        self.counters.reset()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        named = {f"FAULT_{name.upper()}": str(value) for name, value in faults.items()} | dict(environment or {})
        words = list(map(str, arguments))
        self._process.stdin.write(json.dumps([words, named, str(cwd or Path.cwd())]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        out, err = (self._told.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return subprocess.CompletedProcess(words, status, out, err)

    def __enter__(self) -> "Commands":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)


def main() -> None:
    """Serve requests, a line of JSON each, until there are no more."""
    for name in (*map(module_of, COMMANDS), *_LATE):
        importlib.import_module(name)
    told = Path(sys.argv[1])
    for line in sys.stdin:
        words, faults, cwd = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            os.chdir(cwd)
            _serve(words, faults, told)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _serve(words: list[str], faults: dict[str, str], told: Path) -> None:
    """Be the command, and end with its exit code."""
    from wsi_lmc.cli import main as cli

    for number, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(told.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.environ.update(faults)
    sys.argv = ["wsi-lmc", *words]
    code: Any = 1
    try:
        cli()
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  as the interpreter does it
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
