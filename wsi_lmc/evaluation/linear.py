"""The linear probe: logistic regression on standardised features, and its predictions for groups it has not seen."""

import numpy as np
from jaxtyping import Float, Float64, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5


def model(strength: float) -> Pipeline:
    """An untrained probe; ``strength`` is the inverse of the regularisation, classes weigh alike."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000))


def most_folds(truth: Int64[np.ndarray, " n"], group: Int64[np.ndarray, " n"]) -> int:
    """How many folds the rarest class's groups allow."""
    return min(FOLDS, *(len(np.unique(group[truth == kind])) for kind in np.unique(truth)))


def out_of_fold(
    strength: float,
    features: Float[np.ndarray, "n d"],
    truth: Int64[np.ndarray, " n"],
    group: Int64[np.ndarray, " n"],
    seed: int,
) -> Float64[np.ndarray, "n c"]:
    """Probability of each class (0 to c - 1) for each tile, from a probe that saw none of its group's tiles.

    At least two groups of every class are needed (:func:`most_folds`). A class that a fold's training lacks has 0.
    """
    kinds, features = int(truth.max()) + 1, features.astype(np.float64)
    found = np.zeros((len(truth), kinds))
    cutter = StratifiedGroupKFold(most_folds(truth, group), shuffle=True, random_state=seed)
    for train, test in cutter.split(features, truth, group):
        if not len(test):
            continue
        present = np.unique(truth[train])
        if len(present) == 1:
            found[test, present[0]] = 1.0
            continue
        probe = model(strength).fit(features[train], truth[train])
        found[np.ix_(test, present)] = probe.predict_proba(features[test])
    return found
