"""Training of a network on bags: AdamW, classes weighted, the number of epochs chosen by bags kept out of training.

The same seed gives the same weights on the same machine and device: everything is drawn from seeded generators, which
are put back afterwards.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wsi_lmc.errors import TrainingError
from wsi_lmc.heads.config import Recipe
from wsi_lmc.heads.examples import Bags
from wsi_lmc.heads.folds import balanced_loss, balanced_weights
from wsi_lmc.heads.networks import NetworkShape, build_network


@dataclass(frozen=True)
class Trained:
    """A network, and the class-balanced loss on the choosing bags after each epoch (empty where there are none)."""

    network: nn.Module
    losses: tuple[float, ...]


def train_network(bags: Bags, shape: NetworkShape, recipe: Recipe, choose: Bags | None = None) -> Trained:
    """Train all epochs of the recipe; with ``choose``, stop early and keep the weights of the best epoch there.

    Features are expected to be standardised.

    Raises:
        TrainingError: the loss is no number.
    """
    config, seed, device = recipe.config, recipe.seed, torch.device(recipe.device)
    rng = np.random.default_rng(seed)
    with _seeded(seed, device):
        network = build_network(shape).to(device)
        weights = torch.as_tensor(balanced_weights(bags.labels, bags.classes), dtype=torch.float32, device=device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        losses: list[float] = []
        best = copy.deepcopy(network.state_dict())
        for _ in range(config.epochs):
            order = rng.permutation(len(bags.tiles))
            for start in range(0, len(order), config.bags_per_step):
                _step(network, optimiser, bags.part(order[start : start + config.bags_per_step]), weights)
            if choose is None:
                continue
            losses.append(balanced_loss(choose.labels, _probabilities(network, choose, device)))
            if losses[-1] == min(losses):
                best = copy.deepcopy(network.state_dict())
            if len(losses) - 1 - int(np.argmin(losses)) >= config.patience:
                break
        if choose is not None:
            network.load_state_dict(best)
    return Trained(network.eval(), tuple(losses))


def predict_bag(
    network: nn.Module, tiles: Float[np.ndarray, "n d"], device: torch.device
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " n"]]:
    """Probabilities of one bag, all of its tiles at once, and the attention of each tile."""
    network.eval()
    with torch.inference_mode():
        bag = torch.as_tensor(tiles, dtype=torch.float32, device=device)[None]
        present = torch.ones(bag.shape[:2], dtype=torch.bool, device=device)
        logits, attention = network(bag, present)
        probabilities = torch.softmax(logits[0].double(), dim=0)
    return probabilities.cpu().numpy(), attention[0].cpu().numpy()


def pad(
    tiles: Sequence[Float[np.ndarray, "_ d"]], device: torch.device
) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
    """Bags of several sizes as one tensor, and which of its rows are tiles."""
    longest = max(len(bag) for bag in tiles)
    padded = torch.zeros(len(tiles), longest, tiles[0].shape[1])
    present = torch.zeros(len(tiles), longest, dtype=torch.bool)
    for row, bag in enumerate(tiles):
        padded[row, : len(bag)] = torch.as_tensor(bag, dtype=torch.float32)
        present[row, : len(bag)] = True
    return padded.to(device), present.to(device)


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, bags: Bags, weights: Float[Tensor, " k"]) -> None:
    network.train()
    tiles, present = pad(bags.tiles, weights.device)
    labels = torch.as_tensor(bags.labels, device=weights.device)
    logits, _ = network(tiles, present)
    lost = nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = (lost * weights[labels]).mean()
    if not torch.isfinite(loss):
        raise TrainingError("the loss of a slide head is no number", "a finite loss", "Lower --lr.")
    optimiser.zero_grad(set_to_none=True)
    cast(Any, loss).backward()
    optimiser.step()


def _probabilities(network: nn.Module, bags: Bags, device: torch.device) -> Float[np.ndarray, "n k"]:
    return np.stack([predict_bag(network, tiles, device)[0] for tiles in bags.tiles])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Weights and dropout drawn from ``seed``; the generators are put back."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield
