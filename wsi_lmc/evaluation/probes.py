"""Two probes on frozen features: can a site be told, and does a tissue class learnt at one site hold at another?

Both are logistic regressions on standardised features; patients never stand on both sides of a split, and nothing is
chosen on target data.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation.scores import (
    Score,
    SlideFeatures,
    auroc,
    average_precision,
    balanced_accuracy,
    stack,
    with_interval,
)

_FOLDS = 5
_STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # inverse regularisation; chosen on the source only
_SITE_STRENGTH = 0.1


def site_probe(slides: Sequence[SlideFeatures], seed: int) -> list[Score]:
    """How well the site can be told from one tile: 0.5 is not at all, 1 always.

    Out-of-fold predictions with whole patients left out, sites weighted equally.

    Raises:
        UsageError: not two sites, or a site of fewer than two patients.
    """
    sites = sorted({slide.site for slide in slides})
    patients = {site: {slide.patient for slide in slides if slide.site == site} for site in sites}
    if len(sites) != 2 or min(len(names) for names in patients.values()) < 2:
        counted = ", ".join(f"{site or 'unnamed'}: {len(names)}" for site, names in patients.items())
        raise UsageError(f"patients by site {counted}", "two sites of two patients at least", "Add slides.")
    features, _, slide_of = stack(slides, labelled=False)
    site_of_slide = np.asarray([sites.index(slide.site) for slide in slides])
    truth = site_of_slide[slide_of]
    groups = _patient_numbers(slides)[slide_of]
    folds = min(_FOLDS, *(len(names) for names in patients.values()))
    scores = _out_of_fold(_model(_SITE_STRENGTH), features, truth, groups, (folds, seed))
    rng = np.random.default_rng(seed)
    return [
        with_interval(name, metric, (truth, scores), (slide_of, site_of_slide), rng)
        for name, metric in (("site balanced accuracy", balanced_accuracy), ("site AUROC", auroc))
    ]


def class_probe(source: Sequence[SlideFeatures], target: Sequence[SlideFeatures], seed: int) -> list[Score]:
    """Train on the source's labelled tiles, test on the target's; the source's own cross-validated score beside it.

    Raises:
        UsageError: too few labelled patients, or a class missing at one site.
    """
    features, truth, slide_of = stack(source, labelled=True)
    test, test_truth, test_slide_of = stack(target, labelled=True)
    if set(truth.tolist()) != {0, 1} or set(test_truth.tolist()) != {0, 1}:
        found = f"classes {sorted(set(truth.tolist()))} at the source, {sorted(set(test_truth.tolist()))} at the target"
        raise UsageError(found, "tiles of both classes, 0 and 1, at both sites", "Label more tiles.")
    groups = _patient_numbers(source)[slide_of]
    folds = min(_FOLDS, len(set(groups.tolist())))
    if folds < 2:
        raise UsageError("one labelled patient at the source", "two at least", "Label more slides.")
    held_out = {
        strength: _out_of_fold(_model(strength), features, truth, groups, (folds, seed)) for strength in _STRENGTHS
    }
    best = max(_STRENGTHS, key=lambda strength: auroc(truth, held_out[strength]))
    scores = _model(best).fit(features, truth).predict_proba(test)[:, 1]
    rng = np.random.default_rng(seed)
    own = (slide_of, np.zeros(len(source), np.int64))
    other = (test_slide_of, np.zeros(len(target), np.int64))
    metrics = (
        ("class AUROC", auroc),
        ("class average precision", average_precision),
        ("class balanced accuracy", balanced_accuracy),
    )
    within = with_interval("class AUROC within source", auroc, (truth, held_out[best]), own, rng)
    across = [with_interval(name, metric, (test_truth, scores), other, rng) for name, metric in metrics]
    return [within, *across]


def _model(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000))


def _out_of_fold(
    model: Pipeline,
    features: Float64[np.ndarray, "n d"],
    truth: Int64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
    split: tuple[int, int],
) -> Float64[np.ndarray, " n"]:
    """Probability of class 1 for each tile, from a model that saw none of its patient's tiles."""
    folds, seed = split
    scores = np.full(len(truth), np.nan)
    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in cutter.split(features, truth, groups):
        if len(test):
            scores[test] = model.fit(features[train], truth[train]).predict_proba(features[test])[:, 1]
    return scores


def _patient_numbers(slides: Sequence[SlideFeatures]) -> Int64[np.ndarray, " s"]:
    """A number for each slide's patient; a slide without one is a patient of its own."""
    names = [slide.patient or f"slide {slide.slide_id}" for slide in slides]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
