"""Figures of a report: small ones, so that they stand side by side on wide screens and below each other on narrow ones.

Colours are those of Okabe and Ito, dashes and markers differ as well: nothing is told by colour alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from wsi_lmc.evaluation import Curve, Measure, Metric
from wsi_lmc.evaluation.embedding import Plane
from wsi_lmc.evaluation.pictures import COLOURS

_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_GREY = "#808080"
_TURNS = 6
_MOST_DECADES = 2  # of a logarithmic axis on which 2 and 5 are named, too


def measures_figure(metric: Metric, names: Sequence[str], found: Sequence[Measure | None]) -> Figure:
    """One metric: value (point), interval (line), floor (grey bar) and chance (dashes) of each encoder."""
    figure = Figure(figsize=(4.4, 0.75 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, measure in enumerate(found):
        if measure is not None:
            _draw_measure(axes, row, measure)
    axes.set_yticks(range(len(names)), [_cut(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(f"{metric.better} is better", fontsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.margins(x=0.12)
    axes.grid(axis="x", color=_GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def curves_figure(by_encoder: Mapping[str, Curve], areas: Mapping[str, str]) -> Figure:
    """ROC curves of one transfer, with each encoder's AUROC in the legend."""
    figure = Figure(figsize=(3.9, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    lines = []
    for number, curve in enumerate(by_encoder.values()):
        style: dict[str, Any] = {"color": _colour(number), "linestyle": _DASHES[number % len(_DASHES)]}
        lines += axes.plot(curve.false_positive, curve.true_positive, linewidth=1.8, **style)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    labels = [f"{_cut(name)} {areas.get(name, '')}" for name in by_encoder]
    figure.legend(lines, _shown(labels), loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def course_figure(rows: Sequence[Mapping[str, Any]], lines: Mapping[str, str], title: str, log: bool) -> Figure:
    """Metrics of a training against its steps; ``lines`` are their names by key."""
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axes = figure.subplots()
    for number, (key, label) in enumerate(lines.items()):
        points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
        style: dict[str, Any] = {"color": COLOURS[number], "marker": _MARKERS[number], "linestyle": _DASHES[number]}
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.5, markersize=3.5, **style)
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter() if _decades(axes) > _MOST_DECADES else "{x:g}")
    if len(lines) > 1:
        axes.legend(fontsize=9, frameon=False)
    return figure


def plane_figure(plane: Plane, kind: Sequence[int], names: Sequence[str]) -> Figure:
    """Tiles in the plane, coloured and marked by ``kind``: numbers among ``names``, -1 where it is not known."""
    figure = Figure(figsize=(3.9, 4.2), layout="constrained")
    axes = figure.subplots()
    order = np.random.default_rng(0).permutation(len(plane.x))
    kinds, x, y = np.asarray(kind)[order], np.asarray(plane.x)[order], np.asarray(plane.y)[order]
    turn = np.arange(len(kinds)) % _TURNS  # so that no kind covers another
    handles, labels = [], []
    for number in np.unique(kinds).tolist():
        handles.append(axes.scatter([], [], s=26, **_dots(number)))
        labels.append(_cut(str(names[number])) if number >= 0 else "no label")
        for part in range(_TURNS):
            own = (kinds == number) & (turn == part)
            axes.scatter(x[own], y[own], s=9, alpha=0.55, rasterized=True, zorder=2 + part, **_dots(number))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(_GREY)
    shown = _shown(labels)[:16]
    figure.legend(handles[:16], shown, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def rows_figure(names: Sequence[str], cells: Sequence[tuple[float, float | None, float | None]], title: str) -> Figure:
    """Values with their intervals, one below the other."""
    figure = Figure(figsize=(5.2, 0.8 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, (value, low, high) in enumerate(cells):
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=COLOURS[0], linewidth=2)
        axes.plot(value, row, "o", color=COLOURS[1], markersize=5)
    axes.set_yticks(range(len(names)), [_cut(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(title, fontsize=9)
    axes.grid(axis="x", color=_GREY, alpha=0.25, linewidth=0.6)
    return figure


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dots(number: int) -> dict[str, Any]:
    if number < 0:
        return {"color": _GREY, "marker": ".", "linewidths": 0}
    return {"color": _colour(number), "marker": _MARKERS[number % len(_MARKERS)], "linewidths": 0}


def _decades(axes: Axes) -> float:
    low, high = axes.get_ylim()
    return float(np.log10(high / low))


def _draw_measure(axes: Axes, row: int, measure: Measure) -> None:
    if measure.floor is not None:
        axes.plot([measure.floor] * 2, [row - 0.32, row + 0.32], color=_GREY, linewidth=4, solid_capstyle="butt")
    if measure.low is not None and measure.high is not None:
        axes.plot([measure.low, measure.high], [row, row], color=COLOURS[0], linewidth=2)
    axes.plot(measure.value, row, "o", color=COLOURS[1], markersize=5)
    if measure.chance is not None:
        axes.plot([measure.chance] * 2, [row - 0.42, row + 0.42], color=_GREY, linestyle="--", linewidth=1.2)


def _cut(name: str, most: int = 24) -> str:
    """A name short enough for a picture; matplotlib leaves out of legends what begins with "_"."""
    plain = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _shown(labels: Sequence[str]) -> list[str]:
    return [f"\N{ZERO WIDTH SPACE}{label}" if label.startswith("_") else label for label in labels]
