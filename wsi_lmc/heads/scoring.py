"""How well a head did, for two classes or many: scores with intervals by patient, and what no skill would reach.

Resampling patients changes how often each example counts, not its rank. So each metric is prepared once (sorted) and
then evaluated for weights, which lets a thousand resamples of a hundred thousand tiles take seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

RESAMPLES = 1000
Weighted = Callable[[Float64[np.ndarray, " n"]], float]
"""A metric of prepared examples, for a weight of each; NaN where a class that it needs has no weight."""


@dataclass(frozen=True)
class Results:
    """Known examples and what was predicted of them.

    ``probabilities`` has a row an example and a column a class; ``groups`` are numbers of patients; ``thresholds`` (of
    two classes) is what the second class's probability must reach in each row to be called.
    """

    truth: Int64[np.ndarray, " n"]
    probabilities: Float[np.ndarray, "n k"]
    groups: Int64[np.ndarray, " n"]
    thresholds: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Naming:
    """Names of the classes (of two, the last is the positive one), and which is the most frequent at the source."""

    classes: tuple[str, ...]
    majority: int


@dataclass(frozen=True)
class HeadScore:
    """A metric, its 95 % interval, and what it is worth without skill.

    ``baseline`` is the score of the trivial answer that ``baseline_is`` names. ``interval_over`` says what was drawn
    anew: patients, or examples where there is but one patient. ``seed_mean`` and ``seed_sd`` are of single seeds,
    ``value`` of their averaged probabilities.
    """

    metric: str
    value: float
    low: float
    high: float
    baseline: float
    baseline_is: str
    interval_over: str
    seed_mean: float
    seed_sd: float


def best_threshold(truth: Int64[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """The threshold of best F1: half-way between the scores around it; the highest of equally good ones.

    Where nothing is positive, 0.5.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], truth[order] == 1
    last = np.r_[np.nonzero(np.diff(ordered))[0], len(ordered) - 1]
    hits = np.cumsum(positive)[last]
    if not positive.any():
        return 0.5
    f1 = 2 * hits / (last + 1 + positive.sum())
    best = int(np.argmax(f1))
    below = ordered[last[best] + 1] if best + 1 < len(last) else 0.0
    return float((ordered[last[best]] + below) / 2)


def score(results: Results, single: Sequence[Results], naming: Naming, seed: int) -> list[HeadScore]:
    """Every metric of some examples, with intervals; none where there are no examples.

    Args:
        results: with the probabilities averaged over the seeds.
        single: the same examples with the probabilities of each seed.
        naming: of the classes.
        seed: draws the resamples.
    """
    if not len(results.truth):
        return []
    prepared = _metrics(results, naming.classes)
    ones = np.ones(len(results.truth))
    drawn: dict[str, list[float]] = {metric: [] for metric in prepared}
    resamples, over = _resamples(results.groups, np.random.default_rng(seed))
    for weights in resamples:
        for metric, evaluate in prepared.items():
            drawn[metric].append(evaluate(weights))
    alone = [_metrics(each, naming.classes) for each in single]
    found: list[HeadScore] = []
    for metric, evaluate in prepared.items():
        by_seed = np.asarray([each[metric](ones) for each in alone])
        spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")
        found.append(
            HeadScore(
                metric,
                evaluate(ones),
                *_interval(drawn[metric]),
                *_without_skill(metric, results.truth, naming),
                over,
                float(by_seed.mean()),
                spread,
            )
        )
    return found


def _resamples(
    groups: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[Iterator[Float64[np.ndarray, " n"]], str]:
    """How often each example counts in each resample, and what is drawn: patients, or examples where one patient is."""
    units = np.unique(groups, return_inverse=True)[1].reshape(-1)
    over = "patients"
    if not units.any():
        units, over = np.arange(len(groups)), "examples"
    count = int(units.max()) + 1
    share = np.full(count, 1 / count)
    return (rng.multinomial(count, share)[units].astype(np.float64) for _ in range(RESAMPLES)), over


def _interval(drawn: Sequence[float]) -> tuple[float, float]:
    known = np.asarray(drawn)[np.isfinite(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _metrics(results: Results, classes: tuple[str, ...]) -> dict[str, Weighted]:
    """Metrics by name; calls are of the most probable class, but for the F1 of two classes, which has its threshold."""
    truth, probabilities = results.truth, results.probabilities
    count = len(classes)
    ranked = range(1, 2) if count == 2 else range(count)
    areas = [_auroc(truth == kind, probabilities[:, kind]) for kind in ranked]
    precisions = [_average_precision(truth == kind, probabilities[:, kind]) for kind in ranked]
    called = np.argmax(probabilities, axis=1)
    by_threshold = (probabilities[:, -1] >= results.thresholds).astype(np.int64) if count == 2 else called
    macro = "" if count == 2 else "macro "
    found: dict[str, Weighted] = {
        f"{macro}AUROC": _averaged(areas),
        f"{macro}average precision": _averaged(precisions),
        "balanced accuracy": lambda weights: _mean(_recalls(_confusion(truth, called, weights, count))),
        f"{macro}F1": lambda weights: _f1(_confusion(truth, by_threshold, weights, count)),
        "accuracy": lambda weights: _ratio(float(weights[truth == called].sum()), float(weights.sum())),
    }
    for kind, name in enumerate(classes):
        found[f"accuracy of {name}"] = _recall(truth, called, kind)
    return found


def _auroc(positive: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Weighted:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half."""
    values, rank = np.unique(scores, return_inverse=True)

    def evaluate(weights: Float64[np.ndarray, " n"]) -> float:
        ones = np.bincount(rank[positive], weights[positive], len(values))
        zeros = np.bincount(rank[~positive], weights[~positive], len(values))
        outranked = np.cumsum(zeros) - zeros / 2
        return _ratio(float(ones @ outranked), float(ones.sum() * zeros.sum()))

    return evaluate


def _average_precision(positive: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Weighted:
    """Mean precision over the recalls, equal scores taken together."""
    values, rank = np.unique(-scores, return_inverse=True)

    def evaluate(weights: Float64[np.ndarray, " n"]) -> float:
        gained = np.bincount(rank[positive], weights[positive], len(values))
        called = np.cumsum(np.bincount(rank, weights, len(values)))
        precision = np.cumsum(gained) / np.maximum(called, 1e-12)
        return _ratio(float(gained @ precision), float(gained.sum()))

    return evaluate


def _averaged(metrics: Sequence[Weighted]) -> Weighted:
    return lambda weights: _mean(np.asarray([metric(weights) for metric in metrics]))


def _recall(truth: Int64[np.ndarray, " n"], called: Int64[np.ndarray, " n"], kind: int) -> Weighted:
    own, right = truth == kind, (truth == kind) & (called == kind)
    return lambda weights: _ratio(float(weights[right].sum()), float(weights[own].sum()))


def _confusion(
    truth: Int64[np.ndarray, " n"], called: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"], count: int
) -> Float64[np.ndarray, "k k"]:
    return np.bincount(truth * count + called, weights, count * count).reshape(count, count)


def _recalls(confusion: Float64[np.ndarray, "k k"]) -> Float64[np.ndarray, " k"]:
    """Share of each class that was called so; NaN where there is none of it."""
    totals = confusion.sum(axis=1)
    return np.where(totals > 0, np.diag(confusion) / np.maximum(totals, 1e-12), np.nan)


def _f1(confusion: Float64[np.ndarray, "k k"]) -> float:
    """Of two classes the last one's F1; of more the mean over those that are there or were called."""
    there = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = np.where(there > 0, 2 * np.diag(confusion) / np.maximum(there, 1e-12), np.nan)
    return float(f1[-1]) if len(f1) == 2 else _mean(f1)


def _without_skill(metric: str, truth: Int64[np.ndarray, " n"], naming: Naming) -> tuple[float, str]:
    """What a trivial answer scores, and which."""
    classes, majority = naming.classes, naming.majority
    shares = np.bincount(truth, minlength=len(classes)) / len(truth)
    always = f"always {classes[majority]}"
    present = shares[shares > 0]
    if metric.endswith("AUROC"):
        return 0.5, "chance"
    if metric.endswith("average precision"):
        return float(shares[-1] if len(classes) == 2 else present.mean()), "chance"
    if metric == "balanced accuracy":
        return 1 / len(present), "always one class"
    if metric == "F1":
        return float(2 * shares[-1] / (1 + shares[-1])), f"always {classes[-1]}"
    if metric == "macro F1":
        own = 2 * shares[majority] / (1 + shares[majority])
        return float(own / len(set(np.unique(truth)) | {majority})), always
    if metric == "accuracy":
        return float(shares[majority]), always
    return float(metric == f"accuracy of {classes[majority]}"), always


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _mean(values: Float64[np.ndarray, " n"]) -> float:
    """Mean of those that are known."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
