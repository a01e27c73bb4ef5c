"""A class learnt at one site: chosen there alone, tested elsewhere, with what a blind guess gives beside it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics.pairwise import cosine_similarity

from wsi_lmc.evaluation.ranking import blind_f1
from wsi_lmc.evaluation.retrieval import pair_ranks, pair_retrieval
from wsi_lmc.evaluation.samples import Sample, gather
from wsi_lmc.evaluation.transfer import METRICS, Transferred, best_threshold, learn, scores_of, transfers

from tests.planted import Planted, planted_set  # isort: skip


def _sample(what: Planted) -> Sample:
    one = planted_set("set", what)
    return gather(one.slides, one.classes, one.tiles)


def _value(result: Transferred, metric: str, between: tuple[str, ...] = ()) -> float:
    return next(m.value for m in result.measures if (m.metric, m.between) == (metric, between))


def test_a_class_learnt_at_one_site_holds_at_the_other() -> None:
    """Of two unit Gaussians 2 apart the area under the curve is Phi(2 / sqrt 2)."""
    result = transfers(_sample(Planted(kind=2.0, groups=10, tiles=50)), "", 200, 0)
    for between in (("north", "south"), ("south", "north")):
        assert _value(result, "transfer_auroc", between) == pytest.approx(0.921, abs=0.03)
        assert _value(result, "source_auroc", between[:1]) == pytest.approx(0.921, abs=0.03)
    assert [(curve.source, curve.target) for curve in result.curves] == [("north", "south"), ("south", "north")]


def test_labels_without_meaning_are_not_learnt() -> None:
    measures = transfers(_sample(Planted(groups=10)), "", 200, 0).measures
    assert all(
        m.low is not None and m.high is not None and m.low <= 0.5 <= m.high
        for m in measures
        if m.metric in ("transfer_auroc", "transfer_balanced_accuracy") and m.between
    )


def test_nothing_is_chosen_on_the_target() -> None:
    """Other labels at the target change its scores, and neither the classifier nor the threshold."""
    sample = _sample(Planted(kind=1.0, site=1.0))
    target = sample.site == 1
    shuffled = sample.label.copy()
    shuffled[target] = np.random.default_rng(0).permutation(shuffled[target])
    other = replace(sample, label=shuffled)
    one, two = learn(sample.at(0), 0), learn(other.at(0), 0)
    assert (one.strength, one.threshold) == (two.strength, two.threshold)
    features = sample.features.astype(np.float64)
    np.testing.assert_array_equal(one.probe.predict_proba(features), two.probe.predict_proba(features))
    first, second = transfers(sample, "north", 10, 0), transfers(other, "north", 10, 0)
    assert _value(first, "source_auroc", ("north",)) == _value(second, "source_auroc", ("north",))
    assert _value(first, "transfer_auroc") > _value(second, "transfer_auroc") + 0.1


def test_groups_are_left_out_whole() -> None:
    """Each group has a mark of its own and one class: whoever saw it in training would know its class."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(24), 20)
    label = group % 2
    features = (8.0 * rng.normal(size=(24, 30)))[group] + rng.normal(size=(480, 30))
    sample = Sample(features.astype(np.float32), group * 0, group, label, ("a",), ("x", "y"), 480)
    held_out = learn(sample, 0).held_out
    assert held_out is not None
    assert metrics.roc_auc_score(label, held_out[:, 1]) < 0.75


def test_a_group_that_is_at_both_sites_is_tested_by_a_classifier_without_it() -> None:
    """The same marked groups at both sites, labels by group: who knows a group's mark knows its class."""
    rng = np.random.default_rng(0)
    group = np.tile(np.repeat(np.arange(20), 12), 2)
    site = np.repeat([0, 1], 240)
    label = group % 2
    features = (8.0 * rng.normal(size=(20, 30)))[group] + rng.normal(size=(480, 30))
    sample = Sample(features.astype(np.float32), site, group, label, ("a", "b"), ("x", "y"), 480)
    tested = next(m for m in transfers(sample, "a", 20, 0).measures if m.between == ("a", "b"))
    assert tested.value < 0.8
    assert "20 groups are at both sites" in tested.note
    apart = replace(sample, group=group + 100 * site)
    leaky = next(m for m in transfers(apart, "a", 20, 0).measures if m.between == ("a", "b"))
    assert leaky.value > 0.95, "so the test could fail"


def test_the_threshold_is_that_of_the_best_f1() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 300)
    scores = np.round(truth * 0.2 + rng.random(300), 2)
    threshold = best_threshold(truth, scores)
    every = [metrics.f1_score(truth, scores >= t) for t in np.linspace(-0.005, 1.205, 243)]
    assert metrics.f1_score(truth, scores >= threshold) == pytest.approx(max(every))


def test_a_resample_without_a_positive_tile_has_no_precision() -> None:
    truth = np.asarray([0, 0, 1, 1], np.int64)
    chances = np.asarray([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    weights = np.asarray([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.0, 0.0]])
    found = scores_of(truth, chances, 0.5, weights)[METRICS.index("transfer_average_precision")]
    assert found[0] == pytest.approx(metrics.average_precision_score(truth, chances[:, 1]))
    assert np.isnan(found[1])


def test_scores_of_many_classes_are_means() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 200)
    chances = rng.dirichlet(np.ones(3), 200) + 0.3 * np.eye(3)[truth]
    chances /= chances.sum(axis=1, keepdims=True)
    found = scores_of(truth, chances, 0.5, np.ones((1, 200)))[:, 0]
    called = chances.argmax(axis=1)
    assert found == pytest.approx(
        [
            metrics.roc_auc_score(truth, chances, multi_class="ovr"),
            metrics.average_precision_score(np.eye(3)[truth], chances, average="macro"),
            metrics.balanced_accuracy_score(truth, called),
            metrics.f1_score(truth, called, average="macro"),
        ]
    )


def test_a_blind_guess_stands_beside() -> None:
    sample = _sample(Planted())
    few = sample.rows(np.flatnonzero((sample.label == 0) | (np.arange(len(sample)) % 4 == 0)))
    result = transfers(few, "north", 10, 0)
    share = (few.at(1).label == 1).mean()
    chances = {m.metric: m.chance for m in result.measures if m.between == ("north", "south")}
    assert [chances[name] for name in METRICS] == [
        0.5,
        pytest.approx(share),
        0.5,
        pytest.approx(2 * share / (1 + share)),
    ]
    truth = few.at(1).label
    assert blind_f1(truth, 2) == pytest.approx(metrics.f1_score(truth, np.ones(len(truth))))
    three = np.asarray([0, 1, 1, 1, 2, 2])
    expected = metrics.f1_score(three, np.ones(6), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
    assert blind_f1(three, 3) == pytest.approx(expected)


def test_a_direction_that_turns_with_the_site_lowers_auroc() -> None:
    """The class shows along another axis at the target, the more so, the larger the effect."""
    values = []
    for turn in (0.0, 0.6, 1.2):
        sample = _sample(Planted(kind=0.0, groups=8))
        features = sample.features.copy()
        angle = np.where(sample.site == 1, turn, 0.0)
        features[:, 1] += 2.5 * sample.label * np.cos(angle)
        features[:, 2] += 2.5 * sample.label * np.sin(angle)
        values.append(_value(transfers(replace(sample, features=features), "", 10, 0), "transfer_auroc"))
    assert values == sorted(values, reverse=True)
    assert values[2] < values[0] - 0.1


def test_three_sites_and_three_classes() -> None:
    sample = _sample(Planted(sites=("a", "b", "c"), classes=("x", "y", "z"), kind=2.0, groups=5))
    only = sample.rows(np.flatnonzero((sample.site != 2) | (sample.label == 0)))
    result = transfers(only, "", 20, 0)
    assert {c.source for c in result.curves} == {"a", "b"}
    assert {c.target for c in result.curves} == {"a", "b"}
    assert {missing.between for missing in result.left_out} == {("c",), ("a", "c"), ("b", "c")}
    whole = transfers(sample, "", 20, 0)
    mean = np.mean([m.value for m in whole.measures if m.metric == "transfer_f1" and m.between])
    assert _value(whole, "transfer_f1") == pytest.approx(mean)
    assert len(whole.curves) == 6


def test_retrieval_is_what_a_loop_finds() -> None:
    rng = np.random.default_rng(5)
    first = rng.normal(size=(1100, 4))  # more than are held at a time
    second = first + rng.normal(size=first.shape)
    ranks, cosine, others = pair_ranks(first, second)
    table = cosine_similarity(first, second)
    np.testing.assert_allclose(cosine, np.diag(table))
    np.testing.assert_array_equal(ranks, [(row > row[i]).sum() for i, row in enumerate(table)])
    assert others == pytest.approx((table.sum() - np.trace(table)) / (1100 * 1099))


def test_a_collapsed_encoder_has_a_high_cosine_and_finds_nothing() -> None:
    rng = np.random.default_rng(6)
    point = np.repeat(rng.normal(size=(1, 8)), 60, axis=0)
    collapsed = {m.metric: m for m in pair_retrieval(point, point, np.arange(60), 5, (50, 0))}
    assert collapsed["pair_cosine"].value == pytest.approx(1.0)
    assert collapsed["pair_cosine"].chance == pytest.approx(1.0)
    assert collapsed["pair_top1"].value == collapsed["pair_topk"].value == 0.0
    apart = rng.normal(size=(60, 8))
    good = {m.metric: m for m in pair_retrieval(apart, apart * 3.0, np.arange(60), 5, (50, 0))}
    assert good["pair_top1"].value == good["pair_topk"].value == 1.0
    assert good["pair_top1"].chance == pytest.approx(1 / 60)


def test_a_resample_without_a_class_is_scored_by_the_others() -> None:
    rng = np.random.default_rng(4)
    truth, chances = np.repeat([0, 1, 2], 12), rng.dirichlet(np.ones(3), 36)
    weights = np.ones((3, 36))
    weights[1, truth == 2] = 0.0
    weights[2, truth != 1] = 0.0
    found = scores_of(truth, chances, 0.5, weights)
    left = truth != 2
    for row, metric in ((0, metrics.roc_auc_score), (1, metrics.average_precision_score)):
        every = [float(metric(truth == kind, chances[:, kind])) for kind in range(3)]
        two = [float(metric(truth[left] == kind, chances[left, kind])) for kind in range(2)]
        np.testing.assert_allclose(found[row, :2], [np.mean(every), np.mean(two)])
    assert np.isnan(found[0, 2])
