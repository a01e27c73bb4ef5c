"""The cross-correlation loss (Barlow Twins, Zbontar et al. 2021) on the embedding itself, and how spread out it is.

With a batch of N pairs and D features, rank(C) <= N - 1: for N = 32 and D = 192 the loss cannot fall under 4.86.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

_SMALLEST_NORM = 1e-12
LEAST_STD = 0.5
"""What the spread term wants of every feature; vectors of a final layer norm allow about 1."""


@dataclass(frozen=True)
class LossTerms:
    """``total`` is the weighted sum of the other terms but ``mean_diagonal``, the views' mean correlation.

    ``spread`` is by how much the features' standard deviations over the batch fall short of ``LEAST_STD``, summed.
    """

    total: Float32[Tensor, ""]
    invariance: Float32[Tensor, ""]
    redundancy: Float32[Tensor, ""]
    spread: Float32[Tensor, ""]
    mean_diagonal: Float32[Tensor, ""]


def cross_correlation_loss(
    first: Float[Tensor, "b d"],
    second: Float[Tensor, "b d"],
    weight: float,
    total: Callable[[Tensor], Tensor] = lambda values: values,
    spread_weight: float = 0.0,
) -> LossTerms:
    """sum_i (1 - C_ii)^2 + ``weight`` * sum_{i != j} C_ij^2, with C the correlation of features over the batch.

    C knows no scale, so nothing keeps features from becoming all but constant: with ``spread_weight``, a hinge on their
    standard deviations is added (the variance term of VICReg, Bardes et al. 2022), the mean of both views'.

    Embeddings are centred over the batch and each feature normed; in float32 whatever the autocast type. ``total``
    sums over the processes that share a batch, with gradients: means, norms and C are then those of the whole batch,
    and so is the loss, on each of them.
    """
    with torch.autocast(first.device.type, enabled=False):
        sides = torch.cat([first.float(), second.float()], 1)
        counted = torch.cat([sides.sum(0), sides.new_tensor([len(sides)])])
        whole = total(counted)
        one, other = (sides - whole[:-1] / whole[-1]).chunk(2, 1)
        moments = total(torch.cat([one.square().sum(0), other.square().sum(0), (one.T @ other).flatten()]))
        squares, products = moments.split([2 * one.shape[1], one.shape[1] ** 2])
        norms = squares.clamp(min=_SMALLEST_NORM**2).sqrt()
        norm_one, norm_other = norms.chunk(2)
        correlation = products.view(one.shape[1], -1) / (norm_one.unsqueeze(1) * norm_other)
        diagonal = correlation.diagonal()
        invariance = (1.0 - diagonal).square().sum()
        redundancy = correlation.square().sum() - diagonal.square().sum()
        deviation = norms / (whole[-1] - 1).clamp(min=1).sqrt()
        spread = (LEAST_STD - deviation).clamp(min=0).sum() / 2
        loss = invariance + weight * redundancy
        return LossTerms(
            loss + spread_weight * spread if spread_weight else loss, invariance, redundancy, spread, diagonal.mean()
        )


def effective_rank(embeddings: Float[Tensor, "b d"]) -> Float32[Tensor, ""]:
    """Exp of the entropy of the normalised singular values of the centred embeddings (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(embeddings.float() - embeddings.float().mean(0))
    share = values / values.sum().clamp(min=_SMALLEST_NORM)
    return torch.exp(-(share * share.clamp(min=_SMALLEST_NORM).log()).sum())


def embedding_std(embeddings: Float[Tensor, "b d"]) -> Float32[Tensor, ""]:
    """Standard deviation over the batch, averaged over the features: 0 where all have collapsed onto a point."""
    return embeddings.float().std(0).mean()
