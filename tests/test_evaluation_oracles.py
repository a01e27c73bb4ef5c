"""Every metric against another implementation of it: POT, scikit-learn, scib-metrics, PathoROB's definition."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from sklearn import metrics
from sklearn.neighbors import NearestNeighbors

from wsi_lmc.evaluation.distances import exact_w2, gaussian_w2, moments
from wsi_lmc.evaluation.neighbours import (
    kbet_accepted,
    lisi,
    nearest,
    neighbour_probability,
    robustness_counts,
    unit_length,
    weighted_medians,
)
from wsi_lmc.evaluation.ranking import Ranking, balanced_accuracies, confusion, f1_scores
from wsi_lmc.evaluation.samples import Sample
from wsi_lmc.evaluation.silhouettes import silhouette, site_overlap

Oracle = Callable[[str], ModuleType]


def _gaussians(rank: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(rank, 6))
    return rng.normal(size=(90, rank)) @ mix, 0.5 + rng.normal(size=(70, rank)) @ (mix * 1.7 + 0.2)


@pytest.mark.parametrize("rank", [6, 3])
def test_gaussian_w2_is_that_of_pot(oracle: Oracle, rank: int) -> None:
    """Of full rank, and of covariances without."""
    a, b = _gaussians(rank)
    ot = oracle("ot")
    expected = ot.gaussian.bures_wasserstein_distance(
        a.mean(axis=0), b.mean(axis=0), np.cov(a.T) + 1e-6 * np.eye(6), np.cov(b.T) + 1e-6 * np.eye(6)
    )
    assert gaussian_w2(moments(a), moments(b)) == pytest.approx(float(expected), rel=1e-3)


def test_gaussian_w2_of_spheres_is_known() -> None:
    """N(0, s I) to N(m, t I): |m|^2 + d (s^1/2 - t^1/2)^2, on samples whose moments are exact."""
    points = np.concatenate([np.eye(4), -np.eye(4)])
    a, b = points * 2.0, points * 5.0 + np.asarray([1.0, 0, 0, 2.0])
    factor = np.sqrt(2 / 7)  # deviation of one axis of the points
    assert gaussian_w2(moments(a), moments(b)) == pytest.approx(np.sqrt(5 + 4 * (3 * factor) ** 2))
    assert gaussian_w2(moments(a), moments(a)) == pytest.approx(0, abs=1e-6)


def test_weights_are_repetitions() -> None:
    a, _ = _gaussians()
    weights = np.random.default_rng(0).integers(0, 4, len(a))
    counted, repeated = moments(a, weights.astype(np.float64)), moments(np.repeat(a, weights, axis=0))
    np.testing.assert_allclose(counted.mean, repeated.mean)
    np.testing.assert_allclose(counted.covariance, repeated.covariance)


def test_exact_transport_is_that_of_pot(oracle: Oracle) -> None:
    a, b = (part[:60] for part in _gaussians())
    ot = oracle("ot")
    expected = np.sqrt(ot.emd2([], [], ot.dist(a, b)))
    assert exact_w2(a, b) == pytest.approx(float(expected))


def test_exact_transport_finds_a_shuffle() -> None:
    a, _ = _gaussians()
    shifted = a[np.random.default_rng(0).permutation(len(a))] + np.asarray([0, 0, 3.0, 0, 0, 4.0])
    assert exact_w2(a, shifted) == pytest.approx(5.0)


def test_ranks_and_tables_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 200)
    scores = np.round(np.clip(truth * 0.3 + rng.random(200) * 0.7, 0, 1), 1)  # with ties
    weights = rng.integers(0, 3, (4, 200)).astype(np.float64)
    ranking = Ranking.of(truth == 1, scores)
    called = (scores >= 0.5).astype(np.int64)
    table = confusion(truth, called, weights, 2)
    for row, weight in enumerate(weights):
        assert ranking.auroc(weights)[row] == pytest.approx(metrics.roc_auc_score(truth, scores, sample_weight=weight))
        precision = metrics.average_precision_score(truth, scores, sample_weight=weight)
        assert ranking.average_precision(weights)[row] == pytest.approx(precision)
        accuracy = metrics.balanced_accuracy_score(truth, called, sample_weight=weight)
        assert balanced_accuracies(table)[row] == pytest.approx(accuracy)
        assert f1_scores(table)[row] == pytest.approx(metrics.f1_score(truth, called, sample_weight=weight))
    false_positive, true_positive = ranking.curve()
    expected = metrics.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_positive, expected[0])
    np.testing.assert_allclose(true_positive, expected[1])
    assert np.isnan(Ranking.of(np.ones(3, bool), np.zeros(3)).auroc(np.ones((1, 3)))[0])


def test_many_classes_are_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    truth, called = rng.integers(0, 4, 150), rng.integers(0, 4, 150)
    table = confusion(truth, called, np.ones((1, 150)), 4)
    assert balanced_accuracies(table)[0] == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert f1_scores(table)[0] == pytest.approx(metrics.f1_score(truth, called, average="macro"))


def test_silhouettes_are_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    points, clusters = rng.normal(size=(80, 3)), rng.integers(0, 4, 80)
    clusters[0] = 9  # a cluster of one
    found = silhouette(metrics.pairwise_distances(points), clusters)
    np.testing.assert_allclose(found, metrics.silhouette_samples(points, clusters), atol=1e-12)


def test_neighbours_are_scikit_learns() -> None:
    points = np.random.default_rng(1).normal(size=(1500, 6))  # more than are held at a time
    near = nearest(points, 9)
    distance, index = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(points).kneighbors(points)
    np.testing.assert_array_equal(near.index, index)
    np.testing.assert_allclose(near.distance, distance, atol=1e-6)


def _scib_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    site, label = rng.integers(0, 3, 240), rng.integers(0, 2, 240)
    points = rng.normal(size=(240, 5))
    points[:, 0] += 0.8 * site
    points[:, 1] += 1.5 * label
    assert points.sum() == pytest.approx(344.87493030967875), "the values below are of other points"
    return points, site, label


def test_kbet_lisi_and_silhouettes_are_those_of_scib_metrics() -> None:
    """Values of scib-metrics 0.6.1 (jax 0.12.0.1, float32) on these inputs, with scikit-learn's 30 neighbours each.

    ``NeighborsResults(indices=i, distances=d)`` for ``d, i = NearestNeighbors(n_neighbors=30).fit(x).kneighbors(x)``;
    ``kbet(r, site)[0]``, ``ilisi_knn(r, site)``, ``clisi_knn(r, label)``, ``lisi_knn(r, site)``,
    ``silhouette_label(x, label)``, ``silhouette_batch(x, label, site)``.
    """
    points, site, label = _scib_inputs()
    near = nearest(points, 30)
    assert kbet_accepted(near.index, site).mean() == pytest.approx(0.675)
    probability = neighbour_probability(near, 10)
    by_site = lisi(near, site, probability)
    np.testing.assert_allclose(by_site[:3], [1.5796388, 2.4945405, 2.2542305], rtol=1e-4)
    assert by_site.mean() == pytest.approx(2.064197063446045, rel=1e-4)
    assert (np.median(by_site) - 1) / 2 == pytest.approx(0.530985951423645, rel=1e-4)
    assert 2 - np.median(lisi(near, label, probability)) == pytest.approx(0.4799865484237671, rel=1e-4)
    by_label = silhouette(metrics.pairwise_distances(points), label)
    assert (by_label.mean() + 1) / 2 == pytest.approx(0.5392278432846069, rel=1e-5)
    sample = Sample(points.astype(np.float32), site, np.arange(240), label, ("a", "b", "c"), ("x", "y"), 240)
    assert site_overlap(sample, 5, 0).value == pytest.approx(0.9238073977674572, rel=1e-5)


def _pathorob(points: np.ndarray, label: np.ndarray, site: np.ndarray, slide: np.ndarray, k: int) -> float:
    """PathoROB's definition, a tile and a neighbour at a time.

    Features of length 1, all others by Euclidean distance, those of the tile's own slide struck out, the first k kept
    (for all tiles as many as the fewest that any has); SO / (SO + OS) of all of these together.
    """
    unit = [point / np.sqrt((point**2).sum()) for point in points]
    lists = []
    for i in range(len(unit)):
        others = sorted((float(np.sqrt(((unit[i] - unit[j]) ** 2).sum())), j) for j in range(len(unit)) if j != i)
        lists.append([j for _, j in others if slide[j] != slide[i]])
    k = min([k, *map(len, lists)])
    so = os = 0
    for i, found in enumerate(lists):
        for j in found[:k]:
            so += label[j] == label[i] and site[j] != site[i]
            os += label[j] != label[i] and site[j] == site[i]
    return so / (so + os)


@pytest.mark.parametrize("k", [1, 7, 500])
def test_the_robustness_index_is_that_of_pathorob(k: int) -> None:
    points, site, label = _scib_inputs()
    slide = site * 5 + np.random.default_rng(2).integers(0, 4, 240)
    near = nearest(unit_length(points), k, slide)
    so, os = robustness_counts(near.index, label, site)
    assert so.sum() / (so.sum() + os.sum()) == pytest.approx(_pathorob(points, label, site, slide, k))


def test_weighted_medians_are_medians_of_repetitions() -> None:
    rng = np.random.default_rng(8)
    values, weights = rng.normal(size=31), rng.integers(0, 3, (20, 31))
    values[4] = np.nan
    keep = np.isfinite(values)
    for found, weight in zip(weighted_medians(values, weights.astype(np.float64)), weights, strict=True):
        repeated = np.sort(np.repeat(values[keep], weight[keep]))
        assert found == repeated[(len(repeated) - 1) // 2]
