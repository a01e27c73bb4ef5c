"""Heads on whole slides: mean pooling, gated attention, a transformer; trained on slides' labels alone.

A head keeps what it learnt as plain arrays. In training at most a stated number of each slide's tiles is used; for
prediction all of them are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Float64

from wsi_lmc.heads.examples import Bags, Examples
from wsi_lmc.heads.folds import Chosen, group_folds, turns_of
from wsi_lmc.heads.tiles import Arrays, CrossFit, TileHead
from wsi_lmc.heads.tiles import cross_fit as cross_fit_tiles

if TYPE_CHECKING:
    from torch import nn

    from wsi_lmc.heads.config import Recipe
    from wsi_lmc.heads.networks import NetworkKind

SlideKind = Literal["mean", "abmil", "transformer"]
ATTENTION = "attention"


@dataclass(frozen=True)
class BagPrediction:
    """Probabilities of a slide's classes, and one or more numbers a tile: its attention, or its own probabilities."""

    probabilities: Float64[np.ndarray, " k"]
    tiles: Float[np.ndarray, "n m"]


@dataclass(frozen=True)
class SlideHead:
    """A fitted head; ``arrays`` is all that it knows, ``chosen`` what was chosen for it on the source.

    ``form`` is the shape of its network (see :class:`wsi_lmc.heads.networks.NetworkShape`); mean pooling has none.
    """

    kind: SlideKind
    arrays: Arrays
    chosen: Chosen
    form: Mapping[str, Any]
    device: str = "cpu"

    def predict(self, bag: Float[np.ndarray, "n d"]) -> BagPrediction:
        """Predict one slide from all of its tiles (one at least).

        Under mean pooling the log-odds of a slide are the mean of its tiles' own, so these are what a tile adds.
        """
        if self.kind == "mean":
            head = TileHead("logistic", self.arrays, self.chosen)
            mean = bag.mean(axis=0, dtype=np.float64)[None]
            return BagPrediction(head.probabilities(mean)[0], head.probabilities(bag))
        from wsi_lmc.heads.bagtraining import predict_bag  # torch only where it is needed

        network, device = self._network
        probabilities, attention = predict_bag(network, _scaled(self.arrays, bag), device)
        return BagPrediction(probabilities, attention[:, None])

    @cached_property
    def _network(self) -> "tuple[nn.Module, Any]":
        import torch

        from wsi_lmc.heads.networks import NetworkShape, build_network

        device = torch.device(self.device)
        with torch.random.fork_rng(devices=[]):
            network = build_network(NetworkShape(**self.form))
        own = {name: array for name, array in self.arrays.items() if name not in ("mean", "scale")}
        network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in own.items()})
        return network.to(device).eval(), device


def cross_fit(kind: SlideKind, source: Bags, recipe: "Recipe") -> CrossFit[SlideHead]:
    """Train a head on the source, and one for each fold that knows nothing of the fold's groups.

    For the networks, a turn of the folds trains on K - 2 of them and stops at the epoch that another one chooses; the
    head of all slides is trained for the median of these epochs.

    Raises:
        UsageError: fewer than two classes, or a class in fewer than three groups.
        TrainingError: a loss is no number.
    """
    if kind == "mean":
        means = np.stack([bag.mean(axis=0, dtype=np.float64) for bag in source.tiles]).astype(np.float32)
        fitted = cross_fit_tiles("logistic", Examples(means, source.labels, source.groups, source.classes), recipe.seed)
        pooled = [SlideHead("mean", head.arrays, head.chosen, {}) for head in (fitted.head, *fitted.held_out)]
        return CrossFit(pooled[0], tuple(pooled[1:]), fitted.folds)
    folds = group_folds(source.labels, source.groups, recipe.seed)
    held_out: list[SlideHead] = []
    for turn in turns_of(folds):
        own, chosen_by = source.part(turn.train), source.part(turn.choose)
        held_out.append(_train(kind, own, recipe, chosen_by))
    epochs = round(float(np.median([head.chosen.value for head in held_out])))
    loss = float(np.mean([head.chosen.loss for head in held_out]))
    final = _train(kind, source, replace(recipe, config=replace(recipe.config, epochs=epochs)), None)
    return CrossFit(replace(final, chosen=Chosen("epochs", epochs, loss)), tuple(held_out), folds)


def _train(kind: "NetworkKind", source: Bags, recipe: "Recipe", choose: Bags | None) -> SlideHead:
    from wsi_lmc.heads.bagtraining import train_network
    from wsi_lmc.heads.networks import NetworkShape

    scaling = _scaling(source)
    config = recipe.config
    shape = NetworkShape(kind, source.tiles[0].shape[1], source.classes, config.hidden, config.dropout)
    chosen_by = _standardised(choose, scaling) if choose is not None else None
    trained = train_network(_standardised(source, scaling), shape, recipe, chosen_by)
    epochs, loss = config.epochs, float("nan")
    if trained.losses:
        epochs, loss = int(np.argmin(trained.losses)) + 1, min(trained.losses)
    state = {name: tensor.cpu().numpy() for name, tensor in trained.network.state_dict().items()}
    return SlideHead(kind, {**scaling, **state}, Chosen("epochs", epochs, loss), dict(vars(shape)), recipe.device)


def _scaling(source: Bags) -> dict[str, np.ndarray]:
    """Mean and deviation of each feature, every slide weighing the same."""
    mean = np.mean([bag.mean(axis=0, dtype=np.float64) for bag in source.tiles], axis=0)
    variance = np.mean([((bag - mean) ** 2).mean(axis=0) for bag in source.tiles], axis=0)
    deviation = np.sqrt(variance)
    return {"mean": mean, "scale": np.where(deviation > 1e-12, deviation, 1.0)}


def _scaled(arrays: Arrays, bag: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return ((bag - arrays["mean"]) / arrays["scale"]).astype(np.float32)


def _standardised(bags: Bags, scaling: Arrays) -> Bags:
    return replace(bags, tiles=tuple(_scaled(scaling, bag) for bag in bags.tiles))
