"""A study's results for people and for programs: ``results.json``, ``scores.csv`` and ``table.md``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from wsi_lmc.provenance import created_by, to_json
from wsi_lmc.publish import publish_text
from wsi_lmc.spreadsheets import to_csv
from wsi_lmc.study.scoring import RESAMPLES, Cell, RowScore

SCHEMA = "wsi-lmc/study"
_COLUMNS = ("row", "target", "metric", "value", "low", "high", "seed_sd", "seeds")


def write_results(
    out: Path, rows: Sequence[RowScore], reference: str, stated: Mapping[str, object]
) -> tuple[Path, ...]:
    """Publish the three files; ``stated`` says what was compared on which data and is kept in ``results.json``."""
    document = {
        "schema": SCHEMA,
        "schema_version": 1,
        "created_by": created_by(),
        "device": _device(),
        "reference": reference,
        "interval": f"95 %, {RESAMPLES} resamples of the targets' patients and of the seeds together",
        "stated": to_json(dict(stated)),
        "rows": [asdict(row) for row in rows],
    }
    files = (out / "results.json", out / "scores.csv", out / "table.md")
    publish_text(out, files[0], json.dumps(document, indent=1) + "\n")
    publish_text(out, files[1], to_csv(_COLUMNS, _lines(rows)))
    publish_text(out, files[2], markdown(rows, reference))
    return files


def markdown(rows: Sequence[RowScore], reference: str, metric: str = "AUROC") -> str:
    """All rows as tables, the best first by ``metric``, which has a table of its own.

    It shows each target, the mean, what the reference row has over each row, and what else is known of it; the second
    table has the means of all other metrics.
    """
    ordered = sorted(rows, key=lambda row: -row.mean[metric].value)
    others = [name for name in rows[0].mean if name != metric]
    lines = [f"| row | {' | '.join(others)} |", f"|{'---|' * (len(others) + 1)}"]
    for row in ordered:
        cells = [shown(row.mean[name]) if name in row.mean else "-" for name in others]
        lines.append(f"| {row.row} | {' | '.join(cells)} |")
    second = "\n".join(lines)
    return f"{metric}:\n\n{_by_target(ordered, reference, metric)}\nMeans over targets:\n\n{second}\n"


def _by_target(rows: Sequence[RowScore], reference: str, metric: str) -> str:
    targets = list(rows[0].at)
    head = ["row", *targets, *(["mean"] if len(targets) > 1 else []), f"{reference} has over it", "at the source",
            "site told", "rank"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [shown(row.at[target][metric]) if metric in row.at[target] else "-" for target in targets]
        if len(targets) > 1:
            cells.append(f"**{shown(row.mean[metric])}**")
        gain = row.gain.get(metric)
        known = ["-" if value is None else f"{value:.2f}" for value in (row.within, row.site)]
        cells += ["" if gain is None else shown(gain, signed=True), *known, f"{row.rank:.1f}"]
        lines.append(f"| {row.row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown(cell: Cell, signed: bool = False) -> str:
    """A value with its interval and, of several seeds, their standard deviation."""
    sign = "+" if signed else ""
    bounds = "" if cell.low is None or cell.high is None else f" [{cell.low:{sign}.2f}, {cell.high:{sign}.2f}]"
    spread = f" ±{cell.seed_sd:.2f}" if cell.seed_sd and not signed else ""
    return f"{cell.value:{sign}.3f}{spread}{bounds}"


def _lines(rows: Sequence[RowScore]) -> list[Sequence[object]]:
    found: list[Sequence[object]] = []
    for row in rows:
        parts = {**row.at, **({"mean": row.mean} if len(row.at) > 1 else {}), "gain of the reference": row.gain}
        for target, cells in parts.items():
            for metric, cell in cells.items():
                found.append((row.row, target, metric, cell.value, cell.low, cell.high, cell.seed_sd, row.seeds))
    return found


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
