"""What is known of each tile: ``labels/<slide_id>.csv`` in a run folder, columns ``x,y,label``.

Tiles are named by their origin (top-left corner in level-0 pixels), so a table fits tile and feature stores alike, in
whatever order they are. A tile that is not listed has no label.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from wsi_lmc.cohort import read_rows
from wsi_lmc.errors import UsageError
from wsi_lmc.publish import publish_text
from wsi_lmc.spreadsheets import to_csv

LABELS = "labels"
COLUMNS = ("x", "y", "label")
NO_CLASS = -1


def labels_path(run_folder: Path, slide_id: str) -> Path:
    """Where a slide's table lies."""
    return run_folder / LABELS / f"{slide_id}.csv"


def write_labels(run_folder: Path, slide_id: str, origins: Int32[np.ndarray, "n 2"], labels: Iterable[str]) -> Path:
    """Publish a slide's table; tiles whose label is empty are left out."""
    path = labels_path(run_folder, slide_id)
    publish_text(run_folder, path, label_table(origins, labels))
    return path


def label_table(origins: Int32[np.ndarray, "n 2"], labels: Iterable[str]) -> str:
    """A slide's table as text; labels stand without the blanks around them, tiles whose label is empty are left out."""
    stripped = (label.strip() for label in labels)
    rows = [(x, y, label) for (x, y), label in zip(origins.tolist(), stripped, strict=True) if label]
    return to_csv(COLUMNS, rows)


def read_labels(path: Path) -> dict[tuple[int, int], str]:
    """Labels by origin (x, y).

    Raises:
        UsageError: no such table, an origin that is no whole number, or one that stands there twice.
    """
    found: dict[tuple[int, int], str] = {}
    for row in read_rows(path, COLUMNS, COLUMNS):
        try:
            origin = int(row.cells["x"]), int(row.cells["y"])
        except ValueError as error:
            at = f"{path}, line {row.line}: x {row.cells['x'][:20]!r}, y {row.cells['y'][:20]!r}"
            raise UsageError(at, "whole level-0 pixels", "Mend the table.") from error
        if origin in found:
            raise UsageError(f"{path}, line {row.line}: tile {origin} again", "one row a tile", "Mend the table.")
        found[origin] = row.cells["label"]
    return found


def classes_of(
    origins: Int32[np.ndarray, "n 2"],
    labels: Mapping[tuple[int, int], str] | None,
    of_slide: str,
    classes: Sequence[str],
) -> Int64[np.ndarray, " n"]:
    """Each tile's number among ``classes``; ``NO_CLASS`` where it has no label, or one of another name.

    A slide that has no table (None) gives its own label to all of its tiles.
    """
    number = {name: index for index, name in enumerate(classes) if name}
    if labels is None:
        return np.full(len(origins), number.get(of_slide, NO_CLASS), np.int64)
    found = [number.get(labels.get((x, y), ""), NO_CLASS) for x, y in origins.tolist()]
    return np.asarray(found, np.int64).reshape(-1)
