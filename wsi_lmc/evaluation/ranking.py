"""Scores of predictions under many weightings at once: what a bootstrap needs, in one pass over the sorted tiles."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64


@dataclass(frozen=True)
class Ranking:
    """Tiles by falling score: which are positive, their order, and where runs of equal scores end."""

    positive: Bool[np.ndarray, " n"]
    order: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " t"]

    @classmethod
    def of(cls, positive: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> "Ranking":
        """Rank tiles by their scores."""
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)
        return cls(positive[order], order, ends)

    def counts(
        self, weights: Float64[np.ndarray, "r n"]
    ) -> tuple[Float64[np.ndarray, "r t"], Float64[np.ndarray, "r t"]]:
        """Weight of true and of false positives when all down to each run's end are called positive."""
        ordered = weights[:, self.order]
        hits = np.cumsum(np.where(self.positive, ordered, 0.0), axis=1)[:, self.ends]
        return hits, np.cumsum(ordered, axis=1)[:, self.ends] - hits

    def auroc(self, weights: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, " r"]:
        """Area under the ROC curve, one a row; NaN where one kind is missing."""
        hits, alarms = self.counts(weights)
        before = np.concatenate([np.zeros((len(hits), 1)), hits[:, :-1]], axis=1)
        gained = np.diff(alarms, axis=1, prepend=0.0)
        return _ratio(((hits + before) / 2 * gained).sum(axis=1), hits[:, -1] * alarms[:, -1])

    def average_precision(self, weights: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, " r"]:
        """Mean precision over the recalls; NaN without positives."""
        hits, alarms = self.counts(weights)
        called = hits + alarms
        precision = np.where(called > 0, hits / np.where(called > 0, called, 1.0), 0.0)
        return _ratio((np.diff(hits, axis=1, prepend=0.0) * precision).sum(axis=1), hits[:, -1])

    def curve(self) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]]:
        """False and true positive rates from (0, 0) to (1, 1)."""
        hits, alarms = (part[0] for part in self.counts(np.ones((1, len(self.order)))))
        return np.append(0.0, alarms / max(alarms[-1], 1e-300)), np.append(0.0, hits / max(hits[-1], 1e-300))


def confusion(
    truth: Int64[np.ndarray, " n"], called: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, "r n"], kinds: int
) -> Float64[np.ndarray, "r c c"]:
    """Weight of tiles by true and called class, one table a row."""
    cells = [[weights @ ((truth == a) & (called == b)) for b in range(kinds)] for a in range(kinds)]
    return np.moveaxis(np.asarray(cells, np.float64), 2, 0)


def balanced_accuracies(table: Float64[np.ndarray, "r c c"]) -> Float64[np.ndarray, " r"]:
    """Mean recall of the classes that are there."""
    recall = _ratio(np.diagonal(table, axis1=1, axis2=2), table.sum(axis=2))
    return np.nanmean(recall, axis=1)


def f1_scores(table: Float64[np.ndarray, "r c c"]) -> Float64[np.ndarray, " r"]:
    """F1 of the last class where there are two, of more classes the mean of those that are there."""
    right = np.diagonal(table, axis1=1, axis2=2)
    each = _ratio(2 * right, table.sum(axis=1) + table.sum(axis=2))
    if table.shape[1] == 2:
        return each[:, 1]
    return np.nanmean(np.where(table.sum(axis=2) > 0, np.nan_to_num(each), np.nan), axis=1)


def blind_f1(truth: Int64[np.ndarray, " n"], kinds: int) -> float:
    """F1 of calling everything positive, 2p / (1 + p); of more classes of calling everything the most frequent one."""
    counts = np.bincount(truth, minlength=kinds)
    if kinds == 2:
        share = counts[1] / counts.sum()
        return float(2 * share / (1 + share))
    share = counts.max() / counts.sum()
    return float(2 * share / (1 + share) / (counts > 0).sum())


def _ratio(a: Float64[np.ndarray, "*s"], b: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
    return np.where(b > 0, a / np.where(b > 0, b, 1.0), np.nan)
