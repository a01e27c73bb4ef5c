"""What of a vision transformer's tokens becomes the feature: its own choice, or class and mean patch token together.

Virchow (Vorontsov et al. 2024) and Virchow2 (Zimmermann et al. 2024) are used with the latter, 2 x 1,280 features.
Their configurations say that nothing is pooled, so the network itself gives all of its tokens; that is how they are
recognised, wherever their files lie.
"""

import dataclasses
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsi_lmc.encoder import Encoder
from wsi_lmc.errors import UsageError

Pooling = Literal["auto", "own", "class-and-mean"]


class ClassAndMean(nn.Module):
    """A timm vision transformer whose feature is its class token beside the mean of its patch tokens.

    Register tokens, which some have between the two, are left out.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = cast(Any, network)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b two_d"]:
        """Features of images as the network takes them."""
        tokens = self._network.forward_features(images)
        patches = tokens[:, self._network.num_prefix_tokens :]
        return torch.cat([tokens[:, 0], patches.mean(1)], 1)


def pooled(encoder: Encoder, pooling: Pooling) -> Encoder:
    """The encoder with the features that ``pooling`` names.

    Raises:
        UsageError: it has no class token to take, or no feature of its own.
    """
    pools_nothing = getattr(encoder.module, "global_pool", None) == ""
    if pooling == "own" and pools_nothing:
        raise UsageError(f"{encoder.name} gives all of its tokens", "one feature a tile", "Use --pooling auto.")
    if pooling == "own" or (pooling == "auto" and not pools_nothing):
        return encoder
    if getattr(encoder.module, "num_prefix_tokens", 0) < 1 or not getattr(encoder.module, "has_class_token", False):
        raise UsageError(
            f"{encoder.architecture} has no class token", "a vision transformer with one", "Use --pooling own."
        )
    width = int(cast(Any, encoder.module).num_features)
    return dataclasses.replace(
        encoder, module=ClassAndMean(encoder.module), dim=2 * width, name=f"{encoder.name}-class-and-mean"
    )
