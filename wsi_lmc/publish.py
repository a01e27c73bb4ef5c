"""Atomic publishing: nothing incomplete ever stands under a final name.

A result is written under ``OUT/.tmp/``, flushed, and renamed into place as the last step. Locks are taken before "is it
done?" is asked, so that two processes on one output never do the same slide. What a killed process leaves in
``OUT/.tmp/`` carries its owner in its name, and goes when the next process begins.
"""

import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from wsi_lmc.confinement import confined
from wsi_lmc.errors import UsageError
from wsi_lmc.locks import locked

TEMPORARY = ".tmp"
LOCKS = ".locks"
WORKING = ".working"


@contextmanager
def publishing(run_folder: Path, final: Path) -> Iterator[Path]:
    """Yield a temporary path on the same file system; on success it becomes ``final``, on an error it is removed.

    ``final`` may be a file or a folder; what stood there is replaced only once the new result is complete.

    Raises:
        UsageError: ``final`` is a link, or lies outside ``run_folder``.
    """
    confined(run_folder, final)
    workplace = confined(run_folder, run_folder / TEMPORARY / _own_name())
    workplace.mkdir(parents=True)
    try:
        draft = workplace / final.name
        yield draft
        _flush_tree(draft)
        final.parent.mkdir(parents=True, exist_ok=True)
        _replace(draft, final, workplace / f"{final.name}.replaced")
        _flush(final.parent)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def publish_text(run_folder: Path, final: Path, text: str) -> None:
    """Write a small text file atomically, in UTF-8; what that has no bytes for (names of files) is escaped."""
    with publishing(run_folder, final) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def discard(run_folder: Path, final: Path) -> None:
    """Take a published result away: at once from its place, so that it is never half there, then for good."""
    confined(run_folder, final)
    workplace = confined(run_folder, run_folder / TEMPORARY / _own_name())
    workplace.mkdir(parents=True)
    try:
        if final.exists():
            final.rename(workplace / final.name)
            _flush(final.parent)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def publish_file(final: Path, text: str) -> None:
    """Write a text file that lies in no run folder, atomically; a file that stood there is replaced.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with TemporaryDirectory(dir=final.parent, prefix=".wsi-lmc-") as beside:
            draft = Path(beside) / final.name
            draft.write_text(text, encoding="utf-8")
            _flush(draft)
            draft.replace(final)
    except OSError as error:
        raise UsageError(f"cannot write {final} ({error.strerror})", "a writable place", "Name another.") from error


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists: on whose disk it would be."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())


@contextmanager
def exclusive(run_folder: Path, name: str, wait_s: float = -1.0) -> Iterator[bool]:
    """Hold the lock ``name`` of a run; yields False when another process still holds it after ``wait_s`` seconds.

    A lock dies with its process, so a killed holder does not block its successor (see :mod:`wsi_lmc.locks`).
    """
    confined(run_folder, run_folder / LOCKS / f"{name}.lock")
    with locked(run_folder / LOCKS, name, wait_s) as held:
        yield held


@dataclass(frozen=True)
class Holder:
    """Who works on ``name``, since when (seconds since 1970); ``alive`` is None where that cannot be told from here."""

    name: str
    host: str
    pid: int
    since: float
    alive: bool | None

    def of(self, stage: str) -> "Holder":
        """The same, named by the slide alone."""
        return replace(self, name=self.name.removeprefix(f"{stage}-"))


@contextmanager
def working(run_folder: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name``, with a note of who does, for those who only want to look.

    A killed process leaves its note behind; the next who works on ``name`` replaces it.
    """
    with exclusive(run_folder, name):
        note = confined(run_folder, run_folder / WORKING / f"{name}.json")
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8")
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def holders(run_folder: Path) -> list[Holder]:
    """Who works on what in a run, by name; reads the notes alone, and leaves the locks in peace."""
    found: list[Holder] = []
    for note in sorted((run_folder / WORKING).glob("*.json")):
        try:
            since = note.stat().st_mtime
            said = json.loads(note.read_text(encoding="utf-8"))
            host, pid = str(said["host"]), int(said["pid"])
            alive = psutil.pid_exists(pid) if host == socket.gethostname() else None
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # just ended, just begun, or damaged
        found.append(Holder(note.stem, host, pid, since, alive))
    return found


def leftovers(run_folder: Path) -> list[Path]:
    """What processes of this machine that are gone have left behind in a run: workplaces, and notes of who works."""
    found = [path for path in sorted((run_folder / TEMPORARY).glob("*")) if _is_left_behind(path.name)]
    return found + [
        run_folder / WORKING / f"{holder.name}.json" for holder in holders(run_folder) if holder.alive is False
    ]


def remove_leftovers(run_folder: Path) -> None:
    """Remove them; what belongs to other machines, or to nobody known, is not touched."""
    for path in leftovers(run_folder):
        confined(run_folder, path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def prepare_output(folder: Path) -> None:
    """Create an output folder and prove that it can be written to, before any work starts.

    Raises:
        UsageError: the folder cannot be created or written to.
    """
    probe = confined(folder, folder / TEMPORARY / _own_name())
    try:
        probe.mkdir(parents=True)
        (probe / "probe").write_bytes(b"")
        shutil.rmtree(probe)
        remove_leftovers(folder)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror})", "a writable output folder", "Choose another one with -o."
        ) from error


def _own_name() -> str:
    """A name nobody else has, which tells the process and the machine that it belongs to."""
    return f"{uuid.uuid4().hex}-{os.getpid()}-{_machine()}"


def _is_left_behind(name: str) -> bool:
    """Whether the process is gone that a workplace belongs to; False where that cannot be told from here."""
    _, pid, machine = [*name.split("-", 2), "", ""][:3]
    return pid.isdecimal() and machine == _machine() and not psutil.pid_exists(int(pid))


@cache
def _machine() -> str:
    """This machine: its name and, where it has several worlds of process numbers (containers), which of them."""
    try:
        world = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        world = ""
    return hashlib.sha256(f"{socket.gethostname()} {world}".encode()).hexdigest()[:12]


def _replace(draft: Path, final: Path, aside: Path) -> None:
    """Rename ``draft`` to ``final``; a folder there goes aside first, and back should an interrupt fall in between."""
    try:
        if final.is_dir():
            final.rename(aside)
        draft.replace(final)
    finally:
        if aside.exists() and not final.exists():
            aside.rename(final)


def _flush_tree(root: Path) -> None:
    if root.is_file():
        _flush(root)
        return
    for folder, _, files in root.walk(top_down=False):
        for name in files:
            _flush(folder / name)
        _flush(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
