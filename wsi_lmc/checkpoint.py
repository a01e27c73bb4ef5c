"""What a training leaves on disk while it runs: states to resume from, and the log of its metrics.

States are published atomically, checked before use, and the last few kept.

``state-<step>.pt`` holds what a training needs to go on exactly where it was; ``state-<step>.pt.sha256`` lies beside
it in the format of ``sha256sum -c``. A flipped bit loads silently from torch's format, so a state is unpacked only once
its checksum matches, and then as plain tensors and containers only (``weights_only=True``).
"""

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only to recognise torch's refusal: nothing is unpickled here
from typing import Any

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from wsi_lmc.confinement import confined
from wsi_lmc.errors import StoreError
from wsi_lmc.publish import publish_text, publishing

METRICS = "metrics.jsonl"
EVENTS = "events"

_NAME = re.compile(r"state-([0-9]+)\.pt")


@dataclass(frozen=True)
class FoundState:
    """The newest valid state: its step, its content (tensors on the CPU), and the newer files that were damaged."""

    step: int
    state: dict[str, Any]
    damaged: tuple[str, ...]


def save_state(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Publish ``state`` as ``state-<step>.pt`` with its checksum, then remove all but the newest ``keep`` states.

    States of later steps go too: they are the damaged ones that this training had to go back behind.

    Args:
        folder: the checkpoint folder.
        step: number of completed optimiser steps.
        state: tensors, numbers, strings and containers of them; nothing else could be loaded again.
        keep: how many states stay, at least 1; two allow for one being damaged.

    Raises:
        StoreError: the file system refuses (disk full, read-only); states already published are untouched.
    """
    final = state_path(folder, step)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        # checksum first: a state that stands under its final name always has one
        publish_text(folder, _checksum_path(final), f"{_sha256(buffer.getbuffer())}  {final.name}\n")
        with publishing(folder, final) as draft:
            draft.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise StoreError(
            f"cannot write {final} ({error.strerror})",
            f"room for {buffer.getbuffer().nbytes / 1e6:.0f} MB",
            "Free space and resume; the states saved before are intact.",
        ) from error
    kept = [saved for saved in saved_steps(folder) if saved <= step][: max(keep, 1)]
    for saved in saved_steps(folder):
        if saved not in kept:
            remove_state(folder, saved)
    return final


def newest_valid_state(folder: Path) -> FoundState | None:
    """The newest state whose checksum matches, or None where the folder holds no state at all.

    Raises:
        StoreError: there are states and every one is damaged.
    """
    damaged: list[str] = []
    for step in saved_steps(folder):
        path = state_path(folder, step)
        state = _load_if_valid(path)
        if state is not None:
            return FoundState(step, state, tuple(damaged))
        damaged.append(path.name)
    if damaged:
        raise StoreError(
            f"{len(damaged)} damaged states in {folder} ({', '.join(damaged)})",
            "one whose SHA-256 matches its .sha256 file",
            "Restore one from a backup, or train anew in another folder.",
        )
    return None


def damaged_states(folder: Path) -> list[str]:
    """Names of the states whose checksum is missing or does not match."""
    paths = [state_path(folder, step) for step in saved_steps(folder)]
    return [path.name for path in paths if _checked(path) is None]


def saved_steps(folder: Path) -> list[int]:
    """Steps of all states in the folder, valid or not, newest first."""
    matches = (_NAME.fullmatch(path.name) for path in folder.glob("state-*.pt"))
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def state_path(folder: Path, step: int) -> Path:
    """Where the state after ``step`` completed steps lies."""
    return folder / f"state-{step}.pt"


def remove_state(folder: Path, step: int) -> None:
    """Remove a state, then its checksum: what is left of an interrupted removal is never taken for a state."""
    path = state_path(folder, step)
    path.unlink(missing_ok=True)
    _checksum_path(path).unlink(missing_ok=True)


def _load_if_valid(path: Path) -> dict[str, Any] | None:
    """The state's content, or None where file and checksum disagree or the checksum is missing.

    Raises:
        StoreError: the checksum is right, but the file holds more than tensors and plain containers.
    """
    content = _checked(path)
    if content is None:
        return None
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise StoreError(
            f"{path} holds objects other than tensors and plain containers",
            "a state written by this program",
            "Do not use this file; find out who wrote it.",
        ) from error


def _checked(path: Path) -> bytes | None:
    """A state's bytes, or None where its checksum is missing or does not match."""
    checksum = _checksum_path(path)
    if not checksum.is_file():
        return None
    content = path.read_bytes()
    stated = checksum.read_text(encoding="utf-8", errors="replace").split(" ")[0]
    return content if stated == _sha256(content) else None


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events of a training, continued after ``step`` completed steps.

    A row is one JSON object: "step", the metrics, and under "wall" what depends on the clock, so that two rows without
    "wall" are equal exactly when the training was. Rows after ``step`` (of a training cut off later than its last
    state) are dropped, as is a torn last line; a training from the start has row 0, the untrained network, to write.
    """

    def __init__(self, folder: Path, step: int) -> None:
        rows = [row for row in read_metrics(folder) if row["step"] <= step] if step else []
        publish_text(folder, folder / METRICS, "".join(f"{json.dumps(row)}\n" for row in rows))
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._events = SummaryWriter(str(confined(folder, folder / EVENTS)), purge_step=step + 1 if step else 0)

    def write(self, step: int, metrics: dict[str, float], wall: dict[str, float]) -> None:
        """Append the row of a step; it is readable at once."""
        self._file.write(json.dumps({"step": step, **metrics, "wall": wall}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Force all rows to the disk: before a state is saved, so that no state is newer than its rows."""
        self._events.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is pending and release both files."""
        self._events.close()
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole rows of ``metrics.jsonl``; none where there is no such file."""
    path = folder / METRICS
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # torn by a crash: nothing after it can be trusted
            break
    return rows


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
