"""The disk of the output folder: space, locks, and whether results appear there whole or not at all."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from wsi_lmc.doctor.check import BROKEN, Check, expect, tried
from wsi_lmc.doctor.locking import try_locks
from wsi_lmc.publish import TEMPORARY, nearest_folder, publish_text, publishing

_GB = 1e9
_LEAST, _LITTLE = 1 * _GB, 20 * _GB
_SLOW_S = 1.0
_SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "fuse")
_ELSEWHERE = "Choose an output folder on another disk with -o."


def checks(out: Path) -> Iterator[Check]:
    """All that is written is removed again; where ``out`` does not exist yet, the folder above it is tried."""
    folder = nearest_folder(out)
    yield _space(folder)
    yield _file_system(folder)
    try:
        with TemporaryDirectory(dir=folder, prefix=".wsi-lmc-doctor-") as name:
            place = Path(name)
            yield Check("output can be written", "ok", str(folder))
            yield tried("locks", lambda: try_locks(place), f"{_ELSEWHERE} Until then run one process at a time.")
            yield _publishing(place)
    except BROKEN as error:
        yield Check("output can be written", "failed", f"{folder}: {error}", _ELSEWHERE)


def _space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / _GB:.1f} GB free at {folder}"
    if free < _LITTLE:
        remedy = f"'wsi-lmc plan SLIDES -o {folder}' says how much is needed. {_ELSEWHERE}"
        return Check("free disk", "failed" if free < _LEAST else "warning", found, remedy)
    return Check("free disk", "ok", found)


def _file_system(folder: Path) -> Check:
    """One machine cannot tell whether locks hold between several."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    if kind.lower().startswith(_SHARED):
        remedy = "If several machines write there, see docs/cluster.md about locks, or give each its --shard."
        return Check("file system", "warning", f"{kind}: locks between machines were not tried", remedy)
    return Check("file system", "ok", kind or "unknown")


def _publishing(place: Path) -> Check:
    name, began = "results appear whole", time.monotonic()
    found = tried(name, lambda: _publish(place), _ELSEWHERE)
    taken = time.monotonic() - began
    if found.state == "ok" and taken > _SLOW_S:
        return Check(name, "warning", f"yes, but six small files took {taken:.1f} s", "Expect as much for every slide.")
    return found


def _publish(place: Path) -> str:
    """A file and a folder, each published and then replaced, by the functions that all results are published by."""
    for content in ("old", "new"):
        publish_text(place, place / "file.txt", content)
        with publishing(place, place / "folder") as draft:
            draft.mkdir()
            for name in ("a", "b"):
                (draft / name).write_text(content, encoding="utf-8")
    for path in (place / "file.txt", place / "folder" / "a", place / "folder" / "b"):
        expect(path.read_text(encoding="utf-8") == "new", f"{path.name} is not what was written last")
    expect(not any((place / TEMPORARY).iterdir()), "something temporary is left behind")
    return "written beside, flushed (fsync), renamed into place, files and folders"
