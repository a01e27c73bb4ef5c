"""Faults of disks and clocks for real processes: a library put before the C library, see ``shim.c``."""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parent / "shim.c"
_PAGE = 4096


def build_shim(folder: Path) -> Path:
    """Compile the library; skips where there is no C compiler or no LD_PRELOAD, but in CI that is a failure."""
    compiler = shutil.which("cc")
    if compiler is None or os.name != "posix" or os.uname().sysname != "Linux":
        message = "faults are injected by a C library put before another: that takes Linux and a C compiler"
        if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    library = folder / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


class Counters:
    """What the library has counted, over all processes: reads and changes that were meant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reset()

    def reset(self) -> None:
        """Begin at nought."""
        self.path.write_bytes(bytes(_PAGE))

    @property
    def reads(self) -> int:
        """Reads so far."""
        return self._value(0)

    @property
    def changes(self) -> int:
        """Changes so far."""
        return self._value(1)

    def _value(self, number: int) -> int:
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), _PAGE, access=mmap.ACCESS_READ) as page:
            return int(struct.unpack_from("l", page, 8 * number)[0])


def faulty(shim: Path, counters: Counters, **faults: object) -> dict[str, str]:
    """The environment of a process that is to meet faults, named as in ``shim.c`` without FAULT_."""
    named = {f"FAULT_{name.upper()}": str(value) for name, value in faults.items()}
    return {**os.environ, "LD_PRELOAD": str(shim), "FAULT_COUNTERS": str(counters.path), **named}
