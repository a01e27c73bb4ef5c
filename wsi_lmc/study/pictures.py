"""Pictures of a study: scores with intervals, ROC curves, and tiles of all sites in the plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from matplotlib.figure import Figure

from wsi_lmc.evaluation.pictures import COLOURS, save
from wsi_lmc.evaluation.ranking import Ranking
from wsi_lmc.study.scoring import RowScore

_BLUE, _ORANGE, _GREY = COLOURS[0], COLOURS[1], "0.55"
_STYLES = ("-", "--", ":", "-.")


def plot_rows(rows: Sequence[RowScore], reference: str, path: Path, metric: str = "AUROC") -> None:
    """Each row's mean over targets with its interval, the best on top; the reference row stands out."""
    ordered = sorted(rows, key=lambda row: -row.mean[metric].value)
    figure = Figure(figsize=(7.2, 1.2 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(ordered):
        cell = row.mean[metric]
        colour = _ORANGE if row.row == reference else _BLUE
        if cell.low is not None and cell.high is not None:
            axes.plot([cell.low, cell.high], [place, place], color=colour, linewidth=2)
        axes.plot(cell.value, place, "o", color=colour)
    axes.set_yticks(range(len(ordered)), [row.row for row in ordered])
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    if metric == "AUROC":
        axes.axvline(0.5, color=_GREY, linestyle="--", linewidth=1)
    axes.set_xlabel(f"{metric}, mean over targets, 95 % interval")
    save(figure, path)


def plot_curves(
    curves: Mapping[str, Mapping[str, tuple[Bool[np.ndarray, "_"], Float64[np.ndarray, "_"]]]], path: Path
) -> None:
    """ROC curves, a panel a target and a line a row, from (positive, score) of tiles; seeds averaged beforehand."""
    figure = Figure(figsize=(4.6 * len(curves), 5.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    for axes, (target, rows) in zip(panels, curves.items(), strict=True):
        for number, (row, (positive, scores)) in enumerate(rows.items()):
            ranking = Ranking.of(positive, scores)
            area = float(ranking.auroc(np.ones((1, len(scores))))[0])
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": _STYLES[number // len(COLOURS) % len(_STYLES)],
            }
            axes.plot(*ranking.curve(), **style, linewidth=1.4, label=f"{row} {area:.2f}")
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
        axes.set_title(target, fontsize=10)
        axes.set_xlabel("false positive rate")
        axes.set_box_aspect(1)
        axes.legend(fontsize=7, loc="lower right")
    panels[0].set_ylabel("true positive rate")
    save(figure, path)
