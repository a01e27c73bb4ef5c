"""Does a class learnt at one site hold at another? Everything is chosen on the source; the target is only tested.

A logistic regression on frozen features. Its regularisation, and of two classes the threshold, are chosen by
predictions for the source's groups that it has not seen. Beside every score stands what a blind guess gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.pipeline import Pipeline

from wsi_lmc.evaluation.linear import FOLDS, model, most_folds, out_of_fold
from wsi_lmc.evaluation.measures import Curve, LeftOut, Measure
from wsi_lmc.evaluation.ranking import Ranking, balanced_accuracies, blind_f1, confusion, f1_scores
from wsi_lmc.evaluation.resampling import interval, lonely_note, units_of
from wsi_lmc.evaluation.samples import Sample

_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
_UNCHOSEN = 0.1
METRICS = ("transfer_auroc", "transfer_average_precision", "transfer_balanced_accuracy", "transfer_f1")
_GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Learnt:
    """A classifier of the source's classes ``kinds`` (numbers); ``threshold`` counts where there are two.

    ``held_out`` are probabilities for the source's own tiles by groups left out, or None where that cannot be.
    """

    probe: Pipeline
    kinds: Int64[np.ndarray, " c"]
    strength: float
    threshold: float
    held_out: Float64[np.ndarray, "n c"] | None


@dataclass
class Transferred:
    """What transfers gave: measures, curves, what was left out; and scores with their resamples' by transfer."""

    measures: list[Measure]
    curves: list[Curve]
    left_out: list[LeftOut]
    drawn: dict[tuple[str, ...], Float64[np.ndarray, "m r1"]]


def transfers(sample: Sample, source: str, resamples: int, seed: int) -> Transferred:
    """Train at each site (or at ``source`` alone) and test at all others; the means over them come first.

    ``sample`` is labelled.
    """
    result = Transferred([], [], [], {})
    for number in range(len(sample.sites)):
        name = sample.sites[number]
        if source and name != source:
            continue
        own = sample.at(number)
        if len(np.unique(own.label)) < 2:
            result.left_out.append(LeftOut("transfer_auroc", f"{name}: labels of one class only", (name,)))
            continue
        learnt = learn(own, seed)
        result.measures += _within(own, learnt, resamples, seed)
        for other in range(len(sample.sites)):
            if other != number:
                _test(learnt, own, (sample.at(other), sample.sites[other]), (resamples, seed), result)
    if result.drawn:
        mean = np.mean(list(result.drawn.values()), axis=0)
        result.measures[:0] = _means(result.measures, mean, sample)
        result.drawn[()] = mean
    return result


def learn(source: Sample, seed: int) -> Learnt:
    """Choose the regularisation by macro AUROC and the threshold by F1 on groups left out, then train on all.

    With fewer than two groups of a class nothing can be chosen: fixed values are taken.
    """
    kinds, truth = np.unique(source.label, return_inverse=True)
    truth, features = truth.astype(np.int64), source.features.astype(np.float64)
    if most_folds(truth, source.group) < 2:
        return Learnt(model(_UNCHOSEN).fit(features, truth), kinds, _UNCHOSEN, 0.5, None)
    held_out = {s: out_of_fold(s, features, truth, source.group, seed) for s in _STRENGTHS}
    best = max(_STRENGTHS, key=lambda strength: _macro_auroc(truth, held_out[strength], np.ones((1, len(truth))))[0])
    chosen = held_out[best]
    threshold = best_threshold(truth, chosen[:, 1]) if len(kinds) == 2 else 0.5
    return Learnt(model(best).fit(features, truth), kinds, best, threshold, chosen)


def best_threshold(truth: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]) -> float:
    """The threshold of the largest F1, halfway to the next lower score."""
    ranking = Ranking.of(truth == 1, scores)
    hits, alarms = (part[0] for part in ranking.counts(np.ones((1, len(truth)))))
    place = int(np.argmax(2 * hits / (hits + alarms + hits[-1])))
    ordered = scores[ranking.order][ranking.ends]
    return float(ordered[place] if place + 1 == len(ordered) else (ordered[place] + ordered[place + 1]) / 2)


def _within(own: Sample, learnt: Learnt, resamples: int, seed: int) -> list[Measure]:
    if learnt.held_out is None:
        return []
    truth = np.searchsorted(learnt.kinds, own.label).astype(np.int64)
    units = units_of(own.group, np.zeros(len(own), np.int64), own.sites)
    value = float(_macro_auroc(truth, learnt.held_out, np.ones((1, len(own))))[0])
    pieces = units.weights(resamples, np.random.default_rng((seed, 11)))
    drawn = np.concatenate([_macro_auroc(truth, learnt.held_out, piece) for piece in pieces])
    site = own.sites[int(own.site[0])]
    return [
        Measure("source_auroc", value, *interval(drawn), len(own), own.of, own.groups, None, 0.5, (site,), units.over)
    ]


def _test(learnt: Learnt, own: Sample, target: tuple[Sample, str], how: tuple[int, int], result: Transferred) -> None:
    tested, name = target
    source = own.sites[int(own.site[0])]
    tested = tested.rows(np.isin(tested.label, learnt.kinds))
    if len(np.unique(tested.label)) < 2:
        reason = f"{name}: fewer than two of the classes that {source} has"
        result.left_out.append(LeftOut("transfer_auroc", reason, (source, name)))
        return
    truth = np.searchsorted(learnt.kinds, tested.label).astype(np.int64)
    chances, shared = _predict(learnt, own, tested)
    units = units_of(tested.group, np.zeros(len(tested), np.int64), (name,))
    resamples, seed = how
    rng = np.random.default_rng((seed, 12, int(tested.site[0])))  # one target's resamples are those of every source
    pieces = (np.ones((1, len(truth))), *units.weights(resamples, rng))
    drawn = np.concatenate([scores_of(truth, chances, learnt.threshold, piece) for piece in pieces], axis=1)
    result.drawn[source, name] = drawn
    note = f"{_note(learnt, lonely_note(units))} {_shared_note(shared)}".strip()
    for row, (metric, chance) in enumerate(zip(METRICS, _blind(truth, len(learnt.kinds)), strict=True)):
        result.measures.append(
            Measure(
                *(metric, float(drawn[row, 0]), *interval(drawn[row, 1:]), len(tested), tested.of, tested.groups),
                *(None, chance, (source, name), units.over, note),
            )
        )
    false_positive, true_positive = _mean_curve(truth, chances)
    result.curves.append(Curve(source, name, tuple(false_positive.tolist()), tuple(true_positive.tolist())))


def _predict(learnt: Learnt, own: Sample, tested: Sample) -> tuple[Float64[np.ndarray, "n c"], int]:
    """Probabilities at the target, and how many groups are at the source, too (tissue scanned twice).

    Tiles of these get theirs from classifiers that saw nothing of their group at the source.
    """
    features = tested.features.astype(np.float64)
    chances = learnt.probe.predict_proba(features).astype(np.float64)
    shared = np.intersect1d(tested.group, own.group)
    for part in np.array_split(shared, min(FOLDS, max(1, len(shared)))):
        rows, rest = np.isin(tested.group, part), own.rows(~np.isin(own.group, part))
        present = np.unique(rest.label)
        if not rows.any():
            continue
        chances[rows] = 1 / len(learnt.kinds)  # nothing is known without another group at the source
        if len(present) > 1:
            probe = model(learnt.strength).fit(rest.features.astype(np.float64), rest.label)
            chances[rows] = 0.0
            chances[np.ix_(rows, np.searchsorted(learnt.kinds, present))] = probe.predict_proba(features[rows])
    return chances, len(shared)


def _shared_note(shared: int) -> str:
    return f"{shared} groups are at both sites: tested by classifiers trained without them." if shared else ""


def scores_of(
    truth: Int64[np.ndarray, " n"],
    chances: Float64[np.ndarray, "n c"],
    threshold: float,
    weights: Float64[np.ndarray, "r n"],
) -> Float64[np.ndarray, "4 r"]:
    """The four scores of :data:`METRICS` for each weighting; more than two classes: means of one against the rest."""
    kinds = chances.shape[1]
    called = (chances[:, 1] >= threshold).astype(np.int64) if kinds == 2 else chances.argmax(axis=1).astype(np.int64)
    table = confusion(truth, called, weights, kinds)
    precision = [Ranking.of(truth == kind, chances[:, kind]).average_precision(weights) for kind in _counted(kinds)]
    return np.stack(
        [_macro_auroc(truth, chances, weights), _known_mean(precision), balanced_accuracies(table), f1_scores(table)]
    )


def _counted(kinds: int) -> Sequence[int]:
    """The classes that scores are the mean of: of two the last alone, which is the positive one."""
    return (1,) if kinds == 2 else range(kinds)


def _macro_auroc(
    truth: Int64[np.ndarray, " n"], chances: Float64[np.ndarray, "n c"], weights: Float64[np.ndarray, "r n"]
) -> Float64[np.ndarray, " r"]:
    each = [
        Ranking.of(truth == kind, chances[:, kind]).auroc(weights)
        for kind in _counted(chances.shape[1])
        if (truth == kind).any()
    ]
    return _known_mean(each)


def _known_mean(of_classes: Sequence[Float64[np.ndarray, " r"]]) -> Float64[np.ndarray, " r"]:
    """The mean over classes whose score a resample gives (it may lack a class); NaN where it gives none."""
    values = np.stack(of_classes)
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _mean_curve(
    truth: Int64[np.ndarray, " n"], chances: Float64[np.ndarray, "n c"]
) -> tuple[Float64[np.ndarray, " rates"], Float64[np.ndarray, " rates"]]:
    present = [kind for kind in _counted(chances.shape[1]) if (truth == kind).any()]
    curves = [Ranking.of(truth == kind, chances[:, kind]).curve() for kind in present]
    mean = np.mean([np.interp(_GRID, x, y) for x, y in curves], axis=0)
    mean[0] = 0.0
    return _GRID, mean


def _blind(truth: Int64[np.ndarray, " n"], kinds: int) -> tuple[float, float, float, float]:
    """What guessing gives in each of :data:`METRICS`."""
    shares = np.bincount(truth, minlength=kinds) / len(truth)
    present = shares[shares > 0]
    return 0.5, float(shares[1] if kinds == 2 else present.mean()), 1 / len(present), blind_f1(truth, kinds)


def _note(learnt: Learnt, lonely: str) -> str:
    chosen = f"Regularisation {learnt.strength:g}"
    if len(learnt.kinds) == 2:
        chosen += f", threshold {learnt.threshold:.3f}"
    how = "chosen on the source" if learnt.held_out is not None else "fixed: the source has too few groups to choose by"
    return f"{chosen}, {how}. {lonely}".strip()


def _means(measures: list[Measure], mean: Float64[np.ndarray, "m r1"], sample: Sample) -> list[Measure]:
    """Mean of each metric over all transfers, with the interval of that mean."""
    found = []
    for row, metric in enumerate(METRICS):
        parts = [measure for measure in measures if measure.metric == metric]
        chance = float(np.mean([part.chance for part in parts if part.chance is not None]))
        value = float(np.mean([part.value for part in parts]))
        over = "; ".join(sorted({part.over for part in parts}))
        note = f"Mean of {len(parts)} transfers." if len(parts) > 1 else parts[0].note
        found.append(
            Measure(
                *(metric, value, *interval(mean[row, 1:]), len(sample), sample.of, sample.groups),
                *(None, chance, (), over, note),
            )
        )
    return found
