"""Silhouettes of the sites within each class, and of the classes, scaled as in scib-metrics 0.6."""

import numpy as np
from jaxtyping import Float, Float64, Int64
from sklearn.metrics.pairwise import euclidean_distances

from wsi_lmc.evaluation.measures import Measure
from wsi_lmc.evaluation.resampling import interval, lonely_note, pretended_sites, units_of
from wsi_lmc.evaluation.samples import Sample

_PRETENDED = 10


def silhouette(apart: Float[np.ndarray, "n n"], clusters: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Silhouette of each point by distances to all: (b - a) / max(a, b); 0 for a point that is a cluster alone."""
    names, number = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(number)
    member = np.zeros((len(number), len(names)))
    member[np.arange(len(number)), number] = 1
    sums = apart @ member
    rows = np.arange(len(number))
    own = sums[rows, number] / np.maximum(sizes[number] - 1, 1)
    means = sums / sizes
    means[rows, number] = np.inf
    other = means.min(axis=1)
    largest = np.maximum(own, other)
    value = np.where(largest > 0, (other - own) / np.where(largest > 0, largest, 1.0), 0.0)
    return np.where(sizes[number] > 1, value, 0.0)


def site_overlap(sample: Sample, resamples: int, seed: int) -> Measure:
    """1 - |silhouette of the site| within each class, mean of the classes; all tiles are one class without labels."""
    rng = np.random.default_rng((seed, 8))
    dealt = [pretended_sites(sample.group, sample.site, rng) for _ in range(_PRETENDED)]
    versions = [sample.site, *(site for site in dealt if site is not None)]
    overlap = np.full((len(versions), len(sample)), np.nan)
    kinds = sample.label if (sample.label >= 0).any() else np.zeros(len(sample), np.int64)
    for kind in np.unique(kinds[kinds >= 0]):
        rows = np.nonzero(kinds == kind)[0]
        apart = euclidean_distances(sample.features[rows].astype(np.float64))
        for row, site in enumerate(versions):
            if 1 < len(np.unique(site[rows])) < len(rows):
                overlap[row, rows] = 1 - np.abs(silhouette(apart, site[rows]))
    floors = [_mean_by_kind(one[None], kinds, np.ones((1, len(sample))))[0] for one in overlap[1:]]
    note = "" if (sample.label >= 0).any() else "No labels: all tiles taken for one class."
    return _measure("silhouette_batch", sample, (overlap[0], kinds), resamples, (seed, floors, note))


def class_clusters(sample: Sample, resamples: int, seed: int) -> Measure:
    """(Silhouette of the class + 1) / 2, mean of the tiles."""
    apart = euclidean_distances(sample.features.astype(np.float64))
    values = (silhouette(apart, sample.label) + 1) / 2
    return _measure("silhouette_label", sample, (values, np.zeros(len(sample), np.int64)), resamples, (seed, [], ""))


def _measure(
    name: str,
    sample: Sample,
    data: tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]],
    resamples: int,
    beside: tuple[int, list[float], str],
) -> Measure:
    values, kinds = data
    seed, floors, note = beside
    units = units_of(sample.group, sample.site, sample.sites)
    rng = np.random.default_rng((seed, 9))
    drawn = [_mean_by_kind(values[None], kinds, piece) for piece in units.weights(resamples, rng)]
    value = float(_mean_by_kind(values[None], kinds, np.ones((1, len(values))))[0])
    known = [floor for floor in floors if np.isfinite(floor)]  # few groups, dealt anew, may leave a class at one site
    floor = float(np.mean(known)) if known else None
    return Measure(
        *(name, value, *interval(np.concatenate(drawn)), len(sample), sample.of, sample.groups),
        *(floor, None, (), units.over, f"{note} {lonely_note(units)}".strip()),
    )


def _mean_by_kind(
    values: Float64[np.ndarray, "1 n"], kinds: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, "r n"]
) -> Float64[np.ndarray, " r"]:
    """Weighted mean within each kind, then of the kinds; points without a value do not count."""
    means = []
    for kind in np.unique(kinds):
        rows = np.nonzero((kinds == kind) & np.isfinite(values[0]))[0]
        total = weights[:, rows].sum(axis=1)
        if len(rows):
            means.append(np.where(total > 0, weights[:, rows] @ values[0, rows] / np.maximum(total, 1), np.nan))
    return np.nanmean(means, axis=0) if means else np.full(len(weights), np.nan)
