"""Reads ``evaluation.json`` back, as it was measured."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from wsi_lmc.errors import StoreError
from wsi_lmc.evaluation.embedding import Plane
from wsi_lmc.evaluation.measures import METRICS, Curve, EncoderResult, Evaluation, Gain, LeftOut, Measure
from wsi_lmc.evaluation.writing import DOCUMENT, PLANES, PLANES_SCHEMA, SCHEMA, SCHEMA_VERSION

_REMEDY = "Run 'wsi-lmc evaluate' again."


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file, or in a folder that :func:`wsi_lmc.evaluation.writing.write_evaluation` wrote.

    Raises:
        StoreError: no such file, one that is damaged, or of another schema.
    """
    file = path / DOCUMENT if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot read {file} ({type(error).__name__})", "an evaluation in JSON", _REMEDY) from error
    said = (found.get("schema"), found.get("schema_version")) if isinstance(found, dict) else (None, None)
    if said != (SCHEMA, SCHEMA_VERSION):
        raise StoreError(f"{file} of schema {said[0]} {said[1]}", f"{SCHEMA} {SCHEMA_VERSION}", _REMEDY)
    try:
        return Evaluation(
            str(found["by"]),
            tuple(map(str, found["sites"])),
            tuple(map(str, found["classes"])),
            dict(found["settings"]),
            tuple(map(_encoder, found["encoders"])),
            tuple(map(_gain, found["gains"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{file} is damaged ({type(error).__name__}: {error})", "an evaluation", _REMEDY) from error


def read_planes(folder: Path) -> tuple[Plane, ...]:
    """Points of the embedding's picture beside an evaluation; none where there are none, or none that can be read."""
    try:
        found = json.loads((folder / PLANES).read_text(encoding="utf-8"))
        if (found["schema"], found["schema_version"]) != (PLANES_SCHEMA, 1):
            return ()
        return tuple(map(_plane, found["sets"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def _plane(found: Mapping[str, Any]) -> Plane:
    sites, classes = (tuple(map(str, found[name])) for name in ("sites", "classes"))
    x, y = (tuple(map(float, found[name])) for name in ("x", "y"))
    site, label = (tuple(map(int, found[name])) for name in ("site", "label"))
    plane = Plane(str(found["name"]), str(found["way"]), int(found["of"]), sites, classes, x, y, site, label)
    known = (max(site, default=-1) < len(plane.sites), max(label, default=-1) < len(plane.classes))
    if not all(known) or len({len(x), len(y), len(site), len(label)}) > 1:
        raise ValueError("points that do not fit together")
    return plane


def _encoder(found: Mapping[str, Any]) -> EncoderResult:
    parts = {
        "measures": tuple(map(_measure, found["measures"])),
        "left_out": tuple(
            LeftOut(str(one["metric"]), str(one["reason"]), tuple(map(str, one["between"])))
            for one in found["left_out"]
        ),
        "curves": tuple(map(_curve, found["curves"])),
    }
    numbers = {name: int(found[name]) for name in ("dimension", "tiles", "of", "slides", "groups")}
    return EncoderResult(name=str(found["name"]), **numbers, **parts)


def _measure(found: Mapping[str, Any]) -> Measure:
    if found["metric"] not in METRICS:
        raise ValueError("an unknown metric")
    kinds = {"metric": str, "over": str, "note": str, "tiles": int, "of": int, "groups": int}
    values: dict[str, Any] = {}
    for field in fields(Measure):
        value = found[field.name]
        if field.name == "between":
            values[field.name] = tuple(map(str, value))
        elif field.name in kinds:
            values[field.name] = kinds[field.name](value)
        else:
            values[field.name] = float(value) if value is not None else None
    if values["value"] is None:
        raise ValueError("a measure without a value")
    return Measure(**values)


def _gain(found: Mapping[str, Any]) -> Gain:
    if found["metric"] not in METRICS:
        raise ValueError("an unknown metric")
    low, high = (None if found[name] is None else float(found[name]) for name in ("low", "high"))
    metric, encoder, other = (str(found[name]) for name in ("metric", "encoder", "other"))
    return Gain(metric, encoder, other, tuple(map(str, found["between"])), float(found["value"]), low, high)


def _curve(found: Mapping[str, Any]) -> Curve:
    rates = [tuple(map(float, found[name])) for name in ("false_positive", "true_positive")]
    return Curve(str(found["source"]), str(found["target"]), *rates)
