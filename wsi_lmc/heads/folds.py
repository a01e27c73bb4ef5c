"""How the source is split: by group, into folds that take turns to be trained on, to choose by, and to be tested on.

With K folds, turn k tests fold k, chooses by fold k + 1 and trains on the others. So every example of the source gets a
prediction from a model that neither saw nor was chosen by anything of its group, at the cost of K trainings.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.model_selection import StratifiedGroupKFold

from wsi_lmc.errors import UsageError

MOST_FOLDS, FEWEST_FOLDS = 5, 3
_ATTEMPTS = 50
_SMALLEST = 1e-7  # probability, below which a loss no longer grows: 0 is what kNN says of what it has never seen


@dataclass(frozen=True)
class Turn:
    """One turn of the folds, as masks over the examples."""

    train: Bool[np.ndarray, " n"]
    choose: Bool[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Chosen:
    """A setting that was chosen on the source, with the class-balanced log loss that it had there (lower is better).

    ``among`` says what it was chosen from; chance is the logarithm of the number of classes.
    """

    setting: str
    value: float
    loss: float
    among: tuple[float, ...] = ()


def group_folds(labels: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " n"]:
    """The fold of each example: whole groups, classes spread evenly, all classes left whatever two folds are taken out.

    Raises:
        UsageError: fewer than two classes, a class in fewer than three groups, or no such split is found.
    """
    classes = np.unique(labels)
    spread = {int(kind): len(np.unique(groups[labels == kind])) for kind in classes}
    fewest = min(spread.values(), default=0)
    if len(classes) < 2 or fewest < FEWEST_FOLDS:
        counted = ", ".join(f"class {kind}: {count}" for kind, count in spread.items()) or "none"
        raise UsageError(
            f"patients at the source by class: {counted}",
            f"two classes, and {FEWEST_FOLDS} patients of each: one to train on, one to choose by, one to test on",
            "Label more, or leave a class out with --classes.",
        )
    count = min(MOST_FOLDS, fewest)
    for attempt in range(_ATTEMPTS):
        cutter = StratifiedGroupKFold(count, shuffle=True, random_state=seed + 1000 * attempt)
        folds = np.full(len(labels), -1, np.int64)
        for number, (_, test) in enumerate(cutter.split(labels, labels, groups)):
            folds[test] = number
        if all(_serves(labels, turn, classes) for turn in turns_of(folds)):
            return folds
    raise UsageError(
        "no split of the source's patients that leaves every class on each side",
        "each class in several patients",
        "Label more patients.",
    )


def turns_of(folds: Int64[np.ndarray, " n"]) -> list[Turn]:
    """The turns of all folds, in order."""
    count = int(folds.max()) + 1
    return [Turn((folds != k) & (folds != (k + 1) % count), folds == (k + 1) % count, folds == k) for k in range(count)]


def balanced_loss(truth: Int64[np.ndarray, " n"], probabilities: Float[np.ndarray, "n k"]) -> float:
    """Mean log loss within each class that is there, averaged over these classes."""
    lost = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth].astype(np.float64), _SMALLEST))
    return float(np.mean([lost[truth == kind].mean() for kind in np.unique(truth)]))


def balanced_weights(labels: Int64[np.ndarray, " n"], classes: int) -> Float64[np.ndarray, " k"]:
    """A weight for each class, so that all weigh the same and the mean weight of an example is 1; 0 where absent."""
    counts = np.bincount(labels, minlength=classes)
    present = int((counts > 0).sum())
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0.0)


def _serves(labels: Int64[np.ndarray, " n"], turn: Turn, classes: Int64[np.ndarray, " k"]) -> bool:
    """Whether a turn has every class to train on, and something to choose by and to test on."""
    return bool(set(labels[turn.train]) == set(classes) and turn.choose.any() and turn.test.any())
