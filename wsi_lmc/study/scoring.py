"""How each row of a study did at each target: classifiers of the source's labels, tested where nothing was chosen.

Intervals are over the targets' patients and the rows' seeds, drawn together. The patients of one draw are the same for
all rows, so differences between rows have intervals of their own, narrower than the rows' scores let expect.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int64

from wsi_lmc.evaluation.resampling import interval, units_of
from wsi_lmc.evaluation.samples import Sample, equal_sites
from wsi_lmc.evaluation.siteprobe import site_probe
from wsi_lmc.evaluation.transfer import best_threshold, learn, scores_of
from wsi_lmc.heads.examples import Examples
from wsi_lmc.heads.tiles import TileKind, cross_fit
from wsi_lmc.study.data import LabelledTiles
from wsi_lmc.study.features import SOURCE

RESAMPLES = 1000
METRICS = ("AUROC", "average precision", "balanced accuracy", "F1", "accuracy")
BLIND = "blind"
"""The row that looks at nothing: of two classes it calls all tiles the second, of more the source's commonest."""
_MOST_A_SITE = 5000  # tiles that the site probe learns from

Features = Mapping[str, Float32[np.ndarray, "_ d"]]
Drawn = Float64[np.ndarray, "_ _"]
"""Scores of one row and seed at one target, a line a metric of :func:`metrics_of`: the first column of all its tiles,
the others of resamples; NaN where a class has no tile there."""


def metrics_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of all scores: those of any classes, then how many tiles of each class are called rightly."""
    return (*METRICS, *(f"accuracy of {name}" for name in classes))


@dataclass(frozen=True)
class Cell:
    """One metric: its mean over seeds, their standard deviation (0 of one seed), and the 95 % interval of the mean."""

    value: float
    low: float | None
    high: float | None
    seed_sd: float


@dataclass(frozen=True)
class Predicted:
    """What one row and seed says of the targets' tiles, and how it did on the source by patients left out.

    ``within`` is the source's own AUROC, None where its patients are too few to leave any out.
    """

    chances: Mapping[str, Float64[np.ndarray, "_ c"]]
    scores: Mapping[str, Drawn]
    within: float | None
    site: float | None
    rank: float


@dataclass(frozen=True)
class _Known:
    """What a classifier says of the targets, the threshold chosen on the source, and its own AUROC there."""

    chances: Mapping[str, Float64[np.ndarray, "_ c"]]
    threshold: float
    within: float | None


@dataclass(frozen=True)
class Marking:
    """The tiles that are tested, and which patients each resample draws: the same for every row."""

    sites: Mapping[str, LabelledTiles]
    classes: tuple[str, ...]
    seed: int = 0
    head: TileKind = "logistic"

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return tuple(name for name in self.sites if name != SOURCE)

    def mark(self, features: Features, seed: int) -> Predicted:
        """Learn the source's labels from features, and score what is predicted of the targets'."""
        known = self._known_by_probe(features, seed) if self.head == "logistic" else self._known_by_head(features, seed)
        scores = {name: self._scores(name, known.chances[name], known.threshold) for name in self.targets}
        return Predicted(known.chances, scores, known.within, self._site_told(features), effective_rank(features))

    def blind(self) -> Predicted:
        """What a row scores that is the same for every tile."""
        commonest = int(np.bincount(self.sites[SOURCE].labels).argmax())
        chance = np.eye(len(self.classes))[1 if len(self.classes) == 2 else commonest]
        chances = {name: np.tile(chance, (len(self.sites[name]), 1)) for name in self.targets}
        return Predicted(chances, {name: self._scores(name, chances[name], 0.5) for name in self.targets}, 0.5, None, 0)

    def _known_by_probe(self, features: Features, seed: int) -> _Known:
        learnt = learn(self._sample(features, (SOURCE,)), seed)
        chances = {
            name: self._all_classes(learnt.probe.predict_proba(features[name].astype(np.float64)), learnt.kinds)
            for name in self.targets
        }
        own = None
        if learnt.held_out is not None:
            truth = np.searchsorted(learnt.kinds, self.sites[SOURCE].labels).astype(np.int64)
            own = float(scores_of(truth, learnt.held_out, learnt.threshold, np.ones((1, len(truth))))[0, 0])
        return _Known(chances, learnt.threshold, own)

    def _known_by_head(self, features: Features, seed: int) -> _Known:
        """By another head than logistic regression; its folds need three patients of each class."""
        tiles, learnt = self.sites[SOURCE], features[SOURCE].astype(np.float32)
        found = cross_fit(self.head, Examples(learnt, tiles.labels, _numbers(tiles.groups), len(self.classes)), seed)
        held_out = np.zeros((len(tiles), len(self.classes)))
        for number, head in enumerate(found.held_out):
            held_out[found.folds == number] = head.probabilities(learnt[found.folds == number])
        threshold = best_threshold(tiles.labels, held_out[:, 1]) if len(self.classes) == 2 else 0.5
        own = float(scores_of(tiles.labels, held_out, threshold, np.ones((1, len(tiles))))[0, 0])
        return _Known({name: found.head.probabilities(features[name]) for name in self.targets}, threshold, own)

    def _scores(self, name: str, chances: Float64[np.ndarray, "n c"], threshold: float) -> Drawn:
        truth = self.sites[name].labels
        called = (chances[:, 1] >= threshold) if len(self.classes) == 2 else chances.argmax(axis=1)
        right = (called == truth).astype(np.float64)
        members = [np.ones(len(truth)), *(truth[None] == np.arange(len(self.classes))[:, None]).astype(np.float64)]
        parts = []
        for weights in self._weights[name]:
            ranked = scores_of(truth, chances, threshold, weights)
            parts.append(np.concatenate([ranked, [_share(weights, right, each) for each in members]]))
        return np.concatenate(parts, axis=1)

    @cached_property
    def _weights(self) -> dict[str, list[Float64[np.ndarray, "_ n"]]]:
        """Weights of each target's tiles: ones, then a row a resample of its patients."""
        found: dict[str, list[np.ndarray]] = {}
        for name in self.targets:
            tiles = self.sites[name]
            units = units_of(_numbers(tiles.groups), np.zeros(len(tiles), np.int64), (name,))
            rng = np.random.default_rng((self.seed, zlib.crc32(name.encode())))  # alike in studies of other sources
            found[name] = [np.ones((1, len(tiles))), *units.weights(RESAMPLES, rng)]
        return found

    def _all_classes(
        self, chances: Float64[np.ndarray, "n k"], kinds: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, "n c"]:
        """Columns for every class, those that the source lacks being 0."""
        whole = np.zeros((len(chances), len(self.classes)))
        whole[:, kinds] = chances
        return whole

    def _site_told(self, features: Features) -> float | None:
        sample = equal_sites(self._sample(features, tuple(self.sites)), _MOST_A_SITE, self.seed)
        found, _ = site_probe(sample, 1, self.seed)
        return next((measure.value for measure in found if measure.metric == "site_balanced_accuracy"), None)

    def _sample(self, features: Features, names: Sequence[str]) -> Sample:
        groups = [f"{name}/{group}" for name in names for group in self.sites[name].groups]
        labels = np.concatenate([self.sites[name].labels for name in names])
        site = np.repeat(np.arange(len(names)), [len(self.sites[name]) for name in names])
        stacked = np.concatenate([features[name] for name in names]).astype(np.float32)
        return Sample(stacked, site.astype(np.int64), _numbers(groups), labels, tuple(names), self.classes, len(labels))


@dataclass(frozen=True)
class RowScore:
    """One row of the table: ``at`` each target and, where there are several, their mean; ``gain`` over another row."""

    row: str
    seeds: int
    at: Mapping[str, Mapping[str, Cell]]
    mean: Mapping[str, Cell]
    gain: Mapping[str, Cell]
    within: float | None
    site: float | None
    rank: float


def score_rows(
    predicted: Mapping[str, Sequence[Predicted]], reference: str, classes: Sequence[str], seed: int = 0
) -> list[RowScore]:
    """Scores of all rows; ``gain`` is how much the ``reference`` row has over each (empty where it is not there)."""
    metrics = metrics_of(classes)
    means = {row: _over_targets(found) for row, found in predicted.items()}
    scores: list[RowScore] = []
    for row, found in predicted.items():
        against = means.get(reference)
        gain = {} if against is None or row == reference else _difference(against, means[row], metrics, seed)
        at = {target: _cells([each.scores[target] for each in found], metrics, seed) for target in found[0].scores}
        within = [each.within for each in found if each.within is not None]
        site = [each.site for each in found if each.site is not None]
        scores.append(
            RowScore(
                *(row, len(found), at, _cells(means[row], metrics, seed), gain),
                float(np.mean(within)) if within else None,
                float(np.mean(site)) if site else None,
                float(np.mean([each.rank for each in found])),
            )
        )
    return scores


def effective_rank(features: Features) -> float:
    """Exponential of the entropy of the singular values' shares, of all sites' centred features together."""
    stacked = np.concatenate(list(features.values())).astype(np.float64)
    values = np.linalg.svd(stacked - stacked.mean(axis=0), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _over_targets(found: Sequence[Predicted]) -> list[Drawn]:
    """Means over the targets, or over those that have the class which a metric is of."""
    return [_mean_known(np.stack(list(each.scores.values()))) for each in found]


def _mean_known(values: Float64[np.ndarray, "t m r1"]) -> Drawn:
    known = np.isfinite(values)
    return np.where(known.any(0), np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _share(
    weights: Float64[np.ndarray, "r n"], right: Float64[np.ndarray, " n"], members: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " r"]:
    """Share of right calls among members."""
    count = weights @ members
    return np.where(count > 0, weights @ (right * members) / np.maximum(count, 1e-12), np.nan)


def _cells(seeds: Sequence[Drawn], metrics: Sequence[str], seed: int) -> dict[str, Cell]:
    """Of every metric that there is a value of."""
    values = np.stack(seeds)
    drawn = _seed_means(values, seed)
    return {
        metric: Cell(float(values[:, place, 0].mean()), *interval(drawn[place]), _deviation(values[:, place, 0]))
        for place, metric in enumerate(metrics)
        if np.isfinite(values[:, place, 0]).all()
    }


def _difference(one: Sequence[Drawn], other: Sequence[Drawn], metrics: Sequence[str], seed: int) -> dict[str, Cell]:
    ones, others = np.stack(one), np.stack(other)
    drawn = _seed_means(ones, seed) - _seed_means(others, seed)
    value = ones[:, :, 0].mean(axis=0) - others[:, :, 0].mean(axis=0)
    spread = np.hypot(*np.stack([part[:, :, 0].std(axis=0, ddof=min(1, len(part) - 1)) for part in (ones, others)]))
    return {
        metric: Cell(float(value[place]), *interval(drawn[place]), float(spread[place]))
        for place, metric in enumerate(metrics)
        if np.isfinite(value[place])
    }


def _seed_means(values: Float64[np.ndarray, "s m r1"], seed: int) -> Float64[np.ndarray, "m r"]:
    """Mean over seeds drawn anew for each resample of patients."""
    count, _, columns = values.shape
    chosen = np.random.default_rng((seed, count)).integers(0, count, (columns - 1, count))
    picked = np.stack([values[chosen[:, place], :, np.arange(1, columns)] for place in range(count)])
    return picked.mean(axis=0).T


def _deviation(values: Float64[np.ndarray, " s"]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _numbers(names: Sequence[str]) -> Int64[np.ndarray, " n"]:
    return np.unique(names, return_inverse=True)[1].astype(np.int64).reshape(-1)
