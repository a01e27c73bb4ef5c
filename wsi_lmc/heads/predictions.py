"""Slide by slide: predict, write tables and maps, keep what is needed for the scores and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from wsi_lmc.errors import UsageError
from wsi_lmc.heads.examples import Case
from wsi_lmc.heads.maps import Place, TileMap, draw_map, to_geojson
from wsi_lmc.heads.model import Level, Prediction, mark_names
from wsi_lmc.labels import NO_CLASS
from wsi_lmc.publish import publish_text, publishing
from wsi_lmc.spreadsheets import to_csv

PREDICTIONS, MAPS = "predictions.csv", "attention"
Split = Literal[
    "source, out of fold", "source, not learnt from", "target", "target, patient of the source", "site of training"
]


@dataclass(frozen=True)
class Known:
    """Labelled examples of one slide: their classes, and probabilities by seed."""

    case: Case
    split: Split
    truth: Int64[np.ndarray, " n"]
    by_seed: Float64[np.ndarray, "seeds n k"]


@dataclass(frozen=True)
class Writing:
    """Where predictions go, and how: ``maps`` False leaves GeoJSON and pictures out."""

    out: Path
    level: Level
    classes: tuple[str, ...]
    marks: tuple[str, ...]
    maps: bool = True


Predict = Callable[[Case, np.ndarray], Prediction]


def write_predictions(
    cases: Sequence[tuple[Case, Split, Place]], predict: Predict, writing: Writing, heard: Callable[[str], None]
) -> list[Known]:
    """Predict each slide; write ``predictions.csv``, of tiles ``predictions/<slide_id>.csv``, and the maps.

    Args:
        cases: slides, what each is in the experiment, and where its tiles lie.
        predict: of a slide's features.
        writing: where to.
        heard: is told of each slide's id.

    Returns:
        What is known of the labelled ones, to be scored.
    """
    table: list[tuple[object, ...]] = []
    known: list[Known] = []
    for case, split, place in cases:
        features = case.read()
        if not len(features):
            table.append((*_about(case, writing), *(None for _ in writing.classes), 0, split))
            continue
        if not np.isfinite(features).all():
            raise UsageError(
                f"features of slide {case.slide_id} that are no numbers", "finite features", "Embed it again."
            )
        found = predict(case, features)
        table.append((*_about(case, writing), *_shown(found.mean.mean(axis=0)), len(features), split))
        if writing.level == "tile":
            _write_tiles(case, found, writing)
        if writing.maps:
            _write_map(TileMap(place, case.origins, writing.marks, found.marks), writing.out)
        truth = case.tile_labels if writing.level == "tile" else np.asarray([case.label])
        labelled: Bool[np.ndarray, " n"] = truth != NO_CLASS
        if labelled.any():
            known.append(Known(case, split, truth[labelled], found.by_seed[:, labelled]))
        heard(case.slide_id)
    columns = ("slide_id", "site", "patient", "truth", *_probability_columns(writing.classes), "tiles", "split")
    publish_text(writing.out, writing.out / PREDICTIONS, to_csv(columns, table))
    return known


def _about(case: Case, writing: Writing) -> tuple[object, ...]:
    return case.slide_id, case.site, case.patient, _name(case.label, writing.classes)


def _write_tiles(case: Case, found: Prediction, writing: Writing) -> None:
    rows = (
        (x, y, _name(int(label), writing.classes), *_shown(probabilities))
        for (x, y), label, probabilities in zip(case.origins.tolist(), case.tile_labels, found.mean, strict=True)
    )
    columns = ("x", "y", "truth", *_probability_columns(writing.classes))
    publish_text(writing.out, writing.out / "predictions" / f"{case.slide_id}.csv", to_csv(columns, rows))


def _write_map(tiles: TileMap, out: Path) -> None:
    folder = out / MAPS
    publish_text(out, folder / f"{tiles.place.slide_id}.geojson", to_geojson(tiles))
    with publishing(out, folder / f"{tiles.place.slide_id}.png") as draft:
        draw_map(tiles, draft)


def _probability_columns(classes: tuple[str, ...]) -> tuple[str, ...]:
    return mark_names("logistic", classes)


def _shown(probabilities: Float64[np.ndarray, " k"]) -> list[float]:
    return [float(value) for value in probabilities]


def _name(label: int, classes: tuple[str, ...]) -> str:
    return "" if label == NO_CLASS else classes[label]
