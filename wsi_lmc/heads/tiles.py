"""Heads on single tiles: logistic regression, nearest neighbours, a small perceptron; all numbers chosen on the source.

scikit-learn fits them; what they learnt is kept as plain arrays, from which this module predicts, so that a saved head
is read back bit for bit by any version of that library. Features are standardised by the mean and deviation of what
each head was trained on; classes weigh the same however many tiles they have.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier

from wsi_lmc.heads.examples import Examples
from wsi_lmc.heads.folds import Chosen, balanced_loss, balanced_weights, group_folds, turns_of

TileKind = Literal["logistic", "knn", "mlp"]
Arrays = Mapping[str, np.ndarray]

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)  # C, the inverse of regularisation
NEIGHBOURS = (1.0, 5.0, 15.0, 45.0)
EPOCHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
MOST_REFERENCES = 10_000  # tiles that a nearest-neighbour head keeps
_HIDDEN, _BATCH, _DECAY = 64, 128, 1e-3
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class TileHead:
    """A fitted head; ``arrays`` is all that it knows, ``chosen`` what was chosen for it on the source."""

    kind: TileKind
    arrays: Arrays
    chosen: Chosen

    def probabilities(self, features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        """Probability of each class for each tile; rows sum to 1."""
        predict = _PREDICT[self.kind]
        starts = range(0, len(features), _ROWS_AT_ONCE)
        parts = [predict(self.arrays, _scaled(self.arrays, features[at : at + _ROWS_AT_ONCE])) for at in starts]
        nothing = predict(self.arrays, np.zeros((1, len(self.arrays["mean"]))))[:0]
        return np.concatenate([nothing, *parts])


@dataclass(frozen=True)
class CrossFit[H]:
    """A head trained on all of the source, and one for each fold, which knows nothing of that fold's groups.

    ``folds`` is the fold of each example, in the order of the source.
    """

    head: H
    held_out: tuple[H, ...]
    folds: np.ndarray


def fit(kind: TileKind, source: Examples, seed: int) -> TileHead:
    """A head trained on the source, its one free number chosen there by folds of whole groups.

    Raises:
        UsageError: fewer than two classes, or a class in fewer than three groups.
    """
    return cross_fit(kind, source, seed).head


def cross_fit(kind: TileKind, source: Examples, seed: int) -> CrossFit[TileHead]:
    """Like :func:`fit`, with a head for each fold: its number chosen by another fold, then trained on all but its own.

    Raises:
        UsageError: fewer than two classes, or a class in fewer than three groups.
    """
    folds = group_folds(source.labels, source.groups, seed)
    name, values = _SETTINGS[kind]
    held_out: list[TileHead] = []
    losses: list[list[float]] = []
    for turn in turns_of(folds):
        chosen_by = source.part(turn.choose)
        heads = _train(kind, source.part(turn.train), values, seed)
        found = [balanced_loss(chosen_by.labels, head.probabilities(chosen_by.features)) for head in heads]
        losses.append(found)
        best = int(np.argmin(found))
        again = _train(kind, source.part(~turn.test), (values[best],), seed)[0]
        held_out.append(TileHead(kind, again.arrays, Chosen(name, values[best], found[best], values)))
    means = np.asarray(losses).mean(axis=0)
    best = int(np.argmin(means))
    final = _train(kind, source, (values[best],), seed)[0]
    chosen = Chosen(name, values[best], float(means[best]), values)
    return CrossFit(TileHead(kind, final.arrays, chosen), tuple(held_out), folds)


def _train(kind: TileKind, source: Examples, values: tuple[float, ...], seed: int) -> list[TileHead]:
    """A head for each of ``values``."""
    mean = source.features.mean(axis=0, dtype=np.float64)
    deviation = source.features.std(axis=0, dtype=np.float64)
    arrays = {"mean": mean, "scale": np.where(deviation > 1e-12, deviation, 1.0)}
    scaled = Examples(_scaled(arrays, source.features).astype(np.float32), source.labels, source.groups, source.classes)
    found = _LEARN[kind](scaled, values, seed)
    return [
        TileHead(kind, {**arrays, **own}, Chosen(_SETTINGS[kind][0], value, float("nan")))
        for value, own in zip(values, found, strict=True)
    ]


def _scaled(arrays: Arrays, features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    return (features.astype(np.float64) - arrays["mean"]) / arrays["scale"]


def _learn_logistic(source: Examples, values: tuple[float, ...], seed: int) -> list[dict[str, np.ndarray]]:
    del seed  # the minimum is the same from wherever it is looked for
    found: list[dict[str, np.ndarray]] = []
    for value in values:
        model = LogisticRegression(C=value, class_weight="balanced", max_iter=5000)
        model.fit(source.features.astype(np.float64), source.labels)
        present = model.classes_
        slopes, offset = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(present) == 2:  # one row, for the second class against the first
            slopes, offset = np.concatenate([0 * slopes, slopes]), np.concatenate([0 * offset, offset])
        weights = np.zeros((source.classes, slopes.shape[1]))
        bias = np.full(source.classes, -np.inf)  # a class that the source has not is never said
        weights[present], bias[present] = slopes, offset
        found.append({"weights": weights, "bias": bias})
    return found


def _predict_logistic(arrays: Arrays, scaled: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
    return softmax(scaled @ arrays["weights"].T + arrays["bias"], axis=1)


def _learn_knn(source: Examples, values: tuple[float, ...], seed: int) -> list[dict[str, np.ndarray]]:
    rows = np.arange(len(source.labels))
    if len(rows) > MOST_REFERENCES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_REFERENCES, replace=False))
    arrays = {
        "references": source.features[rows],
        "labels": source.labels[rows],
        "class_weights": balanced_weights(source.labels[rows], source.classes),
    }
    return [{**arrays, "k": np.asarray([min(value, len(rows))], np.int64)} for value in values]


def _predict_knn(arrays: Arrays, scaled: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
    """Shares of the neighbours' votes, and one more vote divided among all classes."""
    count, weights = int(arrays["k"][0]), arrays["class_weights"]
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(arrays["references"])
    found = cast(np.ndarray, search.kneighbors(scaled.astype(np.float32), return_distance=False))
    labels = arrays["labels"][found]
    votes = np.stack([(labels == kind).sum(axis=1) * weight for kind, weight in enumerate(weights)], axis=1)
    smoothed = votes + 1 / len(weights)
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def _learn_mlp(source: Examples, values: tuple[float, ...], seed: int) -> list[dict[str, np.ndarray]]:
    """One training; what it knows after each of ``values`` epochs."""
    size = min(_BATCH, len(source.labels))
    settings: dict[str, Any] = {"alpha": _DECAY, "batch_size": size, "random_state": seed}
    model: Any = MLPClassifier((_HIDDEN,), **settings)
    weights = balanced_weights(source.labels, source.classes)[source.labels]
    found: list[dict[str, np.ndarray]] = []
    for epoch in range(1, int(max(values)) + 1):
        model.partial_fit(source.features, source.labels, classes=np.arange(source.classes), sample_weight=weights)
        if epoch in values:
            layers = zip(("first", "second"), model.coefs_, model.intercepts_, strict=True)
            found.append({f"{name}.{part}": array.copy() for name, *both in layers
                          for part, array in zip(("weights", "bias"), both, strict=True)})  # fmt: skip
    return found


def _predict_mlp(arrays: Arrays, scaled: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
    hidden = np.maximum(scaled @ arrays["first.weights"] + arrays["first.bias"], 0)
    logits = hidden @ arrays["second.weights"] + arrays["second.bias"]
    if logits.shape[1] == 1:  # of two classes scikit-learn keeps the second one's
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return softmax(logits, axis=1)


_SETTINGS: dict[TileKind, tuple[str, tuple[float, ...]]] = {
    "logistic": ("C", STRENGTHS), "knn": ("neighbours", NEIGHBOURS), "mlp": ("epochs", EPOCHS),
}  # fmt: skip
_LEARN: dict[TileKind, Callable[[Examples, tuple[float, ...], int], list[dict[str, np.ndarray]]]] = {
    "logistic": _learn_logistic, "knn": _learn_knn, "mlp": _learn_mlp,
}  # fmt: skip
_PREDICT: dict[TileKind, Callable[[Arrays, Float64[np.ndarray, "n d"]], Float64[np.ndarray, "n k"]]] = {
    "logistic": _predict_logistic, "knn": _predict_knn, "mlp": _predict_mlp,
}  # fmt: skip
