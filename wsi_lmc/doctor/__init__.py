"""Is this machine and installation fit for work? Everything is tried for real: codecs, slides, locks, disk, workers.

Each group of checks runs in a process of its own, because what is looked for may crash or hang it; then that group has
failed, and the others go on. So nothing but the standard library is imported here.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from wsi_lmc.doctor.check import Check

GROUPS = ("packages", "codecs", "devices", "disk", "network")
"""Modules of this package, in the order in which their checks are told."""

LIMIT_S = 180.0
_REINSTALL = "Install wsi-lmc again into a new environment; if it stays so, report it with this line."


def examine(out: Path, groups: Sequence[str] = GROUPS, limit_s: float = LIMIT_S) -> list[Check]:
    """Run the checks of all groups, or some.

    Args:
        out: the output folder in question, on whose disk something is written and removed.
        groups: of `GROUPS`.
        limit_s: seconds after which a group that has not ended has failed.
    """
    with ThreadPoolExecutor(len(groups)) as pool:
        return [check for found in pool.map(lambda group: _run(group, out, limit_s), groups) for check in found]


def as_lines(checks: Iterator[Check]) -> Iterator[str]:
    """What a group's process writes: a line a check, as soon as it is known."""
    return (json.dumps(asdict(check)) for check in checks)


def _run(group: str, out: Path, limit_s: float) -> list[Check]:
    """The checks of a group, and one more where its process did not come to its end."""
    command = [sys.executable, "-m", "wsi_lmc.doctor", group, str(out.absolute())]
    try:
        ended = subprocess.run(  # noqa: S603  our own module
            command, capture_output=True, text=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        return [
            *_read(said),
            Check(group, "failed", f"no end after {limit_s:g} s", "Look at what this machine waits for."),
        ]
    checks = _read(ended.stdout)
    if ended.returncode:
        last = checks[-1].name if checks else "its beginning"
        checks.append(Check(group, "failed", f"{_how(ended.returncode, ended.stderr)} after {last}", _REINSTALL))
    return checks


def _read(lines: str) -> list[Check]:
    return [Check(**json.loads(line)) for line in lines.splitlines() if line.startswith("{") and line.endswith("}")]


def _how(code: int, errors: str) -> str:
    """How a process ended that should not have."""
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return (errors.strip().splitlines() or [f"the process ended with {code}"])[-1]
