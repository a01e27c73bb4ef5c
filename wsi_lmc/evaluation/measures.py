"""What an evaluation says: measures with interval, floor and chance, and how each is to be read.

A bare number misleads here: a distance is never 0 between two samples of one distribution, F1 is high where positives
are many, and a cosine is high where an encoder has collapsed. So every measure comes with what it has to be held
against.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]
Kind = Literal["batch", "tissue", "transfer", "pairs"]


@dataclass(frozen=True)
class Metric:
    """A metric: its name for people, which way is good, what it speaks of, and how to read it in plain words."""

    title: str
    better: Better
    kind: Kind
    reading: str

    @property
    def bounded(self) -> bool:
        """Whether it lies between 0 and 1."""
        return not any(word in self.title for word in ("distance", "shift", "cosine"))


@dataclass(frozen=True)
class Measure:
    """One metric of one encoder.

    ``between`` names two sites, source and target, or nobody: then it is about all sites. ``low`` and ``high`` bound
    the 95 % interval, drawn anew ``over`` groups or tiles. ``floor`` is what comes out where there is no batch effect,
    by the same means from the same tiles; ``chance`` what comes out for features that say nothing. Both are None where
    they are not known. It was computed on ``tiles`` tiles out of ``of``, of so many ``groups``.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    tiles: int
    of: int
    groups: int
    floor: float | None = None
    chance: float | None = None
    between: tuple[str, ...] = ()
    over: str = ""
    note: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A metric that could not be computed, and why."""

    metric: str
    reason: str
    between: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A ROC curve of a transfer at 101 false positive rates; of several classes their mean."""

    source: str
    target: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]


@dataclass(frozen=True)
class Gain:
    """What ``encoder`` has over ``other`` in a transfer, with the 95 % interval of that difference itself.

    Groups of the target are drawn for both at once. ``between`` names source and target, or nobody: the mean of all.
    """

    metric: str
    encoder: str
    other: str
    between: tuple[str, ...]
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class EncoderResult:
    """All that was found of one set of features."""

    name: str
    dimension: int
    tiles: int
    of: int
    slides: int
    groups: int
    measures: tuple[Measure, ...]
    left_out: tuple[LeftOut, ...]
    curves: tuple[Curve, ...]

    def find(self, metric: str, between: tuple[str, ...] = ()) -> Measure | None:
        """One measure by its name and sites, or None."""
        wanted = (metric, between)
        return next((measure for measure in self.measures if (measure.metric, measure.between) == wanted), None)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as ``evaluation.json`` holds it; ``settings`` are the configuration as plain values.

    ``gains`` are those of the last encoder over each other one.
    """

    by: str
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    settings: Mapping[str, object]
    encoders: tuple[EncoderResult, ...]
    gains: tuple[Gain, ...] = ()

    def gain_over(self, other: str, metric: str, between: tuple[str, ...] = ()) -> Gain | None:
        """What the last encoder has over another one, or None."""
        wanted = (other, metric, between)
        return next((each for each in self.gains if (each.other, each.metric, each.between) == wanted), None)


_DISTANCE = "Hold it against the floor, the same between two halves of one site: only what lies above is a difference."
METRICS: dict[str, Metric] = {
    "w2_relative": Metric(
        "Wasserstein distance, scale-free",
        "lower",
        "batch",
        f"Distance of two sites' features as Gaussians, in units of their own spread (root of the mean trace). "
        f"{_DISTANCE} Sites whose tissue differs lie apart for that, too.",
    ),
    "w2": Metric(
        "Wasserstein distance",
        "lower",
        "batch",
        f"The same in the features' own units: not to be compared between encoders. {_DISTANCE}",
    ),
    "centroid_shift": Metric(
        "shift of the centre, scale-free",
        "lower",
        "batch",
        f"Distance of two sites' mean features in units of their own spread; blind to differences of shape. "
        f"{_DISTANCE} (No cross-fusion distance.)",
    ),
    "transport_relative": Metric(
        "exact transport distance, scale-free",
        "lower",
        "batch",
        f"Exact optimal transport between few tiles of two sites: a second opinion that takes nothing for Gaussian. "
        f"Far from 0 by itself, since tiles are few. {_DISTANCE}",
    ),
    "site_balanced_accuracy": Metric(
        "site told from a tile",
        "lower",
        "batch",
        "How often a linear probe names a tile's site, groups it has not seen; at chance the site is invisible to it.",
    ),
    "site_auroc": Metric(
        "site told, AUROC",
        "lower",
        "batch",
        "The same by ranking, one site against the others, mean of the sites; 0.5 is chance.",
    ),
    "kbet": Metric(
        "kBET acceptance",
        "higher",
        "batch",
        "Share of tiles whose neighbours come from the sites as all tiles do. Strict: slides' own marks lower it as "
        "well, so hold it against the floor, where slides were dealt to pretended sites.",
    ),
    "ilisi": Metric(
        "iLISI",
        "higher",
        "batch",
        "Sites among a tile's neighbours: 0 its own alone, 1 all alike. The floor deals slides to pretended sites.",
    ),
    "silhouette_batch": Metric(
        "silhouette of the sites",
        "higher",
        "batch",
        "1: sites overlap within each class; less: they form clusters. Its range is narrow; see the floor.",
    ),
    "robustness_index": Metric(
        "robustness index",
        "higher",
        "tissue",
        "Of the neighbours in other groups that share either class or site, the share that have the class: 1 only "
        "tissue counts, 0 only the site. Chance is that of neighbours picked blindly.",
    ),
    "clisi": Metric(
        "cLISI",
        "higher",
        "tissue",
        "Classes among a tile's neighbours: 1 its own alone, 0 all alike. Neighbours may be of its own slide.",
    ),
    "silhouette_label": Metric(
        "silhouette of the classes",
        "higher",
        "tissue",
        "Above 0.5 classes form clusters, at 0.5 they overlap.",
    ),
    "transfer_auroc": Metric(
        "class at another site, AUROC",
        "higher",
        "transfer",
        "A linear classifier trained and chosen on the source, tested on the target; 0.5 is chance.",
    ),
    "transfer_average_precision": Metric(
        "class at another site, average precision",
        "higher",
        "transfer",
        "The same by precision and recall; chance is the share of positives at the target.",
    ),
    "transfer_balanced_accuracy": Metric(
        "class at another site, balanced accuracy",
        "higher",
        "transfer",
        "At the threshold chosen on the source alone; where appearance shifts, it suffers before AUROC does.",
    ),
    "transfer_f1": Metric(
        "class at another site, F1",
        "higher",
        "transfer",
        "At the threshold chosen on the source alone. Chance is what calling everything one class gives: a bare F1 "
        "misleads.",
    ),
    "source_auroc": Metric(
        "class within the site, AUROC",
        "higher",
        "transfer",
        "What the classifier reaches on the source's own groups, each left out in turn: the most to hope for.",
    ),
    "pair_top1": Metric(
        "same tissue found, first hit",
        "higher",
        "pairs",
        "How often the nearest tile of the other scan, by cosine, is the same tissue.",
    ),
    "pair_topk": Metric(
        "same tissue found, among k",
        "higher",
        "pairs",
        "How often the same tissue is among the k nearest tiles of the other scan.",
    ),
    "pair_cosine": Metric(
        "cosine of the same tissue",
        "higher",
        "pairs",
        "Mean cosine of the two scans of a tile. High for a collapsed encoder as well: chance is that of tiles that do "
        "not belong together, and retrieval is the better judge.",
    ),
}
