"""Tile heads: against scikit-learn, on planted and on meaningless labels, by groups that never stand on both sides."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from wsi_lmc.errors import UsageError
from wsi_lmc.heads import tiles
from wsi_lmc.heads.examples import Case, Examples, stack_tiles
from wsi_lmc.heads.folds import balanced_loss, balanced_weights, group_folds, turns_of
from wsi_lmc.heads.tiles import CrossFit, TileHead, TileKind, cross_fit, fit

KINDS: tuple[TileKind, ...] = ("logistic", "knn", "mlp")


def _examples(n: int = 240, classes: int = 3, shift: float = 2.0, seed: int = 0, private: float = 0.0) -> Examples:
    """Gaussian features: each class along an axis of its own, each of twelve groups with an offset of its own."""
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, classes, n), rng.integers(0, 12, n)
    features = rng.normal(0, 1, (n, 7)) + private * rng.normal(0, 1, (12, 7))[groups]
    features[np.arange(n), labels] += shift
    return Examples(features.astype(np.float32), labels, groups, classes)


def _out_of_fold(source: Examples, fitted: CrossFit[TileHead]) -> np.ndarray:
    found = np.zeros((len(source.labels), source.classes))
    for fold, head in enumerate(fitted.held_out):
        rows = fitted.folds == fold
        found[rows] = head.probabilities(source.features[rows])
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_planted_classes_are_learnt(kind: TileKind, classes: int) -> None:
    head = fit(kind, _examples(classes=classes, shift=3.0), seed=0)
    other = _examples(classes=classes, shift=3.0, seed=1)
    found = head.probabilities(other.features)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == other.labels).mean() > 0.85
    assert head.chosen.value in head.chosen.among
    assert head.chosen.loss < np.log(classes)
    assert head.probabilities(other.features[:0]).shape == (0, classes)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_without_meaning_give_chance_out_of_fold(kind: TileKind) -> None:
    """Each group has a mark of its own and one label: where groups are torn apart, labels are told by heart."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), 8)
    labels = rng.permutation(np.repeat([0, 1], 20))[groups]
    features = (5 * rng.normal(0, 1, (40, 80))[groups] + rng.normal(0, 1, (320, 80))).astype(np.float32)
    kept, torn = Examples(features, labels, groups, 2), Examples(features, labels, np.arange(320), 2)
    found, leaked = (
        roc_auc_score(labels, _out_of_fold(source, cross_fit(kind, source, seed=0))[:, 1]) for source in (kept, torn)
    )
    assert leaked > 0.95
    assert abs(found - 0.5) < 0.17


def test_groups_never_stand_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _examples()
    trained: list[set[int]] = []
    original = tiles._train

    def watch(kind: TileKind, part: Examples, values: tuple[float, ...], seed: int) -> list[TileHead]:
        trained.append(set(part.groups.tolist()))
        return original(kind, part, values, seed)

    monkeypatch.setattr(tiles, "_train", watch)
    fitted = cross_fit("logistic", source, seed=2)
    turns = turns_of(fitted.folds)
    assert len(trained) == 2 * len(turns) + 1
    for number, turn in enumerate(turns):
        tested, chosen_by = (set(source.groups[rows].tolist()) for rows in (turn.test, turn.choose))
        choosing, testing = trained[2 * number : 2 * number + 2]
        assert not choosing & (tested | chosen_by)
        assert not tested & (testing | chosen_by)
    assert trained[-1] == set(range(12))


def test_folds_keep_groups_whole_and_classes_on_every_side() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 9, 150)
    labels = np.where(groups < 3, 1, 0)  # one class in three groups only
    folds = group_folds(labels, groups, seed=0)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in range(9))
    assert folds.max() == 2
    for turn in turns_of(folds):
        assert set(labels[turn.train]) == {0, 1}
        assert (turn.train.astype(int) + turn.choose + turn.test == 1).all()


def test_too_few_groups_are_refused() -> None:
    groups = np.repeat(np.arange(5), 10)
    with pytest.raises(UsageError, match=r"class 1: 2.*3 patients"):
        group_folds((groups < 2).astype(np.int64), groups, seed=0)
    with pytest.raises(UsageError, match="two classes"):
        group_folds(np.zeros(50, np.int64), groups, seed=0)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_scikit_learns(classes: int) -> None:
    source, other = _examples(classes=classes, shift=1.0), _examples(classes=classes, seed=1)
    head = fit("logistic", source, seed=0)
    scaler = StandardScaler().fit(source.features.astype(np.float64))
    model = LogisticRegression(C=head.chosen.value, class_weight="balanced", max_iter=5000)
    model.fit(scaler.transform(source.features.astype(np.float64)), source.labels)
    expected = model.predict_proba(scaler.transform(other.features.astype(np.float64)))
    np.testing.assert_allclose(head.probabilities(other.features), expected, atol=2e-3)


def test_neighbours_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 40)  # balanced: so votes weigh the same
    features = (rng.normal(0, 1, (120, 7)) + labels[:, None]).astype(np.float32)
    head = fit("knn", Examples(features, labels, np.arange(120) // 6, 3), seed=0)
    k = int(head.chosen.value)
    scaler = StandardScaler().fit(features.astype(np.float64))
    model = KNeighborsClassifier(k).fit(scaler.transform(features.astype(np.float64)), labels)
    other = rng.normal(1, 1, (50, 7))
    expected = (model.predict_proba(scaler.transform(other)) * k + 1 / 3) / (k + 1)
    np.testing.assert_allclose(head.probabilities(other), expected, atol=1e-6)


def test_a_class_the_source_has_not_is_never_said() -> None:
    two = _examples(classes=2)
    source = Examples(two.features, two.labels, two.groups, 3)
    for kind in KINDS:
        assert fit(kind, source, seed=0).probabilities(two.features)[:, 2].max() < 0.35
    assert fit("logistic", source, seed=0).probabilities(two.features)[:, 2].max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_head(kind: TileKind) -> None:
    one, two = (fit(kind, _examples(), seed=3) for _ in range(2))
    assert one.chosen == two.chosen
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name])


def test_classes_weigh_the_same() -> None:
    labels = np.asarray([0] * 6 + [1] * 2)
    weights = balanced_weights(labels, 3)
    np.testing.assert_allclose(weights, [8 / 12, 2.0, 0.0])
    assert weights[labels].mean() == pytest.approx(1)
    probabilities = np.asarray([[0.9, 0.1]] * 6 + [[0.5, 0.5]] * 2)
    assert balanced_loss(labels, probabilities) == pytest.approx((-np.log(0.9) - np.log(0.5)) / 2)


def test_tiles_of_a_slide_are_drawn_by_its_own_seed() -> None:
    def case(name: str, tiles: int) -> Case:
        features = np.arange(tiles, dtype=np.float32)[:, None]
        labels = np.where(np.arange(tiles) % 3 == 0, -1, np.arange(tiles) % 2)
        return Case(name, "p", "north", -1, np.zeros((tiles, 2), np.int32), labels, lambda: features)

    both = stack_tiles([case("a", 90), case("b", 12)], 2, 20, seed=0)
    alone = stack_tiles([case("a", 90)], 2, 20, seed=0)
    assert (len(both.labels), len(alone.labels)) == (28, 20), "twenty of the first, all eight labelled of the second"
    np.testing.assert_array_equal(both.features[:20], alone.features)
    assert (both.features[:, 0] % 3 != 0).all()
    assert (both.labels == both.features[:, 0] % 2).all()


def test_features_that_are_no_numbers_are_refused() -> None:
    bad = Case("a", "p", "n", -1, np.zeros((2, 2), np.int32), np.zeros(2, np.int64), lambda: np.full((2, 3), np.nan))
    with pytest.raises(UsageError, match="slide a"):
        stack_tiles([bad], 2, 0, seed=0)
