"""Beer-Lambert: from 8-bit intensity to optical density and back. Natural logarithm throughout."""

import math

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

WHITE = 255.0  # I0: at 240 the density of bright slides turns negative, and concentrations with it
DARKEST = math.log(WHITE)  # density of intensity 1, the darkest that 8 bits tell from nothing


def optical_density(tiles: UInt8[Tensor, "b h w 3"], white: float = WHITE) -> Float32[Tensor, "b n 3"]:
    """-ln(max(I, 1) / ``white``), clipped at 0, for all n = h * w pixels of each tile, row by row."""
    intensity = tiles.reshape(len(tiles), -1, 3).to(torch.float32)
    return intensity.clamp_(min=1.0).div_(white).log_().neg_().clamp_(min=0.0)


def transmitted(density: Float32[Tensor, "b n 3"]) -> Float32[Tensor, "b n 3"]:
    """Share of light that gets through, in [0, 1]; densities beyond what 8 bits can hold are clipped."""
    return density.clamp(0.0, DARKEST).neg_().exp_()
