"""The cross-correlation loss (Barlow Twins, Zbontar et al. 2021) on the embedding itself, and how spread out it is.

With a batch of N pairs and D features, rank(C) <= N - 1: for N = 32 and D = 192 the loss cannot fall under 4.86.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class LossTerms:
    """``total`` = ``invariance`` + weight * ``redundancy``; ``mean_diagonal`` is the views' mean correlation."""

    total: Float32[Tensor, ""]
    invariance: Float32[Tensor, ""]
    redundancy: Float32[Tensor, ""]
    mean_diagonal: Float32[Tensor, ""]


def cross_correlation_loss(first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], weight: float) -> LossTerms:
    """sum_i (1 - C_ii)^2 + ``weight`` * sum_{i != j} C_ij^2, with C the correlation of features over the batch.

    Embeddings are centred over the batch and each feature normed; in float32 whatever the autocast type.
    """
    with torch.autocast(first.device.type, enabled=False):
        correlation = _normed(first.float()).T @ _normed(second.float())
        diagonal = correlation.diagonal()
        invariance = (1.0 - diagonal).square().sum()
        redundancy = correlation.square().sum() - diagonal.square().sum()
        return LossTerms(invariance + weight * redundancy, invariance, redundancy, diagonal.mean())


def effective_rank(embeddings: Float[Tensor, "b d"]) -> Float32[Tensor, ""]:
    """Exp of the entropy of the normalised singular values of the centred embeddings (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(embeddings.float() - embeddings.float().mean(0))
    share = values / values.sum().clamp(min=_SMALLEST_NORM)
    return torch.exp(-(share * share.clamp(min=_SMALLEST_NORM).log()).sum())


def embedding_std(embeddings: Float[Tensor, "b d"]) -> Float32[Tensor, ""]:
    """Standard deviation over the batch, averaged over the features: 0 where all have collapsed onto a point."""
    return embeddings.float().std(0).mean()


def _normed(embeddings: Float32[Tensor, "b d"]) -> Float32[Tensor, "b d"]:
    centred = embeddings - embeddings.mean(0)
    return centred / centred.norm(dim=0).clamp(min=_SMALLEST_NORM)
