"""What one encoder has over another: drawn in pairs, against a plain bootstrap of the same differences."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from wsi_lmc.evaluation import EvaluateConfig, FeatureSet, SlideFeatures, evaluate, gains_text
from wsi_lmc.evaluation.gains import gains

_CONFIG = EvaluateConfig(source="a", resamples=400, distance_resamples=5)


def _set(name: str, signal: float, seed: int) -> FeatureSet:
    """Six slides a site; one feature of two tells the class, the better the larger ``signal`` is."""
    labels = np.tile([0, 1], 15).astype(np.int64)
    slides = []
    for number in range(12):
        rng = np.random.default_rng((seed, number))
        features = rng.normal(size=(30, 4))
        features[:, 0] += signal * labels
        slides.append(SlideFeatures(f"s{number:02d}", f"p{number:02d}", "ab"[number // 6], features, labels))
    return FeatureSet(name, tuple(slides), ("x", "y"), 360)


def test_the_better_encoder_is_ahead_and_equal_ones_are_not_told_apart() -> None:
    sets = [_set("weak", 0.3, 0), _set("same", 2.0, 1), _set("strong", 2.0, 1)]
    found = evaluate(sets, _CONFIG)
    weak, same = (found.gain_over(name, "transfer_auroc") for name in ("weak", "same"))
    assert weak is not None
    assert same is not None
    assert (weak.encoder, weak.other) == ("strong", "weak")
    assert weak.low is not None
    assert weak.low > 0.1
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0), "pairs: the same features differ in no resample"
    aurocs = {one.name: one.find("transfer_auroc", ("a", "b")) for one in found.encoders}
    strong, other = aurocs["strong"], aurocs["weak"]
    assert strong is not None
    assert other is not None
    assert found.gain_over("weak", "transfer_auroc", ("a", "b")) is not None
    assert weak.value == pytest.approx(strong.value - other.value)
    assert f"strong over weak: AUROC {weak.value:+.3f}" in gains_text(found)
    assert found.gain_over("strong", "transfer_auroc") is None


def test_the_interval_is_that_of_a_plain_bootstrap_of_differences() -> None:
    rng = np.random.default_rng(3)
    truth = np.tile([0, 1], 100)
    group = np.repeat(np.arange(20), 10)
    one, other = truth + rng.normal(0, 1, 200), truth + rng.normal(0, 2, 200)
    columns: list[list[float]] = [[], []]
    for draw in range(301):
        chosen = np.arange(20) if draw == 0 else rng.integers(0, 20, 20)
        rows = np.concatenate([np.flatnonzero(group == number) for number in chosen])
        for column, scores in zip(columns, (one, other), strict=True):
            column.append(float(roc_auc_score(truth[rows], scores[rows])))
    drawn = [np.asarray([column]) for column in columns]
    (gain,) = gains([("other", {("a", "b"): drawn[1]}), ("one", {("a", "b"): drawn[0]})], ["transfer_auroc"])
    differences = np.asarray(columns[0]) - np.asarray(columns[1])
    assert gain.value == pytest.approx(differences[0])
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(differences[1:], [2.5, 97.5])))
    assert gains([("one", {})], ["transfer_auroc"]) == ()
