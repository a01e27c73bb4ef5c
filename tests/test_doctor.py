"""A healthy machine is found healthy, and each illness that can be had here is found: old, broken and deadly parts."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_lmc.commands.doctor import DEFAULT_OUTPUT
from wsi_lmc.doctor import GROUPS, examine
from wsi_lmc.doctor.check import Check
from wsi_lmc.doctor.packages import HOLES, Hole
from wsi_lmc.runfolder import DEFAULT

Ill = Callable[..., None]


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ill:
    """Puts a module of its own in front of an installed one, for the processes that check."""

    def replace(name: str, source: str) -> None:
        (tmp_path / "ill").mkdir(exist_ok=True)
        (tmp_path / "ill" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "ill" / name).write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "ill"), prepend=os.pathsep)

    return replace


def _states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def _doctor(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsi_lmc", "doctor", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_this_machine_is_well_and_nothing_stays_behind(tmp_path: Path) -> None:
    ended = _doctor(tmp_path / "not" / "there", "--json")
    assert ended.returncode == 0, ended.stdout
    found = json.loads(ended.stdout)
    assert found["failed"] == 0
    assert {check["name"] for check in found["checks"]} >= {
        "Python", "required packages", "JPEG", "JPEG 2000", "tile store, lossless (lz4, crc32c)", "tile store, JPEG",
        "arrays (zstd, crc32c)", "HDF5", "safetensors", "OpenSlide", "tiffslide", "direct decoding",
        "cores and memory", "torch", "OpenVINO", "free disk", "file system", "output can be written", "locks",
        "results appear whole", "loopback", "TLS", "worker process",
    }  # fmt: skip
    assert all(check["remedy"] for check in found["checks"] if check["state"] != "ok")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.package)
def test_a_version_with_a_known_hole_is_named(hole: Hole, replaced: Ill, tmp_path: Path) -> None:
    package = hole.package
    older = {"openslide-bin": "4.0.1.0", "distributed": "2025.12.0", "torch": "2.9.1", "filelock": "4.2.0"}[package]
    replaced(f"{package.replace('-', '_')}-{older}.dist-info/METADATA", f"Name: {package}\nVersion: {older}\n")
    found = {check.name: check for check in examine(tmp_path, ["packages"])}
    check = found[f"{package} without known holes"]
    assert check.state == "failed"
    assert check.found.startswith(older)
    assert "pip install --upgrade" in check.remedy
    assert package == "distributed" or found[package].state == "failed", "it is older than what is required, too"
    assert [name for name, state in _states(list(found.values())).items() if "holes" in name and state == "ok"] == [
        f"{other.package} without known holes" for other in HOLES if other is not hole
    ]


def test_one_broken_codec_hides_no_other(replaced: Ill, tmp_path: Path) -> None:
    replaced("h5py.py", "raise ImportError('libhdf5.so.320: cannot open shared object file')")
    found = {check.name: check for check in examine(tmp_path, ["codecs"])}
    assert (found["HDF5"].state, found["HDF5"].remedy) == ("failed", "Run: pip install --force-reinstall h5py")
    assert "libhdf5.so.320" in found["HDF5"].found
    assert {check.state for name, check in found.items() if name != "HDF5"} == {"ok"}


def test_a_codec_that_gives_other_pixels_is_found(replaced: Ill, tmp_path: Path) -> None:
    source = "def decode_jpeg(data, *_, buffer, **__):\n    buffer[...] = 0\n    return buffer\n"
    replaced("simplejpeg.py", f"{source}def decode_jpeg_header(*_, **__):\n    return 256, 256, 'YCbCr', '444'\n")
    found = _states(examine(tmp_path, ["codecs"]))
    assert found["JPEG"] == "failed"
    assert found["direct decoding"] == "warning", "slides are read all the same, by OpenSlide"
    assert found["OpenSlide"] == found["JPEG 2000"] == "ok"


def test_a_library_that_kills_its_process_is_found_and_other_groups_go_on(replaced: Ill, tmp_path: Path) -> None:
    replaced("h5py.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    checks = examine(tmp_path, ["codecs", "packages"])
    found = {check.name: check for check in checks}
    assert found["codecs"].state == "failed"
    assert found["codecs"].found == "the process died of SIGSEGV after arrays (zstd, crc32c)"
    assert found["JPEG"].state == found["Python"].state == "ok"


def test_a_library_that_hangs_is_found(replaced: Ill, tmp_path: Path) -> None:
    replaced("h5py.py", "import time\ntime.sleep(600)\n")
    checks = examine(tmp_path, ["codecs"], limit_s=15)
    assert checks[0] == Check("JPEG", "ok", "encodes, decodes, decodes at half the size")
    assert (checks[-1].name, checks[-1].state) == ("codecs", "failed")
    assert "15 s" in checks[-1].found


@pytest.mark.parametrize(
    ("acquire", "said"),
    [
        ("pass", "two processes have the same lock at a time"),
        ("raise Timeout", "a lock that nobody has cannot be had"),
        ("raise OSError(37, 'No locks available')", "No locks available"),
    ],
)
def test_locks_that_do_not_lock_are_found(replaced: Ill, tmp_path: Path, acquire: str, said: str) -> None:
    source = f"""
class Timeout(Exception): pass
class FileLock:
    def __init__(self, path): pass
    def acquire(self, timeout): {acquire}
    def release(self): pass
StrictSoftFileLock = FileLock
"""
    replaced("filelock.py", source)
    found = {check.name: check for check in examine(tmp_path, ["disk"])}
    assert found["locks"].state == "failed"
    assert said in found["locks"].found
    assert "-o" in found["locks"].remedy


def test_a_lock_that_outlives_its_process_is_found(replaced: Ill, tmp_path: Path) -> None:
    """As on a file system where locks are files that someone has to remove."""
    source = """
import os
class Timeout(Exception): pass
class FileLock:
    def __init__(self, path): self.path = path
    def acquire(self, timeout):
        try: os.close(os.open(self.path, os.O_CREAT | os.O_EXCL))
        except FileExistsError: raise Timeout from None
    def release(self): os.unlink(self.path)
StrictSoftFileLock = FileLock
"""
    replaced("filelock.py", source)
    found = {check.name: check for check in examine(tmp_path, ["disk"])}
    assert (found["locks"].state, found["locks"].found) == ("failed", "ValueError: a killed process keeps its lock")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder in which nobody can write, root neither")
def test_a_folder_that_cannot_be_written_is_found() -> None:
    found = _states(examine(Path("/proc/wsi-lmc-run"), ["disk"]))
    assert (found["output can be written"], found["free disk"]) == ("failed", "failed")


def test_a_failure_has_the_exit_code_of_an_unfit_environment(replaced: Ill, tmp_path: Path) -> None:
    replaced("simplejpeg.py", "raise ImportError('gone\\x1b[2J')")
    ended = _doctor(tmp_path)
    assert ended.returncode == 2
    assert "failed  JPEG: ImportError: gone?[2J\n        Run: pip install" in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("failed")
    assert list(tmp_path.iterdir()) == [tmp_path / "ill"]


def test_the_folder_in_question_is_that_of_the_other_commands() -> None:
    assert DEFAULT_OUTPUT == DEFAULT
    assert len(GROUPS) == 5
