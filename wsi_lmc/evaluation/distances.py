"""How far apart the sites lie: Wasserstein distance of Gaussians, shift of the centre, exact transport of few tiles.

None of these is 0 between two samples of one distribution: two of 500 from N(0, I) in 192 dimensions are 6.2 apart as
Gaussians. So each is computed from equally many tiles of both sites, and beside it stands its floor, the same between
two halves of one site with no group in both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from wsi_lmc.evaluation.measures import Measure
from wsi_lmc.evaluation.resampling import centred_interval, halves, lonely_note, units_of
from wsi_lmc.evaluation.samples import Sample

_SPLITS = 8
_LARGEST = 256  # dimensions in which Gaussians are compared
NAMES = ("w2_relative", "w2", "centroid_shift")


@dataclass(frozen=True)
class Moments:
    """Mean, covariance and a factor of it (``root @ root.T``) of one sample."""

    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]
    root: Float64[np.ndarray, "d d"]


def moments(features: Float[np.ndarray, "n d"], weights: Float64[np.ndarray, " n"] | None = None) -> Moments:
    """Moments in float64; ``weights`` count each tile so often."""
    values = features.astype(np.float64)
    counts = np.ones(len(values)) if weights is None else weights
    mean = counts @ values / counts.sum()
    centred = values - mean
    covariance = (centred.T * counts) @ centred / max(1.0, counts.sum() - 1)
    spread, axes = np.linalg.eigh(covariance)
    return Moments(mean, covariance, axes * np.sqrt(np.clip(spread, 0, None)))


def gaussian_w2(a: Moments, b: Moments) -> float:
    """W2 of two Gaussians: ``W2^2 = |m1-m2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)``.

    The last trace is the sum of the roots of the eigenvalues of ``R1.T S2 R1`` for any factor ``S1 = R1 R1.T``, so that
    covariances without full rank need no care.
    """
    shared = np.linalg.eigvalsh(a.root.T @ b.covariance @ a.root)
    between = np.sqrt(np.clip(shared, 0, None)).sum()
    squared = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * between
    return float(np.sqrt(max(0.0, squared)))


def spread_of(a: Moments, b: Moments) -> float:
    """Root of the mean trace of two covariances: the unit of the scale-free forms; 1 where nothing varies."""
    return float(np.sqrt((np.trace(a.covariance) + np.trace(b.covariance)) / 2)) or 1.0


def exact_w2(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "n d"]) -> float:
    """W2 of two samples of equal size: the best of all one-to-one assignments, by squared distances."""
    costs = cdist(a.astype(np.float64), b.astype(np.float64), "sqeuclidean")
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))


def distances(sample: Sample, resamples: int, seed: int) -> list[Measure]:
    """The three distances of :data:`NAMES` over all pairs of sites (their mean) and of each pair.

    ``sample`` has equally many tiles a site. Value and floor are means over random halvings of the sites; intervals
    come from groups drawn anew, about the value, since resampling by itself makes distances larger.
    """
    reduced, note = _leading(sample)
    value, floor, used = _by_halves(reduced, _gaussian_figures, _SPLITS, seed)
    drawn = _drawn_anew(reduced, resamples, seed)
    units = units_of(sample.group, sample.site, sample.sites)
    said = " ".join(text for text in (note, lonely_note(units)) if text)
    found: list[Measure] = []
    for column, name in enumerate(NAMES):
        for pair, between in _with_mean(sample.sites):
            inside = [number for number in range(len(sample.sites)) if not between or sample.sites[number] in between]
            centre = float(value[pair, column].mean())
            low, high = centred_interval(drawn[:, pair, column].mean(axis=1), centre)
            bottom = float(floor[inside, column].mean())
            tiles = used * len(inside)
            groups = len(np.unique(sample.group[np.isin(sample.site, inside)]))
            found.append(
                Measure(name, centre, low, high, tiles, sample.of, groups, bottom, None, between, units.over, said)
            )
    return found


def transport(sample: Sample, most: int, seed: int) -> list[Measure]:
    """Exact transport, scale-free, mean over all pairs of sites, with its floor; too slow for an interval."""
    value, floor, used = _by_halves(sample, _transport_figures, 3, seed, most)
    note = "No interval: a second opinion on few tiles."
    tiles = used * len(sample.sites)
    return [
        Measure(
            *("transport_relative", float(value.mean()), None, None, tiles, sample.of, sample.groups),
            *(float(floor.mean()), None, (), "", note),
        )
    ]


def _leading(sample: Sample) -> tuple[Sample, str]:
    """Very long features in their leading principal components, which keep distances but for what is named."""
    dimension = sample.features.shape[1]
    if dimension <= _LARGEST:
        return sample, ""
    centred = sample.features.astype(np.float64)
    centred -= centred.mean(axis=0)
    spread, axes = np.linalg.eigh(centred.T @ centred)
    share = spread[-_LARGEST:].sum() / max(spread.sum(), 1e-300)
    turned = (centred @ axes[:, -_LARGEST:]).astype(np.float32)
    note = f"In the {_LARGEST} leading of {dimension} principal components, {100 * share:.1f} % of the variance."
    return Sample(turned, sample.site, sample.group, sample.label, sample.sites, sample.classes, sample.of), note


_Figures = Callable[[Sequence[Float[np.ndarray, "_ d"]], Sequence[tuple[int, int]]], Float64[np.ndarray, "p f"]]


def _gaussian_figures(
    parts: Sequence[Float[np.ndarray, "_ d"]], pairs: Sequence[tuple[int, int]]
) -> Float64[np.ndarray, "p f"]:
    return _figures_of([moments(part) for part in parts], pairs)


def _figures_of(found: Sequence[Moments], pairs: Sequence[tuple[int, int]]) -> Float64[np.ndarray, "p f"]:
    rows = []
    for a, b in pairs:
        apart, unit = gaussian_w2(found[a], found[b]), spread_of(found[a], found[b])
        rows.append((apart / unit, apart, float(np.linalg.norm(found[a].mean - found[b].mean)) / unit))
    return np.asarray(rows, np.float64)


def _transport_figures(
    parts: Sequence[Float[np.ndarray, "_ d"]], pairs: Sequence[tuple[int, int]]
) -> Float64[np.ndarray, "p f"]:
    rows = []
    for a, b in pairs:
        spread = (parts[a].astype(np.float64).var(axis=0).sum() + parts[b].astype(np.float64).var(axis=0).sum()) / 2
        rows.append((exact_w2(parts[a], parts[b]) / (np.sqrt(spread) or 1.0),))
    return np.asarray(rows, np.float64)


def _by_halves(
    sample: Sample, figures: _Figures, splits: int, seed: int, most: int = 10**9
) -> tuple[Float64[np.ndarray, "p f"], Float64[np.ndarray, "s f"], int]:
    """Figures of each pair of sites and of each site's own halves, and how many tiles a sample had (equally many)."""
    count = len(sample.sites)
    rng = np.random.default_rng((seed, 2))
    between = list(combinations(range(count), 2))
    pairs = [(2 * a, 2 * b) for a, b in between] + [(2 * number, 2 * number + 1) for number in range(count)]
    cuts = [_halves_of_sites(sample, rng) for _ in range(splits)]
    tiles = min([most, *(len(part) for parts in cuts for part in parts)])
    found = []
    for parts in cuts:
        drawn = [sample.features[np.sort(rng.choice(part, tiles, replace=False))] for part in parts]
        found.append(figures(drawn, pairs))
    mean = np.mean(found, axis=0)
    return mean[: len(between)], mean[len(between) :], tiles


def _halves_of_sites(sample: Sample, rng: np.random.Generator) -> list[Int64[np.ndarray, " _"]]:
    parts: list[Int64[np.ndarray, " _"]] = []
    for number in range(len(sample.sites)):
        rows = np.nonzero(sample.site == number)[0]
        parts += [rows[half] for half in halves(sample.group[rows], rng)]
    return parts


def _drawn_anew(sample: Sample, resamples: int, seed: int) -> Float64[np.ndarray, "r p f"]:
    """Figures of all pairs of sites in each resample of groups."""
    units = units_of(sample.group, sample.site, sample.sites)
    rng = np.random.default_rng((seed, 3))
    rows = [np.nonzero(sample.site == number)[0] for number in range(len(sample.sites))]
    parts = [sample.features[own].astype(np.float64) for own in rows]
    pairs = list(combinations(range(len(rows)), 2))
    found = []
    for piece in units.weights(resamples, rng):
        for weights in piece:
            if any(weights[own].sum() < 2 for own in rows):
                continue  # a group that is at two sites was not drawn: nothing is left of one
            found.append(
                _figures_of([moments(part, weights[own]) for part, own in zip(parts, rows, strict=True)], pairs)
            )
    return np.asarray(found).reshape(-1, len(pairs), len(NAMES))


def _with_mean(sites: tuple[str, ...]) -> list[tuple[list[int], tuple[str, ...]]]:
    """Numbers of the pairs that a measure is the mean of, and the sites it is between; a single pair is all."""
    pairs = list(combinations(sites, 2))
    every: list[tuple[list[int], tuple[str, ...]]] = [(list(range(len(pairs))), ())]
    return every + ([([number], pair) for number, pair in enumerate(pairs)] if len(pairs) > 1 else [])
