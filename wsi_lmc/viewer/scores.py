"""Numbers a tile that ``wsi-lmc classify`` wrote: attention and probabilities, by where the tiles lie."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64

from wsi_lmc.cohort import read_rows
from wsi_lmc.errors import UsageError, WsiLmcError

SCORES, SCHEMA = "scores.json", "wsi-lmc/classification"
_PROBABILITY = "probability "


@dataclass(frozen=True)
class Classification:
    """A folder that ``classify`` wrote; ``name`` tells it from others. ``about`` says what it is of, in words."""

    name: str
    folder: Path
    about: str


@dataclass(frozen=True)
class TileScores:
    """Numbers of a slide's tiles: a column of ``values`` for each of ``names``; ``corners`` x, y in level-0 pixels."""

    names: tuple[str, ...]
    corners: Int64[np.ndarray, "n 2"]
    values: Float64[np.ndarray, "n m"]

    def aligned(self, origins: Int32[np.ndarray, "t 2"], column: int) -> Float64[np.ndarray, " t"]:
        """One column in the order of tiles with these origins; NaN of tiles that have no number."""
        pairs = zip(self.corners.tolist(), self.values[:, column], strict=True)
        known = {(x, y): value for (x, y), value in pairs}
        return np.asarray([known.get((x, y), np.nan) for x, y in origins.tolist()], np.float64)


def find_classifications(runs: Sequence[Path], given: Sequence[Path]) -> list[Classification]:
    """The folders that were named, or those that lie in the run folders.

    Raises:
        UsageError: a named folder has no scores of ``classify``.
    """
    for folder in given:
        if _about(folder) is None:
            raise UsageError(f"no {SCORES} of classify in {folder}", "what 'wsi-lmc classify -o' wrote", "Check it.")
    inside = [path.parent for run in runs for path in sorted(run.glob(f"*/{SCORES}"))]
    folders = list(given) or [folder for folder in inside if _about(folder) is not None]
    return [
        Classification(f"{number + 1}: {folder.name}", folder, _about(folder) or "")
        for number, folder in enumerate(folders)
    ]


def score_names(classification: Classification, slide_id: str) -> tuple[str, ...]:
    """What there is of a slide, without reading all of it; nothing where there is none."""
    table, _ = _files(classification, slide_id)
    try:
        if table.is_file():
            with table.open(encoding="utf-8") as file:
                columns = file.readline().strip().split(",")
            return tuple(name for name in columns if name.startswith(_PROBABILITY))
        scores = read_scores(classification, slide_id)
    except (OSError, UnicodeDecodeError, WsiLmcError):
        return ()
    return scores.names if scores else ()


def read_scores(
    classification: Classification, slide_id: str, bounds: tuple[float, float] = (0.0, 0.0)
) -> TileScores | None:
    """Numbers of a slide's tiles; None where there are none.

    Args:
        classification: the folder.
        slide_id: of a slide that is known.
        bounds: corner of the scanned area in level-0 pixels, which the files for QuPath count from.

    Raises:
        UsageError: a file is damaged.
    """
    table, drawn = _files(classification, slide_id)
    try:
        if table.is_file():
            return _of_table(table)
        return _of_geojson(drawn, bounds) if drawn.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UsageError(
            f"scores of slide {slide_id} cannot be read", "what classify wrote", "Classify again."
        ) from error


def _files(classification: Classification, slide_id: str) -> tuple[Path, Path]:
    folder = classification.folder
    return folder / "predictions" / f"{slide_id}.csv", folder / "attention" / f"{slide_id}.geojson"


def _about(folder: Path) -> str | None:
    """What a folder of ``classify`` is of; None where it is none."""
    try:
        found: Any = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        if found["schema"] != SCHEMA:
            return None
        return f"{found['head']}, trained at {found['source']}: {' or '.join(found['classes'])}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _of_table(path: Path) -> TileScores:
    rows = [row.cells for row in read_rows(path, ("x", "y"), ("x", "y"))]
    names = tuple(name for name in (rows[0] if rows else {}) if name.startswith(_PROBABILITY))
    corners = np.asarray([[int(row["x"]), int(row["y"])] for row in rows], np.int64).reshape(-1, 2)
    values = np.asarray([[float(row[name]) for name in names] for row in rows], np.float64)
    return TileScores(names, corners, values.reshape(len(corners), len(names)))


def _of_geojson(path: Path, bounds: tuple[float, float]) -> TileScores:
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    names = tuple(str(name) for name in (features[0]["properties"]["measurements"] if features else {}))
    found = [feature["geometry"]["coordinates"][0][0] for feature in features]
    corners = np.rint(np.asarray(found, np.float64).reshape(-1, 2) + np.asarray(bounds)).astype(np.int64)
    measured = [[feature["properties"]["measurements"][name] for name in names] for feature in features]
    return TileScores(names, corners, np.asarray(measured, np.float64).reshape(len(corners), len(names)))
