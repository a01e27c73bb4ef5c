"""H and E vectors of tiles from their colours (Macenko et al. 2009, uncentred), and whether to trust them.

The plane of the two stains is spanned by the two leading eigenvectors of ODᵀOD, a 3x3 matrix in float64. It is *not*
centred: on tissue of even density the covariance points across the plane (11 to 22 degrees off, against 2 to 7).
Everything is batched arithmetic of a fixed number of steps. LAPACK is not called: it would refuse a whole batch for one
tile, and make a GPU wait. So a hopeless tile can never put a NaN into its neighbours.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_doc import Doc
from jaxtyping import Bool, Float32, Float64, UInt8
from torch import Tensor

from wsi_lmc.errors import UsageError
from wsi_lmc.stain.density import optical_density

RUIFROK = ((0.65003225, 0.70402695, 0.28601421), (0.07051187, 0.99131399, 0.11101646))
"""Unit optical densities of H and E in red, green and blue (Ruifrok and Johnston 2001; the residual is left out)."""

HED = (*RUIFROK, (0.26814975, 0.57031375, 0.77642715))
"""Ruifrok's two and the third vector, of diaminobenzidine, that the same table has: scikit-image's ``rgb_from_hed``."""

_MOST_DENSITY = 5.0  # 8 bits hold 5.54
_MIN_TISSUE = 0.05  # share of a tile's pixels, those of black ink not counted
_BLACK = 2.3  # density in every channel, a grey level of 25: 8 bits leave little but rounding of its hue
_MIN_SECOND = 0.02  # second singular value over the first: below, there is one colour only
_MIN_ANGLE = 10.0  # degrees between H and E
_MAX_FROM_REFERENCE = 45.0  # degrees from Ruifrok's vectors
_LEAST_DETERMINANT = 1e-6  # sine squared of a twentieth of a degree: parallel vectors must not divide by nothing
_SWEEPS = 4  # of Jacobi: three leave 3e-6 at worst, four nothing but rounding (measured on 300,000 matrices)


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
    stride: Annotated[
        int,
        Doc("Every how manyth pixel along x and y is looked at; 2 takes a quarter of the time, 0.1 degree off."),
    ] = 2

    gate: Annotated[
        bool,
        Doc("Take its slide's vectors for a tile whose own cannot be right: little tissue, one colour, no H or E."),
    ] = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 50 or not 0 <= self.beta < _MOST_DENSITY or self.stride < 1:
            found = f"beta {self.beta}, alpha {self.alpha}, stride {self.stride}"
            expected = f"beta from 0 to below {_MOST_DENSITY:g}, alpha from 0 to below 50, stride 1 or more"
            raise UsageError(found, expected, "Correct them.")


@dataclass(frozen=True)
class StainEstimate:
    """Unit vectors of H (row 0) and E (row 1) in optical density, and which tiles' to trust."""

    vectors: Float32[Tensor, "b 2 3"]
    trusted: Bool[Tensor, " b"]


def separate(tiles: UInt8[Tensor, "b h w 3"], config: SeparationConfig) -> StainEstimate:
    """H and E of each tile on its own, whatever the others look like; always finite.

    Every ``config.stride``-th pixel along x and y is looked at.
    """
    return separate_density(optical_density(tiles[:, :: config.stride, :: config.stride]), config)


def pool(tiles: UInt8[Tensor, "b h w 3"], config: SeparationConfig) -> StainEstimate:
    """H and E of all pixels of all tiles taken together, as a batch of one: what tiles that are not trusted get."""
    return separate_density(optical_density(tiles).reshape(1, -1, 3), config)


def concentrations(density: Float32[Tensor, "b n 3"], vectors: Float32[Tensor, "b 2 3"]) -> Float32[Tensor, "b n 2"]:
    """Signed least-squares concentrations of H and E: density times the pseudo-inverse of the vectors."""
    return density @ pseudo_inverse(vectors)


def pseudo_inverse(vectors: Float32[Tensor, "b 2 3"]) -> Float32[Tensor, "b 3 2"]:
    """Sᵀ(SSᵀ)⁻¹ by the closed form of a 2x2 inverse, in float64.

    Finite for parallel rows, too, where there is no inverse and ``torch.linalg.lstsq`` is silently wrong on CUDA: the
    determinant of unit vectors less than a twentieth of a degree apart counts as that of a twentieth.
    """
    s = vectors.double()
    (a, b), d = (s[:, 0] * s[:, 0], s[:, 0] * s[:, 1]), s[:, 1] * s[:, 1]
    hh, he, ee = a.sum(-1), b.sum(-1), d.sum(-1)
    determinant = (hh * ee - he * he).clamp(min=_LEAST_DETERMINANT).view(-1, 1, 1)
    adjugate = torch.stack([torch.stack([ee, -he], -1), torch.stack([-he, hh], -1)], -2)
    return (s.transpose(1, 2) @ (adjugate / determinant)).float()


def separate_density(density: Float32[Tensor, "b n 3"], config: SeparationConfig) -> StainEstimate:
    """H and E of each row of densities (natural logarithm, any white) on its own, all pixels; always finite."""
    faintest = density.amin(-1)
    tissue = faintest >= config.beta
    count = tissue.sum(-1)
    stained = (density * tissue.unsqueeze(-1)).double()
    moment = stained.transpose(1, 2) @ stained / count.clamp(min=1).view(-1, 1, 1)
    mean = stained.sum(1) / count.clamp(min=1).unsqueeze(-1)
    if config.centred:
        moment = moment - mean.unsqueeze(2) * mean.unsqueeze(1)
    values, axes = eigen(moment)
    plane = oriented(axes[:, :, :2], mean)
    along = density @ plane.float()
    angles = torch.atan2(along[..., 1], along[..., 0])
    extremes = _ends(angles, tissue, config.alpha)
    pair = torch.stack([_direction(plane, angle) for angle in extremes], 1)
    first_is_h = pair[:, 0, 0] > pair[:, 1, 0]
    vectors = torch.where(first_is_h.view(-1, 1, 1), pair, pair.flip(1))
    share = (tissue & (faintest < _BLACK)).sum(-1) / density.shape[1]
    trusted = _trusted(vectors, values, share)
    return StainEstimate(vectors.float(), trusted if config.gate else torch.ones_like(trusted))


def eigen(matrices: Float64[Tensor, "b 3 3"]) -> tuple[Float64[Tensor, "b 3"], Float64[Tensor, "b 3 3"]]:
    """Eigenvalues, largest first, and eigenvectors (columns) of symmetric matrices, by Jacobi's rotations."""
    turned = matrices
    axes = torch.eye(3, dtype=matrices.dtype, device=matrices.device).expand_as(matrices)
    for _ in range(_SWEEPS):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            gap, off = turned[:, q, q] - turned[:, p, p], 2.0 * turned[:, p, q]
            angle = 0.5 * torch.atan2(torch.where(gap < 0, -off, off), gap.abs())  # an eighth of a turn at most
            rotation = torch.eye(3, dtype=matrices.dtype, device=matrices.device).repeat(len(matrices), 1, 1)
            rotation[:, p, p] = rotation[:, q, q] = angle.cos()
            rotation[:, p, q], rotation[:, q, p] = angle.sin(), -angle.sin()
            turned, axes = rotation.transpose(1, 2) @ turned @ rotation, axes @ rotation
    values, order = turned.diagonal(dim1=1, dim2=2).sort(descending=True)
    return values, axes.gather(2, order.unsqueeze(1).expand_as(axes))


def oriented(axes: Float64[Tensor, "b 3 k"], mean: Float64[Tensor, "b 3"]) -> Float64[Tensor, "b 3 k"]:
    """Axes (columns) turned to the side of the mean density; either sign is an eigenvector, and solvers differ."""
    return axes * torch.where((mean.unsqueeze(1) @ axes) < 0, -1.0, 1.0)


def _direction(plane: Float64[Tensor, "b 3 2"], angle: Float64[Tensor, " b"]) -> Float64[Tensor, "b 3"]:
    return plane[..., 0] * angle.cos().unsqueeze(-1) + plane[..., 1] * angle.sin().unsqueeze(-1)


def _ends(
    values: Float32[Tensor, "b n"], mask: Bool[Tensor, "b n"], percent: float
) -> tuple[Float64[Tensor, " b"], Float64[Tensor, " b"]]:
    """Percentile from below and from above of the values under the mask; 0 where the mask is empty.

    Linear between neighbours, as numpy's. Only the ends are put in order: sorting all took most of the time.
    """
    position = (mask.sum(-1) - 1).clamp(min=0).double() * (percent / 100.0)
    lower = position.floor().long()
    upper = torch.minimum(lower + 1, (mask.sum(-1) - 1).clamp(min=0))
    reach = min(int(values.shape[1] * percent / 100.0) + 2, values.shape[1])

    def end(largest: bool) -> Float64[Tensor, " b"]:
        beyond = -torch.inf if largest else torch.inf
        ordered = torch.where(mask, values, beyond).topk(reach, largest=largest).values
        near, next_one = (ordered.gather(1, index.unsqueeze(1)).squeeze(1).double() for index in (lower, upper))
        return torch.where(mask.any(-1), near + (next_one - near) * (position - lower), 0.0)

    return end(largest=False), end(largest=True)


def _trusted(
    vectors: Float64[Tensor, "b 2 3"], eigenvalues: Float64[Tensor, "b 3"], tissue_share: Float32[Tensor, " b"]
) -> Bool[Tensor, " b"]:
    reference = torch.tensor(RUIFROK, dtype=vectors.dtype, device=vectors.device)
    between = _degrees((vectors[:, 0] * vectors[:, 1]).sum(-1))
    from_reference = _degrees((vectors * reference).sum(-1)).amax(-1)
    second = (eigenvalues[:, 1].clamp(min=0) / eigenvalues[:, 0].clamp(min=1e-12)).sqrt()
    return (
        (tissue_share >= _MIN_TISSUE)
        & (second >= _MIN_SECOND)
        & (between >= _MIN_ANGLE)
        & (from_reference <= _MAX_FROM_REFERENCE)
    )


def _degrees(cosine: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    return torch.rad2deg(torch.arccos(cosine.clamp(-1.0, 1.0)))
