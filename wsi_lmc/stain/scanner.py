"""What scanners add to a slide's look besides its stain: blur and JPEG, as batched tensor functions on any device."""

import math

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

_RADIUS = 4  # target pixels: more than three sigma of the blurs that are sensible
_LEAST_SIGMA = 0.05  # a delta: neighbours weigh e-200

# ITU-T T.81, Annex K: luminance and chrominance, row by row
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def blur(images: Float32[Tensor, "b c h w"], sigma: Float32[Tensor, " b"]) -> Float32[Tensor, "b c h w"]:
    """Gaussian blur of each image by its own ``sigma`` in pixels, borders repeated."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=_LEAST_SIGMA).unsqueeze(1)).square())
    weights = (weights / weights.sum(1, keepdim=True)).view(len(images), -1, 1, 1, 1)
    for axis, padding in ((3, (_RADIUS, _RADIUS, 0, 0)), (2, (0, 0, _RADIUS, _RADIUS))):
        padded, length = functional.pad(images, padding, mode="replicate"), images.shape[axis]
        images = sum(
            (padded.narrow(axis, shift, length) * weights[:, shift] for shift in range(1, 2 * _RADIUS + 1)),
            padded.narrow(axis, 0, length) * weights[:, 0],
        )
    return images


def jpeg(images: Float32[Tensor, "b 3 h w"], quality: Float32[Tensor, " b"]) -> Float32[Tensor, "b 3 h w"]:
    """What baseline JPEG with 4:2:0 chroma makes of each RGB image in [0, 1], at its own quality from 1 to 100.

    Quantisation as libjpeg scales it; chroma is halved by means and brought back linearly.
    """
    height, width = images.shape[2:]
    padded = functional.pad(images * 255.0, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycbcr = torch.tensor(_TO_YCBCR, device=images.device, dtype=images.dtype)
    planes = torch.einsum("ij,bjhw->bihw", to_ycbcr, padded)
    luma = _quantised(planes[:, :1] - 128.0, _table(_LUMA, quality)) + 128.0
    small = _quantised(functional.avg_pool2d(planes[:, 1:], 2), _table(_CHROMA, quality))
    chroma = functional.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
    to_rgb = torch.tensor(_TO_RGB, device=images.device, dtype=images.dtype)
    rgb = torch.einsum("ij,bjhw->bihw", to_rgb, torch.cat([luma, chroma], 1))
    return (rgb / 255.0).clamp(0.0, 1.0)[:, :, :height, :width]


def _table(base: tuple[tuple[int, ...], ...], quality: Float32[Tensor, " b"]) -> Float32[Tensor, "b 1 1 8 1 8"]:
    scale = torch.where(quality < 50, 5000.0 / quality.clamp(min=1.0), 200.0 - 2.0 * quality)
    table = torch.tensor(base, device=quality.device, dtype=quality.dtype)
    return ((table * scale.view(-1, 1, 1) + 50.0) / 100.0).floor().clamp(1.0, 255.0).view(-1, 1, 1, 8, 1, 8)


def _quantised(planes: Float32[Tensor, "b c h w"], table: Float32[Tensor, "b 1 1 8 1 8"]) -> Float32[Tensor, "b c h w"]:
    """Blocks of 8 x 8 through the DCT, rounded to multiples of the table, and back."""
    batch, channels, height, width = planes.shape
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8)
    basis = _dct(planes)
    coefficients = torch.einsum("uy,bcmynx,vx->bcmunv", basis, blocks, basis)
    rounded = (coefficients / table).round() * table
    return torch.einsum("uy,bcmunv,vx->bcmynx", basis, rounded, basis).reshape(planes.shape)


def _dct(like: Tensor) -> Float32[Tensor, "8 8"]:
    """The orthonormal DCT-II: row u is its u-th cosine."""
    steps = torch.arange(8, device=like.device, dtype=like.dtype)
    cosines = torch.cos((2 * steps + 1) * steps.unsqueeze(1) * math.pi / 16) / 2
    cosines[0] = math.sqrt(1 / 8)
    return cosines
