"""Normalisers fitted on one reference tile: Reinhard (2001) in Lab, Macenko (2009) in optical density.

Both as the libraries in use have them (torchstain is the oracle of their tests), so that a comparison is with what
people run; but in batches, and a tile that cannot be normalised (blank, one colour) comes back as it was.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsi_lmc.stain import SeparationConfig, pseudo_inverse, separate_density

_MACENKO_WHITE = 240.0
_MACENKO = SeparationConfig(beta=0.15, alpha=1.0, centred=True)
_STRONGEST = 0.99  # quantile of concentrations taken as a stain's strength
_LEAST_TISSUE = 0.01
_SMALLEST = 1e-6

_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE_XYZ = (0.950456, 1.0, 1.088754)  # D65


@dataclass(frozen=True)
class Reinhard:
    """Mean and standard deviation of each Lab channel, per tile, brought to the reference's."""

    mean: Float32[Tensor, "3"]
    std: Float32[Tensor, "3"]

    @classmethod
    def fit(cls, reference: UInt8[Tensor, "h w 3"]) -> "Reinhard":
        """Take the reference's statistics."""
        lab = _to_lab(reference.unsqueeze(0)).flatten(1, 2)[0]
        return cls(lab.mean(0), lab.std(0))

    def __call__(self, tiles: UInt8[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Normalise each tile on its own."""
        lab = _to_lab(tiles)
        mean, std = lab.mean((1, 2), keepdim=True), lab.flatten(1, 2).std(1).view(-1, 1, 1, 3)
        moved = (lab - mean) / std.clamp(min=_SMALLEST) * self.std.to(lab.device) + self.mean.to(lab.device)
        even = (std < _SMALLEST).all(-1, keepdim=True)
        return torch.where(even, tiles, _from_lab(moved))


@dataclass(frozen=True)
class Macenko:
    """Concentrations of each tile's own stains, scaled to the reference's strengths and shown in its colours."""

    vectors: Float32[Tensor, "2 3"]
    strongest: Float32[Tensor, "2"]

    @classmethod
    def fit(cls, reference: UInt8[Tensor, "h w 3"]) -> "Macenko":
        """Find the reference's stains.

        Raises:
            ValueError: it has no two stains.
        """
        vectors, amounts, usable = _macenko_stains(reference.unsqueeze(0))
        if not bool(usable[0]):
            raise ValueError("no two stains in the reference tile")
        return cls(vectors[0], torch.quantile(amounts[0], _STRONGEST, dim=0))

    def __call__(self, tiles: UInt8[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Normalise each tile on its own."""
        _, amounts, usable = _macenko_stains(tiles)
        strongest = torch.stack([torch.quantile(part, _STRONGEST, dim=0) for part in amounts])
        factor = self.strongest.to(tiles.device) / strongest.clamp(min=_SMALLEST)
        density = (amounts * factor.unsqueeze(1)) @ self.vectors.to(tiles.device)
        shown = (_MACENKO_WHITE * torch.exp(-density)).clamp(0.0, 255.0).to(torch.uint8).view(tiles.shape)
        return torch.where((usable & (strongest > _SMALLEST).all(-1)).view(-1, 1, 1, 1), shown, tiles)


def _macenko_stains(
    tiles: UInt8[Tensor, "b h w 3"],
) -> tuple[Float32[Tensor, "b 2 3"], Float32[Tensor, "b n 2"], Tensor]:
    """H and E vectors, concentrations, and whether a tile holds enough of two colours for either."""
    density = -torch.log((tiles.flatten(1, 2).float() + 1.0) / _MACENKO_WHITE)
    found = separate_density(density, _MACENKO)
    apart = (found.vectors[:, 0] * found.vectors[:, 1]).sum(-1).abs() < 0.999
    tissue = (density >= _MACENKO.beta).all(-1).float().mean(-1) > _LEAST_TISSUE
    usable = apart & tissue & torch.isfinite(found.vectors).all(-1).all(-1)
    safe = torch.where(usable.view(-1, 1, 1), found.vectors, torch.eye(2, 3, device=tiles.device))
    return safe, density @ pseudo_inverse(safe), usable


def _to_lab(tiles: UInt8[Tensor, "b h w 3"]) -> Float32[Tensor, "b h w 3"]:
    """CIE L*a*b* (D65) of sRGB."""
    rgb = tiles.float() / 255.0
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ linear.new_tensor(_XYZ).T / linear.new_tensor(_WHITE_XYZ)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=_SMALLEST) ** (1 / 3), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f.unbind(-1)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], -1)


def _from_lab(lab: Float32[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
    y = (lab[..., 0] + 16.0) / 116.0
    f = torch.stack([y + lab[..., 1] / 500.0, y, (y - lab[..., 2] / 200.0).clamp(min=0.0)], -1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16.0 / 116.0) / 7.787) * lab.new_tensor(_WHITE_XYZ)
    linear = xyz @ torch.linalg.inv(torch.tensor(_XYZ, dtype=torch.float64)).to(lab).T
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=_SMALLEST) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (rgb * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
