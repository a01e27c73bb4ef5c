"""What there is to report on: runs, trainings, evaluations, classifications and studies below the given folders.

Each is known by the document it wrote. Folders of many files (tiles, features, records) are not searched.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_lmc.checkpoint import METRICS
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation.writing import DOCUMENT
from wsi_lmc.runfolder import RECORDS

SCORES, RESULTS = "scores.json", "results.json"
CLASSIFICATION, STUDY = "wsi-lmc/classification", "wsi-lmc/study"
_DEEPEST = 3
_NOT_SEARCHED = frozenset(
    {"tiles", "features", "contours", "overviews", "stains", "labels", "attention", "logs", RECORDS, "events",
     "encoder", "encoders", "normalised", "model", "slides", "truth"}
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder in which something was found; ``name`` tells it from others: where it lies below what was given."""

    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """All that was found, in the order of the names."""

    runs: tuple[Place, ...]
    trainings: tuple[Place, ...]
    evaluations: tuple[Place, ...]
    classifications: tuple[Place, ...]
    studies: tuple[Place, ...]


def find(folders: Sequence[Path]) -> Found:
    """Look through some folders, and what lies in them.

    Raises:
        UsageError: one of them is no folder, or there is nothing to report on.
    """
    absent = [folder for folder in folders if not folder.is_dir()]
    if absent:
        raise UsageError(f"no folder {absent[0]}", "a run folder", "Name the folder that tile or embed got by -o.")
    several = len(folders) > 1
    places = {
        path.resolve(): Place("/".join(([str(number + 1)] if several else []) + list(parts)), path)
        for number, folder in reversed(list(enumerate(folders)))
        for path, parts in _below(folder, ())
    }
    every = sorted(places.values(), key=lambda place: place.name)
    found = Found(
        tuple(place for place in every if (place.path / RECORDS).is_dir()),
        tuple(place for place in every if (place.path / METRICS).is_file()),
        tuple(place for place in every if (place.path / DOCUMENT).is_file()),
        tuple(place for place in every if _is_of(place.path / SCORES, CLASSIFICATION)),
        tuple(place for place in every if _is_of(place.path / RESULTS, STUDY)),
    )
    if not any((found.runs, found.trainings, found.evaluations, found.classifications, found.studies)):
        raise UsageError(
            f"nothing to report on in {folders[0]}", "a run folder, or results of one", "Run 'wsi-lmc tile' first."
        )
    return found


def read_document(path: Path, schema: str) -> dict[str, Any] | None:
    """A JSON document of a schema; None where it is damaged, or none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == schema else None


def _below(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    yield folder, parts
    if len(parts) == _DEEPEST:
        return
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        hidden = entry.name.startswith(".") or entry.name.endswith(".zarr") or entry.name in _NOT_SEARCHED
        if not hidden and entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), (*parts, entry.name))


def _is_of(path: Path, schema: str) -> bool:
    """Whether a file of that name is such a document, or too damaged to tell."""
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(found, dict) and found.get("schema") == schema
