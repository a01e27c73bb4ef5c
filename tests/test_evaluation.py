"""Scores against scikit-learn, probes on data with known answers, files as promised."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import (
    Roles,
    SlideFeatures,
    class_probe,
    colour_features,
    evaluate,
    plot_training,
    report_text,
    site_probe,
)
from wsi_lmc.evaluation.scores import auroc, average_precision, balanced_accuracy


def _slides(
    *, site_shift: float = 0.0, class_shift: float = 0.0, private: float = 0.0, per_site: int = 6, seed: int = 0
) -> list[SlideFeatures]:
    """Gaussian features: site along axis 0, class along axis 1, each slide's own offset in all."""
    rng = np.random.default_rng(seed)
    slides = []
    for site in ("north", "south"):
        for number in range(per_site):
            labels = rng.integers(0, 2, 40)
            features = rng.normal(0, 1, (40, 7)) + private * rng.normal(0, 1, 7)
            features[:, 0] += site_shift * (site == "south")
            features[:, 1] += class_shift * labels
            slides.append(SlideFeatures(f"{site}-{number}", f"p{site}{number}", site, features, labels))
    return slides


def test_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 200)
    scores = np.round(np.clip(truth * 0.3 + rng.random(200) * 0.7, 0, 1), 1)  # with ties
    assert auroc(truth, scores) == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert average_precision(truth, scores) == pytest.approx(metrics.average_precision_score(truth, scores))
    assert balanced_accuracy(truth, scores) == pytest.approx(metrics.balanced_accuracy_score(truth, scores >= 0.5))
    assert np.isnan(auroc(np.ones(3, np.int64), np.zeros(3)))


def test_a_site_that_leaves_no_trace_is_not_told() -> None:
    accuracy, area = site_probe(_slides(), seed=0)
    assert accuracy.low <= 0.5 <= accuracy.high
    assert area.low <= 0.5 <= area.high
    assert (accuracy.tiles, accuracy.slides, accuracy.chance) == (480, 12, 0.5)


def test_a_known_shift_gives_the_known_accuracy() -> None:
    """Two unit Gaussians 2 apart: 0.841 of a normal distribution lies under 1."""
    accuracy = site_probe(_slides(site_shift=2.0, per_site=12), seed=0)[0]
    assert accuracy.value == pytest.approx(0.841, abs=0.04)
    assert accuracy.low < accuracy.value < accuracy.high


def test_slides_own_marks_are_not_taken_for_a_site() -> None:
    """Each slide lies somewhere of its own: an ungrouped split would score near 1."""
    values = [site_probe(_slides(private=4.0, per_site=8, seed=seed), seed=0)[0].value for seed in range(4)]
    assert np.mean(values) < 0.68


def test_one_patient_stays_on_one_side() -> None:
    slides = _slides(private=6.0, per_site=6)
    shared = [SlideFeatures(s.slide_id, f"p{i // 2}", s.site, s.features, s.labels) for i, s in enumerate(slides)]
    assert site_probe(shared, seed=0)[0].slides == 12
    same = [SlideFeatures(s.slide_id, s.site, s.site, s.features, s.labels) for s in slides]
    with pytest.raises(UsageError, match="two patients"):
        site_probe(same, seed=0)


def test_one_site_is_not_enough() -> None:
    with pytest.raises(UsageError, match="two sites"):
        site_probe(_slides()[:6], seed=0)


def test_a_class_learnt_at_one_site_holds_at_the_other() -> None:
    slides = _slides(class_shift=2.0, per_site=8)
    scores = {score.metric: score for score in class_probe(slides[:8], slides[8:], seed=0)}
    expected = 0.921  # of two unit Gaussians 2 apart: the area under the curve is Phi(2 / sqrt 2)
    assert scores["class AUROC"].value == pytest.approx(expected, abs=0.04)
    assert scores["class AUROC within source"].value == pytest.approx(expected, abs=0.04)
    assert scores["class AUROC"].tiles == 320


def test_labels_without_meaning_are_not_learnt() -> None:
    slides = _slides(per_site=8)
    scores = {score.metric: score for score in class_probe(slides[:8], slides[8:], seed=0)}
    assert scores["class AUROC"].low <= 0.5 <= scores["class AUROC"].high


def test_unlabelled_tiles_are_left_out_of_the_class_probe() -> None:
    slides = _slides(class_shift=3.0)
    hidden = [
        SlideFeatures(s.slide_id, s.patient, s.site, s.features, np.where(np.arange(40) < 10, s.labels, -1))
        for s in slides
    ]
    assert class_probe(hidden[:6], hidden[6:], seed=0)[0].tiles == 60
    with pytest.raises(UsageError, match="both classes"):
        class_probe([SlideFeatures("a", "p", "n", s.features, s.labels * 0) for s in slides[:6]], slides[6:], seed=0)


def test_colour_features_are_mean_and_deviation() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    found = colour_features(tiles)
    np.testing.assert_allclose(found[:, :3], tiles.reshape(3, 35, 3).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 3:], tiles.reshape(3, 35, 3).std(1), rtol=1e-4)


def test_files_say_what_was_measured(tmp_path: Path) -> None:
    sets = {"colour": _slides(site_shift=3, class_shift=1), "LMC": _slides(class_shift=2)}
    evaluation = evaluate(sets, Roles("north", frozenset({"north-0"})), tmp_path, seed=1)
    assert {path.name for path in tmp_path.iterdir()} - {".tmp"} == {path.name for path in evaluation.files}
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["source_site"] == "north"
    site = document["scores"]["LMC"][0]
    assert site["slides"] == 11, "a slide the encoder has seen is left out"
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 6
    assert "pnorth" not in (tmp_path / "scores.json").read_text() + (tmp_path / "scores.csv").read_text()
    for name in ("scores.png", "embedding.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    table = report_text(evaluation)
    assert "colour" in table
    assert f"{site['value']:.2f}" in table


def test_a_training_is_drawn(tmp_path: Path) -> None:
    rows = [{"step": step, "invariance": 60 / step, "redundancy": 900.0} for step in (1, 10, 20)]
    plot_training([*rows, {"step": 20, "held_out_invariance": 4.0, "held_out_redundancy": 800.0}], tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 5000
