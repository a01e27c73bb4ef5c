"""Scores with their intervals; the slide, never the tile, is what is drawn anew in a bootstrap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64
from scipy.stats import rankdata

_RESAMPLES = 1000


@dataclass(frozen=True)
class SlideFeatures:
    """Features of one slide's tiles; ``labels`` is -1 where a tile's class is unknown.

    ``origins`` are the tiles' corners (x, y) in level-0 pixels, ``store`` the tile store they were embedded from; both
    where they are known.
    """

    slide_id: str
    patient: str
    site: str
    features: Float[np.ndarray, "n d"]
    labels: Int64[np.ndarray, " n"]
    origins: Int32[np.ndarray, "n 2"] | None = None
    store: Path | None = None


@dataclass(frozen=True)
class FeatureSet:
    """Features of one encoder for tiles of several slides; labels are numbers among ``classes``.

    ``tiles`` counts all usable tiles of these slides, of which the features may be a sample.
    """

    name: str
    slides: tuple[SlideFeatures, ...]
    classes: tuple[str, ...]
    tiles: int

    def at(self, *sites: str) -> tuple[SlideFeatures, ...]:
        """Slides of some sites."""
        return tuple(slide for slide in self.slides if slide.site in sites)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in order."""
        return tuple(sorted({slide.site for slide in self.slides}))


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % bootstrap interval over slides, and what it was computed on."""

    metric: str
    value: float
    low: float
    high: float
    chance: float
    tiles: int
    slides: int


Metric = Callable[[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]], float]


def auroc(truth: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]) -> float:
    """Area under the ROC curve by ranks, ties shared; NaN where one class is missing."""
    positive = truth == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def balanced_accuracy(truth: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]) -> float:
    """Mean of sensitivity and specificity at a probability of 0.5; NaN where one class is missing."""
    called = scores >= 0.5
    shares = [float((called[truth == kind] == bool(kind)).mean()) for kind in (0, 1) if (truth == kind).any()]
    return float(np.mean(shares)) if len(shares) == 2 else float("nan")


def average_precision(truth: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]) -> float:
    """Mean precision over the recalls, equal scores taken together; NaN without positives."""
    order = np.argsort(-scores, kind="stable")
    ordered, ranked = truth[order] == 1, scores[order]
    if not ordered.any():
        return float("nan")
    last = np.r_[np.nonzero(np.diff(ranked))[0], len(ranked) - 1]
    hits = np.cumsum(ordered)[last]
    gained = np.diff(np.r_[0, hits])
    return float((gained * hits / (last + 1)).sum() / ordered.sum())


def with_interval(
    name: str,
    metric: Metric,
    data: tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]],
    slides: tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " s"]],
    rng: np.random.Generator,
) -> Score:
    """A metric and its bootstrap interval.

    Args:
        name: of the metric.
        metric: of truth and scores.
        data: truth (0 or 1) and score of each tile.
        slides: number of each tile's slide, and the stratum (site) of each slide; slides are drawn within strata.
        rng: draws the resamples.
    """
    truth, scores = data
    slide_of, stratum_of = slides
    rows = [np.nonzero(slide_of == number)[0] for number in range(len(stratum_of))]
    strata = [np.nonzero(stratum_of == stratum)[0] for stratum in np.unique(stratum_of)]
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = np.concatenate([rng.choice(members, len(members)) for members in strata])
        index = np.concatenate([rows[number] for number in chosen])
        drawn.append(metric(truth[index], scores[index]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    chance = float((truth == 1).mean()) if metric is average_precision else 0.5
    return Score(name, metric(truth, scores), float(low), float(high), chance, len(truth), len(rows))


def stack(
    slides: Sequence[SlideFeatures], labelled: bool
) -> tuple[Float[np.ndarray, "n d"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Features, labels and slide number of all tiles; only labelled tiles where asked for."""
    keep = [slide.labels >= 0 if labelled else np.ones(len(slide.labels), bool) for slide in slides]
    features = np.concatenate([slide.features[rows] for slide, rows in zip(slides, keep, strict=True)])
    labels = np.concatenate([slide.labels[rows] for slide, rows in zip(slides, keep, strict=True)])
    numbers = np.concatenate([np.full(int(rows.sum()), number) for number, rows in enumerate(keep)])
    return features.astype(np.float64), labels, numbers
