"""An evaluation as files (JSON, table, pictures) and as text for a terminal."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from wsi_lmc.evaluation.embedding import Plane, planes_of, plot_embeddings
from wsi_lmc.evaluation.measures import METRICS, Evaluation, Measure
from wsi_lmc.evaluation.pictures import plot_curves, plot_measures
from wsi_lmc.evaluation.scores import FeatureSet
from wsi_lmc.provenance import created_by
from wsi_lmc.publish import prepare_output, publish_text, publishing
from wsi_lmc.spreadsheets import to_csv

SCHEMA, SCHEMA_VERSION = "wsi-lmc/evaluation", 3
DOCUMENT, TABLE, PLANES = "evaluation.json", "evaluation.csv", "planes.json"
PLANES_SCHEMA = "wsi-lmc/planes"
_INTERVAL = (
    "95 % bootstrap: groups drawn anew within sites ('over' says where tiles stand for groups); percentiles, for "
    "distances about the value"
)
_COLUMNS = (
    *("encoder", "metric", "between", "value", "low", "high", "floor", "chance", "better"),
    *("tiles", "of", "groups", "over", "note"),
)


def write_evaluation(evaluation: Evaluation, sets: Sequence[FeatureSet], out: Path, seed: int = 0) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation.csv``, ``metrics.png``, ``embedding.png`` and, of transfers, ``roc.png``.

    ``planes.json`` has the points of ``embedding.png``, for others to draw. ``sets`` are those that were measured.
    Returns the files that people look at.

    Raises:
        UsageError: ``out`` cannot be written to.
    """
    prepare_output(out)
    files = [out / DOCUMENT, out / TABLE, out / "metrics.png", out / "embedding.png"]
    publish_text(out, files[0], json.dumps(to_document(evaluation), indent=1, allow_nan=False) + "\n")
    publish_text(out, files[1], to_csv(_COLUMNS, _rows(evaluation)))
    planes = planes_of(sets, seed)
    publish_text(out, out / PLANES, json.dumps(planes_document(planes)) + "\n")
    with publishing(out, files[2]) as draft:
        plot_measures(evaluation, draft)
    with publishing(out, files[3]) as draft:
        plot_embeddings(planes, draft)
    if any(encoder.curves for encoder in evaluation.encoders):
        files.append(out / "roc.png")
        with publishing(out, files[-1]) as draft:
            plot_curves(evaluation, draft)
    return files


def to_document(evaluation: Evaluation) -> dict[str, object]:
    """The evaluation as it stands in ``evaluation.json`` (read by :mod:`wsi_lmc.evaluation.reading`)."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created_by": created_by(),
        "interval": _INTERVAL,
        "metrics": {name: asdict(metric) for name, metric in METRICS.items()},
        **asdict(evaluation),
    }


def planes_document(planes: Sequence[Plane]) -> dict[str, object]:
    """Sets in the plane as they stand in ``planes.json``."""
    return {"schema": PLANES_SCHEMA, "schema_version": 1, "sets": [asdict(plane) for plane in planes]}


def report_text(evaluation: Evaluation) -> str:
    """The measures as a table for a terminal: a line a metric, a column an encoder."""
    rows = [("", *(encoder.name for encoder in evaluation.encoders), ""), *_lines(evaluation)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def gains_text(evaluation: Evaluation) -> str:
    """What the last encoder has over each other one at other sites, in AUROC; nothing where no class was learnt."""
    lines = []
    for encoder in evaluation.encoders:
        gain = evaluation.gain_over(encoder.name, "transfer_auroc")
        if gain is not None:
            bounds = "" if gain.low is None else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
            lines.append(
                f"{gain.encoder} over {gain.other}: AUROC {gain.value:+.3f}{bounds} at another {evaluation.by}"
            )
    return "\n".join(lines)


def left_out_text(evaluation: Evaluation) -> str:
    """What could not be computed and why, each reason once."""
    reasons: dict[str, list[str]] = {}
    for encoder in evaluation.encoders:
        for missing in encoder.left_out:
            names = reasons.setdefault(missing.reason, [])
            if missing.metric not in names:
                names.append(missing.metric)
    return "\n".join(f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items())


def _lines(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    transfers = sorted({(c.source, c.target) for encoder in evaluation.encoders for c in encoder.curves})
    places: list[tuple[str, tuple[str, ...]]] = []
    for name in METRICS:
        places.append((name, ()))
        if name == "transfer_auroc" and len(transfers) > 1:
            places += [(name, between) for between in transfers]
        if name == "source_auroc":
            places += [(name, (site,)) for site in evaluation.sites]
    for name, between in places:
        found = [encoder.find(name, between) for encoder in evaluation.encoders]
        if any(found):
            metric = METRICS[name]
            title = f"  {' to '.join(between)}" if len(between) == 2 else " at ".join([metric.title, *between])
            yield (title, *map(_cell, found), f"{metric.better} is better{_chance(found)}")


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    text = f"{measure.value:.2f}"
    if measure.low is not None and measure.high is not None:
        text += f" [{measure.low:.2f}, {measure.high:.2f}]"
    return text if measure.floor is None else f"{text} floor {measure.floor:.2f}"


def _chance(found: Sequence[Measure | None]) -> str:
    """What guessing gives, which hardly differs between encoders."""
    chances = sorted({f"{one.chance:.2f}" for one in found if one is not None and one.chance is not None})
    return f", chance {' to '.join([*chances[:1], *chances[1:][-1:]])}" if chances else ""


def _rows(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    for encoder in evaluation.encoders:
        for measure in encoder.measures:
            m = measure
            yield (
                *(encoder.name, m.metric, " > ".join(m.between), m.value, m.low, m.high, m.floor, m.chance),
                *(METRICS[m.metric].better, m.tiles, m.of, m.groups, m.over, m.note),
            )
