"""Views: the same tile with more or less hematoxylin and eosin.

``paper``   OD' = C diag(a, b) S, as published: what H and E do not explain is dropped, so a = b = 1 changes a tile.
``robust``  OD' = OD + C⁺ diag(a-1, b-1) S: the residual stays, negative concentrations are not scaled, and both views
            of a tile get the same flip or rotation.

What is random is drawn first (:func:`draw_views`), tiles are turned and laid out channel by channel
(:func:`turned_planes`), and the rest (:func:`render_views`) is a pure function of tensors, which the training compiles
into one pass over the pixels. Everything beyond the two modes is an option, off by default.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_doc import Doc
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from wsi_lmc.errors import UsageError
from wsi_lmc.stain.density import DARKEST, WHITE
from wsi_lmc.stain.scanner import blur, jpeg
from wsi_lmc.stain.separation import HED, pseudo_inverse
from wsi_lmc.stain.turns import crop, turn

ViewMode = Literal["paper", "robust"]
_HED_INVERSE: list[list[float]] = np.linalg.inv(np.asarray(HED)).tolist()
_BEST_JPEG = 95
_LEAST_CROP = 0.1
_MOST = {"scale_high": 100.0, "gamma": 2.0, "white_point": DARKEST, "blur": 4.0, "jpeg": _BEST_JPEG, "hed": 1.0}


@dataclass(frozen=True)
class ViewConfig:
    """Which views of a tile are made."""

    mode: Annotated[
        ViewMode,
        Doc("paper: colour views exactly as published; robust: keeps the residual, distrusts bad fits, flips tiles."),
    ] = "robust"
    scale_low: Annotated[float, Doc("Smallest factor on the H and on the E concentrations of a view.")] = 0.5
    scale_high: Annotated[float, Doc("Largest factor on the H and on the E concentrations of a view.")] = 2.0
    scale_law: Annotated[
        Literal["uniform", "log-uniform"],
        Doc("How factors are drawn between the two; log-uniform halves as it doubles."),
    ] = "uniform"
    gamma: Annotated[
        float, Doc("Scanner's tone curve: a view's density is multiplied by up to exp(+-gamma); 0 leaves it.")
    ] = 0.0
    white_point: Annotated[
        float, Doc("Scanner's white balance: each channel's density is shifted by up to +-this; 0 leaves it.")
    ] = 0.0
    blur: Annotated[float, Doc("Scanner's focus: a view is blurred by a sigma of up to this, in target pixels.")] = 0.0
    jpeg: Annotated[
        int, Doc("Compression: a view goes through JPEG of this quality at the worst, 95 at best; 0: none.")
    ] = 0
    hed: Annotated[
        float,
        Doc(
            "HED jitter (Tellez et al. 2018), to compare with: amounts of fixed hematoxylin, eosin and residual are "
            "each multiplied by 1 +- this and shifted by +- this; 0.05 is its light, 0.2 its strong form; 0: none."
        ),
    ] = 0.0
    crop: Annotated[
        float,
        Doc(
            "Each view shows a part of the tile, its side from this share of the tile's to all of it, enlarged; 1: all."
        ),
    ] = 1.0
    geometry: Annotated[
        Literal["of-mode", "none", "same", "independent"],
        Doc("Flips and rotations: none, the same or others for the two views; of-mode: none in paper, same in robust."),
    ] = "of-mode"

    def __post_init__(self) -> None:
        if not 0 < self.scale_low <= self.scale_high:
            found = f"factors from {self.scale_low} to {self.scale_high}"
            raise UsageError(found, "0 < scale_low <= scale_high", "Correct them.")
        if not _LEAST_CROP <= self.crop <= 1:
            raise UsageError(f"crop = {self.crop}", f"from {_LEAST_CROP:g} to 1", "Correct it.")
        for name, most in _MOST.items():  # beyond, numbers that no scanner makes overflow
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} = {getattr(self, name)}", f"from 0 to {most:g}", "Correct it.")

    @property
    def turns(self) -> Literal["none", "same", "independent"]:
        """Which flips and rotations there are."""
        return self.geometry if self.geometry != "of-mode" else "none" if self.mode == "paper" else "same"


class Drawn(NamedTuple):
    """What was drawn for both views (first axis) of each tile (second axis); None where it changes nothing.

    ``factors`` on H and E; ``turns`` 0 to 7, one row where both views share them; ``gamma`` a factor on density,
    ``white`` added to it per channel; ``sigma`` of a blur in target pixels; ``quality`` of JPEG; ``hed`` factors on and
    shifts of the three amounts of HED jitter; ``window`` the part that is seen: its side as a share of the tile's, and
    where its middle lies along x and y, from -1 (as far to the left or top as it can) to 1.
    """

    factors: Float32[Tensor, "2 b 2"] | None
    turns: Int64[Tensor, "k b"] | None
    gamma: Float32[Tensor, "2 b"] | None
    white: Float32[Tensor, "2 b 3"] | None
    sigma: Float32[Tensor, "2 b"] | None
    quality: Float32[Tensor, "2 b"] | None
    hed: Float32[Tensor, "2 b 2 3"] | None
    window: Float32[Tensor, "2 b 3"] | None

    def of(self, tiles: slice) -> "Drawn":
        """What was drawn for some of the tiles."""
        return Drawn(*(None if values is None else values[:, tiles] for values in self))


class Views(NamedTuple):
    """Two views of each tile in [0, 1], and the share of values that had to be clipped."""

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
        config: mode, range and options.
        generator: on the tiles' device; the only source of randomness.
    """
    drawn = draw_views(len(tiles), config, generator)
    return render_views(turned_planes(tiles, drawn), stains, drawn, config.mode)


def draw_views(count: int, config: ViewConfig, generator: torch.Generator) -> Drawn:
    """All that is random in the views of ``count`` tiles, on the generator's device."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand((2, count, *shape), generator=generator, device=generator.device)
        return low + (high - low) * drawn

    if config.scale_law == "uniform":
        factors = uniform(config.scale_low, config.scale_high, 2)
    else:
        ends = torch.tensor([config.scale_low, config.scale_high]).log().tolist()
        factors = uniform(ends[0], ends[1], 2).exp()
    turns = torch.randint(8, (2, count), generator=generator, device=generator.device)
    kept = config.mode == "robust" and config.scale_low == config.scale_high == 1.0
    return Drawn(
        factors=None if kept else factors,
        turns=None if config.turns == "none" else turns[:1] if config.turns == "same" else turns,
        gamma=uniform(-config.gamma, config.gamma).exp() if config.gamma else None,
        white=uniform(-config.white_point, config.white_point, 3) if config.white_point else None,
        sigma=uniform(0.0, config.blur) if config.blur else None,
        quality=uniform(config.jpeg, _BEST_JPEG) if config.jpeg else None,
        hed=uniform(-config.hed, config.hed, 2, 3) if config.hed else None,
        window=torch.cat([uniform(config.crop, 1.0, 1), uniform(-1.0, 1.0, 2)], -1) if config.crop < 1 else None,
    )


def turned_planes(tiles: UInt8[Tensor, "b h w 3"], drawn: Drawn) -> UInt8[Tensor, "k b 3 h w"]:
    """Tiles channel by channel, turned and cropped as drawn: once for both views, or (k = 2) for each.

    Not a part of what is compiled: pixels that are read across, or three bytes apart, would keep a compiler from taking
    many at a time, and made compiled views slower than plain ones.
    """
    planes = tiles.permute(0, 3, 1, 2).contiguous().unsqueeze(0)
    if drawn.turns is not None:
        planes = torch.stack([turn(planes[0], turns) for turns in drawn.turns])
    if drawn.window is None:
        return planes
    return torch.stack([crop(planes[side], window) for side, window in zip((0, -1), drawn.window, strict=True)])


def render_views(
    planes: UInt8[Tensor, "k b 3 h w"], stains: Float32[Tensor, "b 2 3"], drawn: Drawn, mode: ViewMode
) -> Views:
    """Both views of each tile, as drawn: a pure function of its arguments; ``planes`` are :func:`turned_planes`."""
    sides = (planes[0], planes[-1])
    parts = [_render(side, stains, _view(drawn, number), mode) for number, side in enumerate(sides)]
    return Views(parts[0][0], parts[1][0], (parts[0][1] + parts[1][1]) / 2)


class _View(NamedTuple):
    factors: Float32[Tensor, "b 2"] | None
    gamma: Float32[Tensor, " b"] | None
    white: Float32[Tensor, "b 3"] | None
    sigma: Float32[Tensor, " b"] | None
    quality: Float32[Tensor, " b"] | None
    hed: Float32[Tensor, "b 2 3"] | None

    @property
    def coloured(self) -> bool:
        """Whether colours change."""
        return any(values is not None for values in (self.factors, self.gamma, self.white, self.hed))


def _view(drawn: Drawn, number: int) -> _View:
    own = {name: getattr(drawn, name) for name in _View._fields}  # the others have moved the planes already
    return _View(**{name: None if values is None else values[number] for name, values in own.items()})


def _render(
    planes: UInt8[Tensor, "b 3 h w"], stains: Float32[Tensor, "b 2 3"], view: _View, mode: ViewMode
) -> tuple[Float32[Tensor, "b 3 h w"], Float32[Tensor, ""]]:
    """One view in [0, 1], and the share of values that had to be clipped."""
    if view.coloured:
        image, outside = _recoloured(planes, stains, view, mode)
    else:
        image = planes.to(torch.float32).clamp(min=1.0) / WHITE
        outside = image.new_zeros(())
    if view.sigma is not None:
        image = blur(image, view.sigma).clamp(max=1.0)  # its weights sum to 1 but for rounding
    if view.quality is not None:
        image = jpeg(image, view.quality)
    return image, outside


def _recoloured(
    planes: UInt8[Tensor, "b 3 h w"], stains: Float32[Tensor, "b 2 3"], view: _View, mode: ViewMode
) -> tuple[Float32[Tensor, "b 3 h w"], Float32[Tensor, ""]]:
    """What is done to optical density, and the share of values that had to be clipped.

    Written channel by channel, without a matrix product, so that a compiler makes one pass over the pixels of it.
    """
    density = [DARKEST - plane.to(torch.float32).clamp(min=1.0).log() for plane in planes.unbind(1)]
    if view.factors is not None:
        density = scale_stains(density, stains, view.factors, mode)
    if view.hed is not None:
        density = jitter_hed(density, view.hed)
    if view.gamma is not None:
        gamma = view.gamma.view(-1, 1, 1)
        density = [plane * gamma for plane in density]
    if view.white is not None:
        shifts = view.white.unbind(1)
        density = [plane + shift.view(-1, 1, 1) for plane, shift in zip(density, shifts, strict=True)]
    outside = [((plane < 0) | (plane > DARKEST)).to(torch.float32).mean() for plane in density]
    image = torch.stack([plane.clamp(0.0, DARKEST).neg().exp() for plane in density], 1)
    return image, torch.stack(outside).mean()


def scale_stains(
    density: list[Float32[Tensor, "b h w"]],
    stains: Float32[Tensor, "b 2 3"],
    factors: Float32[Tensor, "b 2"],
    mode: ViewMode,
) -> list[Float32[Tensor, "b h w"]]:
    """Density of each channel with H and E concentrations multiplied by ``factors`` (columns H, E).

    May leave what 8 bits can hold.
    """
    inverse = pseudo_inverse(stains)
    amounts = [_sum_of(density, inverse[:, :, stain]) for stain in (0, 1)]
    change = factors
    if mode == "robust":
        amounts = [amount.clamp(min=0.0) for amount in amounts]
        change = factors - 1.0
    weights = change.unsqueeze(-1) * stains
    scaled = [_sum_of(amounts, weights[:, :, channel]) for channel in range(3)]
    if mode == "paper":
        return scaled
    return [plane + change for plane, change in zip(density, scaled, strict=True)]


def jitter_hed(
    density: list[Float32[Tensor, "b h w"]], drawn: Float32[Tensor, "b 2 3"]
) -> list[Float32[Tensor, "b h w"]]:
    """Density after its amounts of Ruifrok's H, E and residual are scaled by 1 + ``drawn[:, 0]``, shifted by the other.

    One affine map of the three channels for each tile. May leave what 8 bits can hold.
    """
    stains = drawn.new_tensor(HED)
    mixed = drawn.new_tensor(_HED_INVERSE) @ ((1.0 + drawn[:, 0]).unsqueeze(-1) * stains)
    shifts = (drawn[:, 1] @ stains).unbind(1)
    return [_sum_of(density, mixed[:, :, channel]) + shifts[channel].view(-1, 1, 1) for channel in range(3)]


def _sum_of(planes: list[Float32[Tensor, "b h w"]], weights: Float32[Tensor, "b k"]) -> Float32[Tensor, "b h w"]:
    """The planes' sum, each multiplied by its tile's weight."""
    terms = [plane * weight.view(-1, 1, 1) for plane, weight in zip(planes, weights.unbind(1), strict=True)]
    return sum(terms[1:], terms[0])
