"""Fuzz the parsers of text, guided by coverage: ``make fuzz``, which runs ``python -m tests.faults.fuzz NAME SECONDS``.

Each format for a minute by default (``make fuzz FUZZ_SECONDS=600``); no part of CI. What breaks a parser is printed,
and kept as a file ``crash-...`` in the folder ``.fuzz``: put it into ``tests.faults.parsers.NASTY``, then mend the
parser. Needs atheris, which ``make fuzz`` puts beside the environment.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_SLOW_S = 10  # a file that takes longer is a fault, too
_LONGEST = 4096
_INSTRUMENTED = [
    "wsi_lmc.cohort",
    "wsi_lmc.config",
    "wsi_lmc.contours",
    "wsi_lmc.jobqueue",
    "wsi_lmc.runfolder",
    "yaml",
    "csv",
    "json",
]


def fuzz(name: str, seconds: int, kept: Path) -> None:
    """Fuzz one parser; ends the process, with exit code 0 where nothing was found."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.faults.parsers import NASTY, PARSERS, WHOLE
        from wsi_lmc.errors import WsiLmcError

    corpus, scratch = kept / name, TemporaryDirectory()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate((WHOLE[name], *NASTY[name])):
        if len(data) <= _LONGEST:
            (corpus / f"known-{number}").write_bytes(data)
    path = Path(scratch.name) / f"{name}.txt"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(WsiLmcError):
            PARSERS[name](path)

    _start(atheris, once, [str(corpus), f"-max_total_time={seconds}", f"-artifact_prefix={kept / name}-"])


def _start(atheris: Any, once: Callable[[bytes], None], arguments: Sequence[str]) -> None:
    limits = (
        f"-timeout={_SLOW_S}",
        f"-max_len={_LONGEST}",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
    )
    atheris.Setup([sys.argv[0], *arguments, *limits], once)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], int(sys.argv[2]), Path(".fuzz"))
