"""Slide heads: planted instances are found, networks against plain numpy, order and padding change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from wsi_lmc.errors import TrainingError, UsageError
from wsi_lmc.heads import slides
from wsi_lmc.heads.bagtraining import pad, predict_bag, train_network
from wsi_lmc.heads.config import BagConfig, Recipe
from wsi_lmc.heads.examples import Bags, Case, collect_bags
from wsi_lmc.heads.folds import turns_of
from wsi_lmc.heads.networks import GatedAttention, NetworkKind, NetworkShape, build_network
from wsi_lmc.heads.slides import SlideHead, SlideKind, cross_fit

CPU = torch.device("cpu")
KINDS: tuple[NetworkKind, ...] = ("abmil", "transformer")
SMALL = BagConfig(hidden=32, epochs=14, patience=5, lr=4e-3, bags_per_step=6)


def _bags(count: int, seed: int, size: tuple[int, int] = (25, 45)) -> Bags:
    """Noise; in bags of class 1 a single tile stands out, whose mean over the bag drowns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    tiles = [rng.normal(0, 1, (rng.integers(*size), 12)).astype(np.float32) for _ in range(count)]
    for bag, label in zip(tiles, labels, strict=True):
        if label:
            bag[rng.integers(len(bag)), :4] += 4.0
    return Bags(tuple(tiles), labels, np.arange(count), 2)


def _planted(bag: np.ndarray) -> int:
    return int(bag[:, :4].sum(axis=1).argmax())


def _network(kind: NetworkKind, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_network(NetworkShape(kind, 12, 3, 32, 0.25)).eval()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_tile_that_decides_is_found(kind: NetworkKind) -> None:
    source, chosen_by, other = _bags(80, seed=1), _bags(24, seed=4), _bags(60, seed=2)
    recipe = Recipe(replace(SMALL, lr=1e-3, epochs=30, patience=30, bags_per_step=4), 0)
    network = train_network(source, NetworkShape(kind, 12, 2, 32, 0.1), recipe, chosen_by).network
    mean = cross_fit("mean", source, recipe).head
    found = [predict_bag(network, bag, CPU) for bag in other.tiles]
    area = roc_auc_score(other.labels, [probabilities[1] for probabilities, _ in found])
    baseline = roc_auc_score(other.labels, [mean.predict(bag).probabilities[1] for bag in other.tiles])
    assert area > 0.95
    assert area > baseline + 0.05, "a mean over the bag drowns what a single tile says"
    pairs = [(each, bag) for (_, each), bag, label in zip(found, other.tiles, other.labels, strict=True) if label]
    hits = [int(attention.argmax()) == _planted(bag) for attention, bag in pairs]
    assert np.mean(hits) > 0.7


def test_gated_attention_is_what_ilse_wrote() -> None:
    """Equation 9 in plain numpy, in float64."""
    network = _network("abmil")
    tiles = np.random.default_rng(0).normal(0, 1, (9, 12)).astype(np.float32)
    own = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}

    def linear(name: str, rows: np.ndarray) -> np.ndarray:
        return rows @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    hidden = np.maximum(linear("project", tiles.astype(np.float64)), 0)
    scores = linear("weigh", np.tanh(linear("content", hidden)) / (1 + np.exp(-linear("gate", hidden))))[:, 0]
    attention = np.exp(scores) / np.exp(scores).sum()
    logits = linear("decide", attention @ hidden)
    expected = np.exp(logits) / np.exp(logits).sum()
    probabilities, found = predict_bag(network, tiles, CPU)
    np.testing.assert_allclose(found, attention, atol=1e-6)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_attention_of_the_transformer_is_torchs_own() -> None:
    network = _network("transformer")
    pool = network.pool
    assert isinstance(pool, torch.nn.Module)
    queries, keys = torch.randn(2, 1, 32), torch.randn(2, 7, 32)
    present = torch.ones(2, 7, dtype=torch.bool)
    present[1, 4:] = False
    theirs = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        parts = [getattr(pool, name) for name in ("query", "key", "value")]
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(pool.get_submodule("out").state_dict())
        asked = pool.get_submodule("norm_queries")(queries)
        known = pool.get_submodule("norm_keys")(keys)
        mixed, weights = theirs(asked, known, known, key_padding_mask=~present, average_attn_weights=False)
        mixed = queries + mixed
        expected = mixed + pool.get_submodule("feed")(pool.get_submodule("norm_between")(mixed))
        found, attention = pool(queries, keys, present)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(attention, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_tiles_does_not_matter(kind: NetworkKind) -> None:
    network = _network(kind)
    rng = np.random.default_rng(1)
    bag = rng.normal(0, 1, (40, 12)).astype(np.float32)
    order = rng.permutation(40)
    probabilities, attention = predict_bag(network, bag, CPU)
    again, moved = predict_bag(network, bag[order], CPU)
    np.testing.assert_allclose(again, probabilities, atol=1e-6)
    np.testing.assert_allclose(moved, attention[order], atol=1e-6)
    assert attention.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_neither_value_nor_gradient(kind: NetworkKind) -> None:
    network = _network(kind)
    rng = np.random.default_rng(2)
    long, short = (rng.normal(0, 1, (n, 12)).astype(np.float32) for n in (30, 11))
    tiles, present = pad([long, short], CPU)
    tiles[~present] = 1e4  # whatever stands there
    logits, attention = network(tiles, present)
    alone, own = network(torch.as_tensor(short)[None], torch.ones(1, 11, dtype=torch.bool))
    torch.testing.assert_close(logits[1], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention[1, :11], own[0], atol=1e-6, rtol=1e-5)
    assert (attention[1, 11:] == 0).all()
    parameters = list(network.parameters())
    padded = torch.autograd.grad(logits[1].square().sum(), parameters, allow_unused=True)
    single = torch.autograd.grad(alone[0].square().sum(), parameters, allow_unused=True)
    for one, other in zip(padded, single, strict=True):
        assert one is not None, "every weight takes part"
        assert other is not None
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: NetworkKind) -> None:
    torch.manual_seed(0)
    network = build_network(NetworkShape(kind, 3, 2, 8, 0.0)).double()
    tiles = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    present = torch.ones(1, 4, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda rows: network(rows, present), (tiles,), atol=1e-5)


def test_the_same_seed_gives_the_same_head_and_leaves_torch_alone() -> None:
    before = torch.get_rng_state()
    bags = _bags(24, seed=0)
    config = replace(SMALL, epochs=3)
    one, two = (cross_fit("abmil", bags, Recipe(config, 4)) for _ in range(2))
    other = cross_fit("abmil", bags, Recipe(config, 5))
    for name, array in one.head.arrays.items():
        np.testing.assert_array_equal(array, two.head.arrays[name])
    assert not np.array_equal(one.head.arrays["decide.weight"], other.head.arrays["decide.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_a_fold_is_unknown_to_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    bags = replace(_bags(30, seed=0), groups=np.arange(30) // 2, labels=(np.arange(30) // 2) % 2)
    seen: list[set[int]] = []
    original = slides._train

    def watch(kind: NetworkKind, part: Bags, recipe: Recipe, choose: Bags | None) -> SlideHead:
        seen.append(set(part.groups.tolist()))
        return original(kind, part, recipe, choose)

    monkeypatch.setattr(slides, "_train", watch)
    fitted = cross_fit("abmil", bags, Recipe(replace(SMALL, epochs=1), 0))
    for trained, turn in zip(seen, turns_of(fitted.folds), strict=False):
        assert not trained & set(bags.groups[turn.test].tolist())
        assert not trained & set(bags.groups[turn.choose].tolist())
    assert seen[-1] == set(range(15))


def test_the_epoch_of_least_loss_is_kept() -> None:
    bags, choose = _bags(20, seed=0), _bags(10, seed=3)
    shape = NetworkShape("abmil", 12, 2, 32, 0.25)
    trained = train_network(bags, shape, Recipe(replace(SMALL, epochs=12, patience=3), 0), choose)
    best = int(np.argmin(trained.losses))
    again = train_network(bags, shape, Recipe(replace(SMALL, epochs=best + 1), 0))
    for name, tensor in trained.network.state_dict().items():
        torch.testing.assert_close(tensor, again.network.state_dict()[name], atol=0, rtol=0)
    assert len(trained.losses) <= best + 1 + 3


def test_a_slides_log_odds_are_the_mean_of_its_tiles_under_mean_pooling() -> None:
    head = cross_fit("mean", _bags(30, seed=0), Recipe(SMALL, 0)).head
    bag = _bags(2, seed=9).tiles[1]
    found = head.predict(bag)
    odds = np.log(found.tiles[:, 1] / found.tiles[:, 0])
    assert np.log(found.probabilities[1] / found.probabilities[0]) == pytest.approx(odds.mean(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_tiles_are_predicted_at_once(kind: NetworkKind) -> None:
    bag = np.random.default_rng(0).normal(0, 1, (100_000, 12)).astype(np.float16)
    probabilities, attention = predict_bag(_network(kind), bag, CPU)
    assert np.isfinite(probabilities).all()
    assert attention.shape == (100_000,)
    assert attention.sum() == pytest.approx(1, abs=1e-3)


def test_bags_are_sampled_for_training_and_unlabelled_slides_left_out() -> None:
    features = np.arange(50, dtype=np.float32)[:, None]
    origins, none = np.zeros((50, 2), np.int32), np.full(50, -1)
    cases = [Case(name, "p", "n", label, origins, none, lambda: features) for name, label in (("a", 0), ("b", -1))]
    bags = collect_bags(cases, 2, 8, seed=0)
    assert [len(bag) for bag in bags.tiles] == [8]
    assert len(np.unique(bags.tiles[0])) == 8
    with pytest.raises(UsageError, match="no labelled slide"):
        collect_bags(cases[1:], 2, 8, seed=0)


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    bags = _bags(6, seed=0)
    endless = replace(bags, tiles=tuple(np.full_like(bag, np.inf) for bag in bags.tiles))
    with pytest.raises(TrainingError, match="no number"):
        train_network(endless, NetworkShape("abmil", 12, 2, 32, 0.0), Recipe(SMALL, 0))


@pytest.mark.parametrize("wrong", [{"hidden": 12}, {"dropout": 1.0}, {"epochs": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(SMALL, **wrong)


def test_kinds_are_all_tested() -> None:
    assert {*KINDS, "mean"} == set(SlideKind.__args__)
    assert GatedAttention.__doc__
