"""H and E vectors of tiles from their colours (Macenko et al. 2009, uncentred), and whether to trust them.

The plane of the two stains is spanned by the two leading eigenvectors of ODᵀOD, a 3x3 matrix in float64. It is *not*
centred: on tissue of even density the covariance points across the plane (11 to 22 degrees off, against 2 to 7).
Everything is batched and closed-form, so a hopeless tile can never put a NaN into its neighbours.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_doc import Doc
from jaxtyping import Bool, Float32, Float64, UInt8
from torch import Tensor

from wsi_lmc.stain.density import optical_density

RUIFROK = ((0.65003225, 0.70402695, 0.28601421), (0.07051187, 0.99131399, 0.11101646))
"""Unit optical densities of H and E in red, green and blue (Ruifrok and Johnston 2001; the residual is left out)."""

_MIN_TISSUE = 0.05  # share of a tile's pixels
_MIN_SECOND = 0.02  # second singular value over the first: below, there is one colour only
_MIN_ANGLE = 10.0  # degrees between H and E
_MAX_FROM_REFERENCE = 45.0  # degrees from Ruifrok's vectors


@dataclass(frozen=True)
class SeparationConfig:
    """How H and E vectors are found."""

    beta: Annotated[
        float,
        Doc("Least optical density (natural log) in every channel of a tissue pixel; Macenko's log10 0.15 is 0.345."),
    ] = 0.15
    alpha: Annotated[float, Doc("Percentile, from both ends, of the angles taken as the pure stains.")] = 1.0
    centred: Annotated[
        bool, Doc("Take the plane from the covariance, as most libraries do: 11 to 22 degrees off on even tissue.")
    ] = False


@dataclass(frozen=True)
class StainEstimate:
    """Unit vectors of H (row 0) and E (row 1) in optical density, and which tiles' to trust."""

    vectors: Float32[Tensor, "b 2 3"]
    trusted: Bool[Tensor, " b"]


def separate(tiles: UInt8[Tensor, "b h w 3"], config: SeparationConfig) -> StainEstimate:
    """H and E of each tile on its own, whatever the others look like; always finite."""
    return separate_density(optical_density(tiles), config)


def pool(tiles: UInt8[Tensor, "b h w 3"], config: SeparationConfig) -> StainEstimate:
    """H and E of all tiles taken together, as a batch of one: the fallback for tiles that are not trusted."""
    return separate_density(optical_density(tiles).reshape(1, -1, 3), config)


def concentrations(density: Float32[Tensor, "b n 3"], vectors: Float32[Tensor, "b 2 3"]) -> Float32[Tensor, "b n 2"]:
    """Signed least-squares concentrations of H and E: density times the pseudo-inverse of the vectors."""
    return density @ pseudo_inverse(vectors)


def pseudo_inverse(vectors: Float32[Tensor, "b 2 3"]) -> Float32[Tensor, "b 3 2"]:
    """Sᵀ(SSᵀ)⁻¹ by the closed form of a 2x2 inverse, in float64; rows must be no multiples of each other.

    ``torch.linalg.lstsq`` would be silently wrong on CUDA where they nearly are.
    """
    s = vectors.double()
    (a, b), d = (s[:, 0] * s[:, 0], s[:, 0] * s[:, 1]), s[:, 1] * s[:, 1]
    hh, he, ee = a.sum(-1), b.sum(-1), d.sum(-1)
    determinant = (hh * ee - he * he).view(-1, 1, 1)
    adjugate = torch.stack([torch.stack([ee, -he], -1), torch.stack([-he, hh], -1)], -2)
    return (s.transpose(1, 2) @ (adjugate / determinant)).float()


def separate_density(density: Float32[Tensor, "b n 3"], config: SeparationConfig) -> StainEstimate:
    """H and E of each row of densities (natural logarithm, any white) on its own; always finite."""
    tissue = (density >= config.beta).all(-1)
    count = tissue.sum(-1)
    stained = density * tissue.unsqueeze(-1)
    moment = stained.transpose(1, 2).double() @ stained.double() / count.clamp(min=1).view(-1, 1, 1)
    mean = stained.double().sum(1) / count.clamp(min=1).unsqueeze(-1)
    if config.centred:
        moment = moment - mean.unsqueeze(2) * mean.unsqueeze(1)
    values, axes = torch.linalg.eigh(moment)  # ascending
    plane = axes[:, :, [2, 1]]
    sign = torch.where((mean.unsqueeze(1) @ plane) < 0, -1.0, 1.0)  # else the result would depend on the LAPACK build
    plane = plane * sign
    along = density @ plane.float()
    angles = torch.atan2(along[..., 1], along[..., 0])
    extremes = [_masked_percentile(angles, tissue, q) for q in (config.alpha, 100.0 - config.alpha)]
    pair = torch.stack([_direction(plane, angle) for angle in extremes], 1)
    first_is_h = pair[:, 0, 0] > pair[:, 1, 0]
    vectors = torch.where(first_is_h.view(-1, 1, 1), pair, pair.flip(1))
    share = count / density.shape[1]
    return StainEstimate(vectors.float(), _trusted(vectors, values, share))


def _direction(plane: Float64[Tensor, "b 3 2"], angle: Float64[Tensor, " b"]) -> Float64[Tensor, "b 3"]:
    return plane[..., 0] * angle.cos().unsqueeze(-1) + plane[..., 1] * angle.sin().unsqueeze(-1)


def _masked_percentile(
    values: Float32[Tensor, "b n"], mask: Bool[Tensor, "b n"], percent: float
) -> Float64[Tensor, " b"]:
    """Percentile of the values under the mask, linear between neighbours as numpy's; 0 where the mask is empty."""
    ordered = torch.where(mask, values, torch.inf).sort(-1).values
    last = (mask.sum(-1) - 1).clamp(min=0)
    position = last.double() * (percent / 100.0)
    lower = position.floor().long()
    upper = torch.minimum(lower + 1, last)
    low, high = (ordered.gather(1, index.unsqueeze(1)).squeeze(1).double() for index in (lower, upper))
    found = low + (high - low) * (position - lower)
    return torch.where(mask.any(-1), found, 0.0)


def _trusted(
    vectors: Float64[Tensor, "b 2 3"], eigenvalues: Float64[Tensor, "b 3"], tissue_share: Float32[Tensor, " b"]
) -> Bool[Tensor, " b"]:
    reference = torch.tensor(RUIFROK, dtype=vectors.dtype, device=vectors.device)
    between = _degrees((vectors[:, 0] * vectors[:, 1]).sum(-1))
    from_reference = _degrees((vectors * reference).sum(-1)).amax(-1)
    second = (eigenvalues[:, 1].clamp(min=0) / eigenvalues[:, 2].clamp(min=1e-12)).sqrt()
    return (
        (tissue_share >= _MIN_TISSUE)
        & (second >= _MIN_SECOND)
        & (between >= _MIN_ANGLE)
        & (from_reference <= _MAX_FROM_REFERENCE)
    )


def _degrees(cosine: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    return torch.rad2deg(torch.arccos(cosine.clamp(-1.0, 1.0)))
