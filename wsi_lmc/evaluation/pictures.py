"""Pictures of an evaluation: features of both sites, scores with intervals, the course of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsi_lmc.evaluation.scores import Score, SlideFeatures, stack

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by colour-blind readers, too
_MARKERS = {-1: ".", 0: "o", 1: "^"}
_NAMES = {-1: "", 0: ", class 0", 1: ", class 1"}


def plot_embeddings(sets: Mapping[str, Sequence[SlideFeatures]], path: Path) -> None:
    """One panel a set of features: the two leading principal components of the standardised features."""
    figure = Figure(figsize=(4.2 * len(sets), 4.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sets)))
    for axes, (name, slides) in zip(panels, sets.items(), strict=True):
        _scatter(axes, slides)
        axes.set_title(name)
        axes.set_xlabel("first principal component")
    panels[0].set_ylabel("second principal component")
    panels[-1].legend(fontsize=8, loc="best")
    figure.suptitle("Tiles of slides that no encoder has seen", fontsize=11)
    _save(figure, path)


def plot_scores(scores: Mapping[str, Sequence[Score]], path: Path) -> None:
    """Site probe and class transfer of each set of features, with 95 % intervals and chance."""
    wanted = [("site balanced accuracy", "site told from a tile (lower is better)")]
    if any(score.metric == "class AUROC" for found in scores.values() for score in found):
        wanted.append(("class AUROC", "class AUROC at the other site (higher is better)"))
    figure = Figure(figsize=(5.2 * len(wanted), 1.4 + 0.5 * len(scores)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(wanted), sharey=True))
    names = list(scores)
    for axes, (metric, title) in zip(panels, wanted, strict=True):
        for row, name in enumerate(names):
            score = next(score for score in scores[name] if score.metric == metric)
            axes.plot([score.low, score.high], [row, row], color=_COLOURS[0], linewidth=2)
            axes.plot(score.value, row, "o", color=_COLOURS[1])
        axes.axvline(0.5, color="0.6", linestyle="--", linewidth=1)
        axes.annotate("chance", (0.5, len(names) - 0.55), fontsize=8, color="0.4", va="bottom", xytext=(3, 0),
                      textcoords="offset points")  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.set_xlim(min(0.3, *(s.low for f in scores.values() for s in f)), 1.02)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    _save(figure, path)


def plot_training(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The two terms of the loss against steps, on the batches and on held-out tiles, from rows of metrics.jsonl."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, term in zip(panels, ("invariance", "redundancy"), strict=True):
        for key, label, colour in ((term, "batches", _COLOURS[0]), (f"held_out_{term}", "held out", _COLOURS[1])):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), "-o", markersize=3, color=colour, label=label)
        axes.set_xlabel("step")
        axes.set_title(f"{term} term", fontsize=10)
        axes.set_yscale("log")
    panels[0].legend(fontsize=8)
    _save(figure, path)


def _scatter(axes: Axes, slides: Sequence[SlideFeatures]) -> None:
    features, labels, slide_of = stack(slides, labelled=False)
    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    plane = left[:, :2] * values[:2]
    site_of = np.asarray([slide.site for slide in slides])[slide_of]
    for site, colour in zip(sorted(set(site_of.tolist())), _COLOURS, strict=False):
        for label, marker in _MARKERS.items():
            rows = (site_of == site) & (labels == label)
            if rows.any():
                axes.scatter(*plane[rows].T, s=14, marker=marker, color=colour, alpha=0.6, linewidths=0,
                             label=f"{site}{_NAMES[label]}")  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=140, format="png", metadata={"Software": None})
