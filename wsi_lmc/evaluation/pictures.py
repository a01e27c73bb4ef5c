"""Pictures of an evaluation: measures with intervals, ROC curves of transfers; and the course of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsi_lmc.evaluation.measures import METRICS, Curve, Evaluation, Measure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Of Okabe and Ito: told apart by colour-blind readers, too."""
_MOST_CURVES = 12
_DASHES = ("-", "--", ":", "-.")


def plot_measures(evaluation: Evaluation, path: Path) -> None:
    """A panel a metric over all sites: each encoder's value and interval, its floor, and chance."""
    shown = [name for name in METRICS if name != "w2" and any(one.find(name) for one in evaluation.encoders)]
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    names = [encoder.name for encoder in evaluation.encoders]
    figure = Figure(figsize=(4.3 * columns + 1, (1.15 + 0.3 * len(names)) * rows + 0.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for number, (axes, name) in enumerate(zip(panels, shown, strict=False)):
        _panel(axes, name, [encoder.find(name) for encoder in evaluation.encoders])
        axes.set_yticks(range(len(names)), names if number % columns == 0 else [""] * len(names), fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
    if not shown:
        panels[0].annotate("nothing could be measured: too few tiles", (0.5, 0.5), ha="center")
    sites = ", ".join(evaluation.sites)
    figure.suptitle(
        f"{evaluation.by.capitalize()}s: {sites if len(sites) < 90 else len(evaluation.sites)}\n"
        "point and line: value, 95 % interval;  grey bar: floor (no batch effect);  dashes: chance",
        fontsize=9,
    )
    save(figure, path)


def plot_curves(evaluation: Evaluation, path: Path) -> None:
    """A panel a transfer (the first dozen): the ROC curve of each encoder."""
    pairs: list[tuple[str, str]] = []
    for encoder in evaluation.encoders:
        pairs += [(c.source, c.target) for c in encoder.curves if (c.source, c.target) not in pairs]
    shown = pairs[:_MOST_CURVES]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 3.3 * rows + 0.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, pair in zip(panels, shown, strict=False):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        for number, encoder in enumerate(evaluation.encoders):
            curve = next((one for one in encoder.curves if (one.source, one.target) == pair), None)
            if curve is not None:
                _draw_curve(axes, number, curve, f"{encoder.name} {_area(encoder.find('transfer_auroc', pair))}")
        axes.set_title(" to ".join(pair), fontsize=9)
        axes.set_xlabel("false positive rate", fontsize=8)
        axes.set_ylabel("true positive rate", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_aspect("equal")
        axes.legend(fontsize=6.5, loc="lower right")
    rest = f" (the first {len(shown)} of {len(pairs)})" if len(pairs) > len(shown) else ""
    figure.suptitle(f"Learnt at one {evaluation.by}, tested at another{rest}\nAUROC in the legend", fontsize=10)
    save(figure, path)


def plot_training(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The two terms of the loss against steps, on the batches and on held-out tiles, from rows of metrics.jsonl."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, term in zip(panels, ("invariance", "redundancy"), strict=True):
        for key, label, colour in ((term, "batches", COLOURS[0]), (f"held_out_{term}", "held out", COLOURS[1])):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), "-o", markersize=3, color=colour, label=label)
        axes.set_xlabel("step")
        axes.set_title(f"{term} term", fontsize=10)
        axes.set_yscale("log")
    panels[0].legend(fontsize=8)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without a note of what drew it."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=140, format="png", metadata={"Software": None})


def _panel(axes: Axes, name: str, found: Sequence[Measure | None]) -> None:
    chances = [one.chance for one in found if one is not None and one.chance is not None]
    for row, measure in enumerate(found):
        if measure is None:
            continue
        if measure.floor is not None:
            axes.plot([measure.floor] * 2, [row - 0.32, row + 0.32], color="0.6", linewidth=4, solid_capstyle="butt")
        if measure.low is not None and measure.high is not None:
            axes.plot([measure.low, measure.high], [row, row], color=COLOURS[0], linewidth=2)
        axes.plot(measure.value, row, "o", color=COLOURS[1], markersize=5)
        if measure.chance is not None and max(chances) - min(chances) > 1e-9:
            axes.plot([measure.chance] * 2, [row - 0.4, row + 0.4], color="0.4", linestyle="--", linewidth=1)
    if chances and max(chances) - min(chances) <= 1e-9:
        axes.axvline(chances[0], color="0.4", linestyle="--", linewidth=1)
    axes.set_title(f"{METRICS[name].title} ({METRICS[name].better} is better)", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.12)
    if METRICS[name].bounded:
        axes.set_xlim(-0.03, 1.03)
    elif METRICS[name].better == "lower":
        axes.set_xlim(left=0)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_curve(axes: Axes, number: int, curve: Curve, label: str) -> None:
    colour, dashes = COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % len(_DASHES)]
    axes.plot(curve.false_positive, curve.true_positive, color=colour, linestyle=dashes, linewidth=1.5, label=label)


def _area(measure: Measure | None) -> str:
    return "" if measure is None else f"{measure.value:.2f}"
