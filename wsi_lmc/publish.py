"""Atomic publishing: nothing incomplete ever stands under a final name.

A result is written under ``OUT/.tmp/<uuid>/``, flushed, and renamed into place as the last step. Locks are taken
before "is it done?" is asked, so that two processes on one output never do the same slide.
"""

import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from filelock import FileLock, Timeout

from wsi_lmc.errors import UsageError

TEMPORARY = ".tmp"
LOCKS = ".locks"
WORKING = ".working"


@contextmanager
def publishing(run_folder: Path, final: Path) -> Iterator[Path]:
    """Yield a temporary path on the same file system; on success it becomes ``final``, on an error it is removed.

    ``final`` may be a file or a folder; what stood there is replaced only once the new result is complete.
    """
    workplace = run_folder / TEMPORARY / uuid.uuid4().hex
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
    """Write a small text file atomically."""
    with publishing(run_folder, final) as draft:
        draft.write_text(text, encoding="utf-8")


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

    A lock dies with its process, so a killed holder never blocks its successor (not so on NFS: see docs).
    """
    folder = run_folder / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


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
        note = run_folder / WORKING / f"{name}.json"
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
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # just ended, or just begun
        here = said["host"] == socket.gethostname()
        alive = psutil.pid_exists(said["pid"]) if here else None
        found.append(Holder(note.stem, said["host"], said["pid"], since, alive))
    return found


def prepare_output(folder: Path) -> None:
    """Create an output folder and prove that it can be written to, before any work starts.

    Raises:
        UsageError: the folder cannot be created or written to.
    """
    try:
        probe = folder / TEMPORARY / uuid.uuid4().hex
        probe.mkdir(parents=True)
        (probe / "probe").write_bytes(b"")
        shutil.rmtree(probe)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror})", "a writable output folder", "Choose another one with -o."
        ) from error


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
