"""Who a tile's nearest neighbours are: robustness index, kBET, iLISI and cLISI.

The robustness index is that of PathoROB (Kömen et al. 2025, arXiv 2507.17845): features of unit length, neighbours of
a tile's own group left out. kBET and LISI are as in scib-metrics 0.6: plain Euclidean neighbours, the tile itself
first among them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.special import chdtrc
from sklearn.metrics.pairwise import euclidean_distances

from wsi_lmc.evaluation.measures import Measure
from wsi_lmc.evaluation.resampling import interval, lonely_note, pretended_sites, units_of
from wsi_lmc.evaluation.samples import Sample

_ROWS = 1024  # whose distances to all tiles are held at a time
_PRETENDED = 10
_ALPHA = 0.05
_STEPS, _CLOSE = 50, 1e-5  # of the search for a perplexity


@dataclass(frozen=True)
class Neighbours:
    """Distances to, and numbers of, each tile's nearest tiles, the nearest first."""

    distance: Float64[np.ndarray, "n k"]
    index: Int64[np.ndarray, "n k"]


def nearest(features: Float[np.ndarray, "n d"], k: int, group: Int64[np.ndarray, " n"] | None = None) -> Neighbours:
    """The ``k`` nearest tiles of each, itself among them; with ``group`` those of other groups alone.

    Where a tile has fewer than ``k`` in other groups, all get as few as that.
    """
    values = features.astype(np.float64)
    own = np.zeros(len(values), np.int64) if group is None else np.bincount(group)[group]
    k = int(min(k, (len(values) - own).min()))
    distance, index = np.zeros((len(values), k)), np.zeros((len(values), k), np.int64)
    if k == 0:
        return Neighbours(distance, index)
    for start in range(0, len(values), _ROWS):
        here = slice(start, start + _ROWS)
        apart = euclidean_distances(values[here], values)
        if group is None:
            apart[np.arange(len(apart)), np.arange(start, start + len(apart))] = 0.0
        else:
            apart[group[here, None] == group[None]] = np.inf
        chosen = np.argpartition(apart, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(apart, chosen, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        distance[here] = np.take_along_axis(near, order, axis=1)
        index[here] = np.take_along_axis(chosen, order, axis=1)
    return Neighbours(distance, index)


def unit_length(features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Features of length 1; a zero stays one."""
    values = features.astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1.0)


def robustness_counts(
    index: Int64[np.ndarray, "n k"], label: Int64[np.ndarray, " n"], site: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """How many neighbours of each tile have its class and another site (SO), and another class and its site (OS)."""
    same_class, same_site = label[index] == label[:, None], site[index] == site[:, None]
    return (same_class & ~same_site).sum(axis=1), (~same_class & same_site).sum(axis=1)


def robustness_index(sample: Sample, k: int, resamples: int, seed: int) -> Measure:
    """SO / (SO + OS) over the ``k`` nearest tiles of other groups; ``sample`` has every class equally often everywhere.

    Chance counts all tiles of other groups instead of the nearest; the floor deals groups to pretended sites.
    """
    near = nearest(unit_length(sample.features), k, sample.group)
    so, os = robustness_counts(near.index, sample.label, sample.site)
    units = units_of(sample.group, sample.site, sample.sites)
    rng = np.random.default_rng((seed, 4))
    drawn = [_share(piece @ so, piece @ os) for piece in units.weights(resamples, rng)]
    low, high = interval(np.concatenate(drawn))
    pretended = _pretended(sample, seed)
    shares = [_share(*(part.sum() for part in robustness_counts(near.index, sample.label, s))) for s in pretended]
    floor = float(np.mean(shares)) if shares else None
    note = f"{near.index.shape[1]} neighbours. {lonely_note(units)}".strip()
    return Measure(
        *("robustness_index", float(_share(so.sum(), os.sum())), low, high, len(sample), sample.of, sample.groups),
        *(floor, _blind_share(sample), (), units.over, note),
    )


def kbet_accepted(index: Int64[np.ndarray, "n k"], site: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether a chi-squared test takes each tile's neighbours for a draw from all tiles' sites."""
    present, site = np.unique(site, return_inverse=True)
    expected = np.bincount(site) / len(site) * index.shape[1]
    seen = np.stack([(site[index] == number).sum(axis=1) for number in range(len(present))], axis=1)
    statistic = (np.square(seen - expected) / expected).sum(axis=1)
    return np.asarray(chdtrc(len(present) - 1, statistic) >= _ALPHA)


def lisi(near: Neighbours, kind: Int64[np.ndarray, " n"], probability: Float64[np.ndarray, "n k"]) -> np.ndarray:
    """Inverse Simpson's index of each tile's neighbours' kinds, weighted by ``probability``; NaN where it has none."""
    shares = [np.where(kind[near.index] == number, probability, 0).sum(axis=1) for number in np.unique(kind)]
    simpson = np.square(shares).sum(axis=0)
    return np.where(simpson > 0, 1 / np.where(simpson > 0, simpson, 1.0), np.nan)


def neighbour_probability(near: Neighbours, perplexity: float) -> Float64[np.ndarray, "n k"]:
    """Weights exp(-beta d) of the neighbours, beta such that each row's entropy is that of the perplexity."""
    others = near.index != np.arange(len(near.index))[:, None]
    distance = near.distance
    beta = np.ones(len(distance))
    low, high = np.full(len(beta), -np.inf), np.full(len(beta), np.inf)
    weights = _weights(distance, others, beta)
    for _ in range(_STEPS):
        off = weights[1] - np.log(perplexity)
        if not (np.abs(off) >= _CLOSE).any():
            break
        above, active = off > 0, np.abs(off) >= _CLOSE
        low, high = np.where(active & above, beta, low), np.where(active & ~above, beta, high)
        up = np.where(np.isinf(high), beta * 2, (beta + high) / 2)
        down = np.where(np.isinf(low), beta / 2, (beta + low) / 2)
        beta = np.where(active, np.where(above, up, down), beta)
        weights = _weights(distance, others, beta)
    return weights[0]


def mixing(sample: Sample, k: int, resamples: int, seed: int) -> list[Measure]:
    """Mixing of sites, by kBET and iLISI, the sites among the ``k`` nearest tiles, with floors from pretended sites."""
    near = nearest(sample.features, k)
    probability = neighbour_probability(near, near.index.shape[1] // 3)
    count = len(sample.sites)
    accepted = kbet_accepted(near.index, sample.site)
    spread = (lisi(near, sample.site, probability) - 1) / (count - 1)
    pretended = _pretended(sample, seed)
    units = units_of(sample.group, sample.site, sample.sites)
    note = f"{near.index.shape[1]} neighbours, the tile itself first. {lonely_note(units)}".strip()
    rng = np.random.default_rng((seed, 5))
    pieces = list(units.weights(resamples, rng))
    means = np.concatenate([(piece @ accepted) / piece.sum(axis=1) for piece in pieces])
    medians = np.concatenate([weighted_medians(spread, piece) for piece in pieces])
    floors = [float(np.mean([kbet_accepted(near.index, site).mean() for site in pretended])) if pretended else None]
    others = [np.nanmedian((lisi(near, site, probability) - 1) / (count - 1)) for site in pretended]
    floors.append(float(np.mean(others)) if others else None)
    found = (("kbet", float(accepted.mean()), means), ("ilisi", float(np.nanmedian(spread)), medians))
    return [
        Measure(
            *(name, value, *interval(drawn), len(sample), sample.of, sample.groups),
            *(floor, None, (), units.over, note),
        )
        for (name, value, drawn), floor in zip(found, floors, strict=True)
    ]


def class_separation(sample: Sample, k: int, resamples: int, seed: int) -> Measure:
    """Purity of the classes, by cLISI, among the ``k`` nearest tiles."""
    near = nearest(sample.features, k)
    count = len(np.unique(sample.label))
    pure = (count - lisi(near, sample.label, neighbour_probability(near, near.index.shape[1] // 3))) / (count - 1)
    units = units_of(sample.group, sample.site, sample.sites)
    rng = np.random.default_rng((seed, 6))
    drawn = np.concatenate([weighted_medians(pure, piece) for piece in units.weights(resamples, rng)])
    note = f"{near.index.shape[1]} neighbours, the tile itself first. {lonely_note(units)}".strip()
    value = float(np.nanmedian(pure))
    return Measure(
        *("clisi", value, *interval(drawn), len(sample), sample.of, sample.groups),
        *(None, None, (), units.over, note),
    )


def weighted_medians(values: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, "r n"]) -> np.ndarray:
    """Median of the values, each counted as often as its weight says, one a row; NaNs do not count."""
    order = np.argsort(values)
    order = order[np.isfinite(values[order])]
    summed = np.cumsum(weights[:, order], axis=1)
    half = (summed >= summed[:, -1:] / 2).argmax(axis=1)
    return values[order][half]


def _weights(
    distance: Float64[np.ndarray, "n k"], others: Bool[np.ndarray, "n k"], beta: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, " n"]]:
    raw = np.where(others, np.exp(-distance * beta[:, None]), 0.0)
    total = raw.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    entropy = np.where(total > 0, np.log(safe) + beta * (distance * raw).sum(axis=1) / safe, 0.0)
    return raw / safe[:, None], entropy


def _share(so: Float[np.ndarray, "*s"] | np.number, os: Float[np.ndarray, "*s"] | np.number) -> np.ndarray:
    """SO / (SO + OS), NaN where there is neither."""
    total = np.asarray(so + os, np.float64)
    return np.where(total > 0, so / np.where(total > 0, total, 1.0), np.nan)


def _blind_share(sample: Sample) -> float:
    """The index over all tiles of other groups."""
    so = os = 0
    for number in np.unique(sample.group):
        own, others = sample.group == number, sample.group != number
        for kind, site in np.unique(np.stack([sample.label[own], sample.site[own]]), axis=1).T:
            here = int((own & (sample.label == kind) & (sample.site == site)).sum())
            same_class, same_site = sample.label[others] == kind, sample.site[others] == site
            so += here * int((same_class & ~same_site).sum())
            os += here * int((~same_class & same_site).sum())
    return so / (so + os) if so + os else float("nan")


def _pretended(sample: Sample, seed: int) -> list[Int64[np.ndarray, " n"]]:
    rng = np.random.default_rng((seed, 7))
    dealt = [pretended_sites(sample.group, sample.site, rng) for _ in range(_PRETENDED)]
    return [site for site in dealt if site is not None]
