"""Locks between processes, on one machine and on many, that a killed holder never leaves behind for good.

On local disks and SMB a lock is the kernel's (flock) and dies with its process. On NFS, Lustre and BeeGFS flock may not
exclude other machines: there a lock is a claim, a file made by a hard link, and its holder gives a sign of life twice a
minute. Who waits breaks the claim of a process that is gone from this machine, or of one elsewhere that has given no
sign for ten minutes by the waiting machine's own clock; clocks of two machines are never compared. Should a holder only
have been frozen that long, both do the same work: it is published twice, whole each time, with equal bytes.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import psutil
from filelock import FileLock, StrictSoftFileLock, Timeout

SETTING = "WSI_LMC_LOCKS"
"""Environment variable for file systems that are not what they say: ``flock`` or ``claims``."""
_CLAIMS_NEEDED = frozenset({"nfs", "nfs4", "lustre", "beegfs"})
_LEASE_S = 600.0
_BEAT_S = 30.0
_LOOK_S = 1.0


@contextmanager
def locked(folder: Path, name: str, wait_s: float = -1.0) -> Iterator[bool]:
    """Hold the lock ``name`` of a folder; False where another process still holds it after ``wait_s`` seconds.

    A negative ``wait_s`` waits for as long as it takes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    if uses_claims(folder):
        with _claimed(path, wait_s) as held:
            yield held
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@lru_cache(256)
def uses_claims(folder: Path) -> bool:
    """Whether locks in ``folder`` are claims, because of its file system or of what the environment says."""
    stated = os.environ.get(SETTING)
    return stated == "claims" if stated else file_system(folder) in _CLAIMS_NEEDED


def file_system(folder: Path) -> str:
    """Type of the file system that ``folder`` lies on, such as ext4 or nfs4; "" where that cannot be told."""
    here = folder.resolve()
    found = [
        (len(partition.mountpoint), partition.fstype)
        for partition in psutil.disk_partitions(all=True)
        if here.is_relative_to(partition.mountpoint)
    ]
    return max(found, default=(0, ""))[1]


@contextmanager
def _claimed(path: Path, wait_s: float) -> Iterator[bool]:
    lock, watch = StrictSoftFileLock(path), _Watch(path)
    until = time.monotonic() + wait_s if wait_s >= 0 else float("inf")
    while True:
        try:
            lock.acquire(timeout=max(0.0, min(_LOOK_S, until - time.monotonic())))
            break
        except Timeout:
            if time.monotonic() >= until:
                yield False
                return
            watch.break_dead(lock)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(_beat_file(path), ended), name="lock", daemon=True)
    beating.start()
    try:
        yield True
    finally:
        ended.set()
        beating.join()
        lock.release()


class _Watch:
    """What a waiting process has seen of the claims before it, by name, and when it last saw one change."""

    def __init__(self, path: Path) -> None:
        self._beat = _beat_file(path)
        self._seen: dict[str, tuple[int, float]] = {}

    def break_dead(self, lock: StrictSoftFileLock) -> None:
        """Remove the claims of those who are gone."""
        beat, now = self._last_beat(), time.monotonic()
        known, self._seen = self._seen, {}
        for claim in lock.claims:
            earlier, since = known.get(claim.name, (beat, now))
            self._seen[claim.name] = (beat, since if earlier == beat else now)
            here = claim.hostname == socket.gethostname()
            if (here and not psutil.pid_exists(claim.pid)) or now - self._seen[claim.name][1] > _LEASE_S:
                with suppress(FileNotFoundError):  # another one who waits was faster
                    lock.force_break(claim.name)

    def _last_beat(self) -> int:
        try:
            return self._beat.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def _beat_file(path: Path) -> Path:
    return path.with_suffix(".beat")


def _beat(file: Path, ended: threading.Event) -> None:
    """Give signs of life: that the file's time changes is all that counts, not what it is."""
    while True:
        with suppress(OSError):  # a server that is away for a moment; the lease outlasts that
            file.write_bytes(b"")
        if ended.wait(_BEAT_S):
            return
