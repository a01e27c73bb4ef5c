"""Scores against scikit-learn, with weights and ties; intervals by patient; thresholds; what no skill would reach."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from wsi_lmc.evaluation.scores import auroc, average_precision
from wsi_lmc.heads import scoring
from wsi_lmc.heads.examples import Case
from wsi_lmc.heads.predictions import Known
from wsi_lmc.heads.reporting import (
    SiteScores,
    Thresholds,
    choose_thresholds,
    score_sites,
    scores_text,
    thresholds_without,
    write_scores,
)
from wsi_lmc.heads.scoring import HeadScore, Naming, Results, best_threshold, score


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "RESAMPLES", 200)  # types are checked in tests, which makes a thousand slow


def _results(classes: int, n: int = 300, seed: int = 0) -> Results:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    raw = np.round(rng.random((n, classes)) + 0.6 * np.eye(classes)[truth], 1) + 0.1  # with ties
    return Results(truth, raw / raw.sum(axis=1, keepdims=True), rng.integers(0, 20, n), np.full(n, 0.4))


def _by_name(scores: list[HeadScore]) -> dict[str, HeadScore]:
    return {each.metric: each for each in scores}


def test_metrics_of_two_classes_are_scikit_learns() -> None:
    results = _results(2)
    truth, positive = results.truth, results.probabilities[:, 1]
    found = _by_name(score(results, [results], Naming(("a", "b"), 0), seed=0))
    called = results.probabilities.argmax(axis=1)
    assert found["AUROC"].value == pytest.approx(metrics.roc_auc_score(truth, positive))
    assert found["average precision"].value == pytest.approx(metrics.average_precision_score(truth, positive))
    assert found["F1"].value == pytest.approx(metrics.f1_score(truth, positive >= 0.4))
    assert found["balanced accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert found["accuracy of b"].value == pytest.approx(metrics.recall_score(truth, called))
    assert found["AUROC"].value == pytest.approx(auroc(truth, positive.astype(np.float64)))
    assert found["average precision"].value == pytest.approx(average_precision(truth, positive.astype(np.float64)))


def test_metrics_of_three_classes_are_scikit_learns() -> None:
    results = _results(3)
    truth, called = results.truth, results.probabilities.argmax(axis=1)
    found = _by_name(score(results, [results], Naming(("a", "b", "c"), 0), seed=0))
    expected = metrics.roc_auc_score(truth, results.probabilities, multi_class="ovr", average="macro")
    assert found["macro AUROC"].value == pytest.approx(expected)
    areas = metrics.average_precision_score(np.eye(3)[truth], results.probabilities, average="macro")
    assert found["macro average precision"].value == pytest.approx(areas)
    assert found["macro F1"].value == pytest.approx(metrics.f1_score(truth, called, average="macro"))
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, called))
    assert found["macro AUROC"].low < found["macro AUROC"].value < found["macro AUROC"].high


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_are_repetitions(classes: int) -> None:
    results = _results(classes, n=60)
    times = np.random.default_rng(1).integers(0, 3, 60)
    rows = np.repeat(np.arange(60), times)
    again = Results(results.truth[rows], results.probabilities[rows], results.groups[rows], results.thresholds[rows])
    names = tuple("abc"[:classes])
    weighted, repeated = scoring._metrics(results, names), scoring._metrics(again, names)
    for metric, evaluate in weighted.items():
        assert evaluate(times.astype(float)) == pytest.approx(repeated[metric](np.ones(len(rows)))), metric


def test_patients_are_drawn_and_not_tiles() -> None:
    """Tiles of a patient are copies: an interval over tiles would be ten times too narrow."""
    rng = np.random.default_rng(0)
    truth, scores = np.tile([0, 1], 15), rng.random(30) + np.tile([0, 0.3], 15)
    one = np.stack([1 - scores / 2, scores / 2], axis=1)
    few = Results(truth, one, np.arange(30), np.full(30, 0.5))
    many = Results(np.repeat(truth, 100), np.repeat(one, 100, 0), np.repeat(np.arange(30), 100), np.full(3000, 0.5))
    alone = Results(many.truth, many.probabilities, np.zeros(3000, np.int64), many.thresholds)
    naming = Naming(("a", "b"), 0)
    a, b, c = (_by_name(score(each, [each], naming, seed=0))["AUROC"] for each in (few, many, alone))
    assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.01)
    assert c.high - c.low < 0.3 * (a.high - a.low)
    assert (a.interval_over, c.interval_over) == ("patients", "examples")


def test_what_no_skill_reaches_is_what_the_trivial_answer_scores() -> None:
    truth = np.asarray([0] * 6 + [1] * 3 + [2])
    always = np.tile([0.1, 0.7, 0.2], (10, 1))
    results = Results(truth, always, np.arange(10), np.full(10, np.nan))
    found = _by_name(score(results, [results], Naming(("a", "b", "c"), 1), seed=0))
    for metric in ("macro AUROC", "balanced accuracy", "macro F1", "accuracy", "accuracy of b", "accuracy of a"):
        assert found[metric].value == pytest.approx(found[metric].baseline), metric
    two = Results(np.asarray([0] * 6 + [1] * 2), np.tile([0.2, 0.8], (8, 1)), np.arange(8), np.full(8, 0.5))
    binary = _by_name(score(two, [two], Naming(("a", "b"), 0), seed=0))
    assert binary["F1"].value == binary["F1"].baseline == pytest.approx(2 * 0.25 / 1.25)
    assert binary["average precision"].baseline == 0.25


def test_seeds_spread_is_told() -> None:
    parts = [_results(2, seed=seed) for seed in range(3)]
    own = [Results(parts[0].truth, each.probabilities, each.groups, each.thresholds) for each in parts]
    found = _by_name(score(own[0], own, Naming(("a", "b"), 0), seed=0))["AUROC"]
    values = [metrics.roc_auc_score(each.truth, each.probabilities[:, 1]) for each in own]
    assert found.seed_mean == pytest.approx(np.mean(values))
    assert found.seed_sd == pytest.approx(np.std(values, ddof=1))
    assert score(Results(*(array[:0] for array in vars(own[0]).values())), [], Naming(("a", "b"), 0), seed=0) == []


def test_a_class_that_is_missing_has_no_score() -> None:
    results = Results(np.zeros(5, np.int64), np.full((5, 2), 0.5), np.arange(5), np.full(5, 0.5))
    found = _by_name(score(results, [results], Naming(("a", "b"), 0), seed=0))
    assert np.isnan(found["AUROC"].value)
    assert np.isnan(found["AUROC"].low)
    assert found["accuracy"].value == 1


def test_the_threshold_is_the_best_of_all() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth, scores = rng.integers(0, 2, 50), np.round(rng.random(50), 1)
        best = max(metrics.f1_score(truth, scores >= cut) for cut in np.unique(scores))
        assert metrics.f1_score(truth, scores >= best_threshold(truth, scores)) == pytest.approx(best)
    assert best_threshold(np.zeros(3, np.int64), np.ones(3)) == 0.5
    assert best_threshold(np.asarray([0, 1]), np.asarray([0.2, 0.6])) == pytest.approx(0.4)


def _known(name: str, site: str, shift: float = 0.0) -> Known:
    rng = np.random.default_rng(len(name) + int(100 * shift))
    truth = np.tile([0, 1], 10)
    positive = np.clip(0.3 * rng.random((2, 20)) + 0.3 * truth + shift, 0, 1)
    case = Case(name, f"p-{name}", site, -1, np.zeros((20, 2), np.int32), truth, lambda: np.zeros((20, 1)))
    split = "target" if site == "south" else "source, out of fold"
    return Known(case, split, truth, np.stack([1 - positive, positive], axis=2))


def test_thresholds_of_the_source_leave_the_own_fold_out_and_the_target_alone() -> None:
    source = [_known("a", "north"), _known("bb", "north", 0.1), _known("ccc", "north", 0.4)]
    fold_of = {each.case.group: fold for fold, each in enumerate(source)}
    found = thresholds_without(source, fold_of)
    assert found[2] == choose_thresholds(source[:2])
    assert found[2].averaged < choose_thresholds(source[2:]).averaged
    target = _known("dddd", "south")
    limits = [*(found[fold] for fold in range(3)), choose_thresholds(source)]
    one = score_sites([*source, target], limits, Naming(("a", "b"), 0), "tile")
    turned = Known(target.case, target.split, 1 - target.truth, target.by_seed)
    two = score_sites([*source, turned], limits, Naming(("a", "b"), 0), "tile")
    assert [(each.site, each.patients, each.examples) for each in one] == [("north", 3, 60), ("south", 1, 20)]
    assert one[0] == two[0], "labels of the target change nothing at the source"
    assert _by_name(list(one[1].scores))["AUROC"].value == pytest.approx(
        1 - _by_name(list(two[1].scores))["AUROC"].value
    )


def test_files_and_text_say_the_same(tmp_path: Path) -> None:
    sites = score_sites([_known("a", "south")], [Thresholds(0.4, (0.4, 0.4))], Naming(("a", "b"), 0), "tile")
    write_scores(tmp_path, sites, {"head": "logistic"})
    document = json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert document["head"] == "logistic"
    area = document["sites"][0]["scores"][0]
    assert (area["metric"], area["interval_over"]) == ("AUROC", "examples")
    table = (tmp_path / "scores.csv").read_text()
    assert f"south,target,AUROC,{area['value']:.4f}" in table
    assert f"{area['value']:.3f}" in scores_text(sites)
    assert "p-a" not in table
    assert isinstance(sites[0], SiteScores)
