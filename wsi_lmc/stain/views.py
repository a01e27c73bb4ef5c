"""Views: the same tile with more or less hematoxylin and eosin.

``paper``   OD' = C diag(a, b) S, as published: what H and E do not explain is dropped, so a = b = 1 changes a tile.
``robust``  OD' = OD + C⁺ diag(a-1, b-1) S: the residual stays, negative concentrations are not scaled, and both views
            of a tile get the same flip or rotation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsi_lmc.stain.density import DARKEST, optical_density, transmitted
from wsi_lmc.stain.separation import concentrations, pseudo_inverse


@dataclass(frozen=True)
class ViewConfig:
    """Which views are made: factors on H and E are uniform between ``scale_low`` and ``scale_high``."""

    mode: Literal["paper", "robust"] = "robust"
    scale_low: float = 0.5
    scale_high: float = 2.0


@dataclass(frozen=True)
class Views:
    """Two views of each tile, in [0, 1], and the share of values that had to be clipped."""

    a: Float32[Tensor, "b 3 h w"]
    b: Float32[Tensor, "b 3 h w"]
    clipped_share: Float32[Tensor, ""]


def two_views(
    tiles: UInt8[Tensor, "b h w 3"], stains: Float32[Tensor, "b 2 3"], config: ViewConfig, generator: torch.Generator
) -> Views:
    """Two views, independent of each other in stain; neither is the tile itself.

    Args:
        tiles: RGB.
        stains: unit optical densities of H and E of each tile.
        config: mode and range.
        generator: on the tiles' device; the only source of randomness.
    """
    density = optical_density(tiles)
    span = config.scale_high - config.scale_low
    shape = (2, len(tiles), 2)
    factors = config.scale_low + span * torch.rand(shape, generator=generator, device=tiles.device)
    turns = torch.randint(8, (len(tiles),), generator=generator, device=tiles.device)
    scaled = [scale_stains(density, stains, factor, config.mode) for factor in factors]
    clipped = torch.stack([((view < 0) | (view > DARKEST)).float().mean() for view in scaled]).mean()
    height, width = tiles.shape[1:3]
    images = [transmitted(view).view(-1, height, width, 3).permute(0, 3, 1, 2) for view in scaled]
    if config.mode == "robust":
        images = [turn(image, turns) for image in images]
    first, second = (image.contiguous() for image in images)
    return Views(first, second, clipped)


def scale_stains(
    density: Float32[Tensor, "b n 3"],
    stains: Float32[Tensor, "b 2 3"],
    factors: Float32[Tensor, "b 2"],
    mode: Literal["paper", "robust"],
) -> Float32[Tensor, "b n 3"]:
    """Density with H and E concentrations multiplied by ``factors`` (columns H, E); may leave what 8 bits can hold."""
    if mode == "paper":
        return density @ (pseudo_inverse(stains) * factors.unsqueeze(1) @ stains)
    change = (factors - 1.0).unsqueeze(1)
    return density + (concentrations(density, stains).clamp_(min=0.0) * change) @ stains


def turn(images: Float32[Tensor, "b c h w"], turns: Tensor) -> Float32[Tensor, "b c h w"]:
    """Flip and rotate each image by its number, 0 to 7; quarter turns only where images are square."""
    turned = images.clone()
    for number in range(8):
        flip, quarters = number >= 4, number % 4
        if images.shape[2] != images.shape[3]:
            quarters -= quarters % 2
        chosen = turns == number
        part = images[chosen]
        turned[chosen] = torch.rot90(part.flip(3) if flip else part, quarters, (2, 3))
    return turned
