"""Whether locks exclude: two real processes ask for one, and one of them is killed while it has it.

``python -m wsi_lmc.doctor.locking FOLDER`` is the other process: it says ``held`` or ``refused``, and waits.
"""

import subprocess
import sys
from pathlib import Path

from wsi_lmc.doctor.check import expect
from wsi_lmc.publish import exclusive

_NAME = "doctor"
_FREED_S = 10.0


def try_locks(folder: Path) -> str:
    """Try what every run relies on.

    Raises:
        ValueError: a lock does not do it.
    """
    with exclusive(folder, _NAME, wait_s=0.0) as mine:
        expect(mine, "a lock that nobody has cannot be had")
        other = _other(folder)
        refused = _said(other) == "refused"
        other.kill()
        other.wait()
        expect(refused, "two processes have the same lock at a time")
    other = _other(folder)
    try:
        expect(_said(other) == "held", "a lock that was given back cannot be had")
        with exclusive(folder, _NAME, wait_s=0.2) as mine:
            expect(not mine, "two processes have the same lock at a time")
    finally:
        other.kill()
        other.wait()
    with exclusive(folder, _NAME, wait_s=_FREED_S) as mine:
        expect(mine, "a killed process keeps its lock")
    return "two processes exclude each other; a killed one leaves its lock"


def _other(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603  our own module
        [sys.executable, "-m", "wsi_lmc.doctor.locking", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(other: "subprocess.Popen[str]") -> str:
    said = other.stdout.readline().strip() if other.stdout else ""
    expect(said in ("held", "refused"), "a second process cannot be started, or has no lock to ask for")
    return said


def _hold(folder: Path) -> None:
    with exclusive(folder, _NAME, wait_s=0.0) as mine:
        sys.stdout.write("held\n" if mine else "refused\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _hold(Path(sys.argv[1]))
