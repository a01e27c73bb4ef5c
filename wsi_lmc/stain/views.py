"""Views: the same tile with more or less hematoxylin and eosin.

``paper``   OD' = C diag(a, b) S, as published: what H and E do not explain is dropped, so a = b = 1 changes a tile.
``robust``  OD' = OD + C⁺ diag(a-1, b-1) S: the residual stays, negative concentrations are not scaled, and both views
            of a tile get the same flip or rotation.

What is random is drawn first (:func:`draw_views`); the rest (:func:`render_views`) is a pure function of tensors, which
the training compiles into one pass over the pixels. Everything beyond the two modes is an option, off by default.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_doc import Doc
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from wsi_lmc.errors import UsageError
from wsi_lmc.stain.density import DARKEST
from wsi_lmc.stain.scanner import blur, jpeg
from wsi_lmc.stain.separation import pseudo_inverse

ViewMode = Literal["paper", "robust"]
_BEST_JPEG = 95


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
    geometry: Annotated[
        Literal["of-mode", "none", "same", "independent"],
        Doc("Flips and rotations: none, the same or others for the two views; of-mode: none in paper, same in robust."),
    ] = "of-mode"

    def __post_init__(self) -> None:
        if not 0 < self.scale_low <= self.scale_high:
            found = f"factors from {self.scale_low} to {self.scale_high}"
            raise UsageError(found, "0 < scale_low <= scale_high", "Correct them.")
        if min(self.gamma, self.white_point, self.blur) < 0 or not 0 <= self.jpeg <= _BEST_JPEG:
            found = f"gamma {self.gamma}, white_point {self.white_point}, blur {self.blur}, jpeg {self.jpeg}"
            raise UsageError(found, f"0 or more, and jpeg {_BEST_JPEG} at most", "Correct them.")

    @property
    def turns(self) -> Literal["none", "same", "independent"]:
        """Which flips and rotations there are."""
        return self.geometry if self.geometry != "of-mode" else "none" if self.mode == "paper" else "same"


class Drawn(NamedTuple):
    """What was drawn for both views (first axis) of each tile (second axis); None where an option is off.

    ``factors`` on H and E; ``turns`` 0 to 7; ``gamma`` a factor on density, ``white`` added to it per channel;
    ``sigma`` of a blur in target pixels; ``quality`` of JPEG.
    """

    factors: Float32[Tensor, "2 b 2"]
    turns: Int64[Tensor, "2 b"] | None
    gamma: Float32[Tensor, "2 b"] | None
    white: Float32[Tensor, "2 b 3"] | None
    sigma: Float32[Tensor, "2 b"] | None
    quality: Float32[Tensor, "2 b"] | None

    def of(self, tiles: slice) -> "Drawn":
        """What was drawn for some of the tiles."""
        return Drawn(self.factors[:, tiles], *(None if values is None else values[:, tiles] for values in self[1:]))


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
    return render_views(tiles, stains, draw_views(len(tiles), config, generator), config.mode)


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
    if config.turns == "same":
        turns = turns[:1].expand(2, -1)
    return Drawn(
        factors=factors,
        turns=None if config.turns == "none" else turns,
        gamma=uniform(-config.gamma, config.gamma).exp() if config.gamma else None,
        white=uniform(-config.white_point, config.white_point, 3) if config.white_point else None,
        sigma=uniform(0.0, config.blur) if config.blur else None,
        quality=uniform(config.jpeg, _BEST_JPEG) if config.jpeg else None,
    )


def render_views(
    tiles: UInt8[Tensor, "b h w 3"], stains: Float32[Tensor, "b 2 3"], drawn: Drawn, mode: ViewMode
) -> Views:
    """Both views of each tile, as drawn: a pure function of its arguments."""
    images, clipped = zip(*(_render(tiles, stains, _view(drawn, number), mode) for number in (0, 1)), strict=True)
    return Views(images[0], images[1], (clipped[0] + clipped[1]) / 2)


class _View(NamedTuple):
    factors: Float32[Tensor, "b 2"]
    turns: Int64[Tensor, " b"] | None
    gamma: Float32[Tensor, " b"] | None
    white: Float32[Tensor, "b 3"] | None
    sigma: Float32[Tensor, " b"] | None
    quality: Float32[Tensor, " b"] | None


def _view(drawn: Drawn, number: int) -> _View:
    optional = (None if values is None else values[number] for values in drawn[1:])
    return _View(drawn.factors[number], *optional)


def _render(
    tiles: UInt8[Tensor, "b h w 3"], stains: Float32[Tensor, "b 2 3"], view: _View, mode: ViewMode
) -> tuple[Float32[Tensor, "b 3 h w"], Float32[Tensor, ""]]:
    """One view in [0, 1], channels first, and the share of values that had to be clipped.

    Written channel by channel, without a matrix product, so that a compiler makes one pass over the pixels of it.
    """
    turned = tiles if view.turns is None else turn(tiles, view.turns)
    intensity = turned.permute(0, 3, 1, 2).to(torch.float32).clamp(min=1.0)
    density = scale_stains(DARKEST - intensity.log(), stains, view.factors, mode)
    if view.gamma is not None:
        density = density * view.gamma.view(-1, 1, 1, 1)
    if view.white is not None:
        density = density + view.white.view(-1, 3, 1, 1)
    clipped = ((density < 0) | (density > DARKEST)).to(torch.float32).mean()
    image = density.clamp(0.0, DARKEST).neg().exp()
    if view.sigma is not None:
        image = blur(image, view.sigma)
    if view.quality is not None:
        image = jpeg(image, view.quality)
    return image, clipped


def scale_stains(
    density: Float32[Tensor, "b 3 h w"],
    stains: Float32[Tensor, "b 2 3"],
    factors: Float32[Tensor, "b 2"],
    mode: ViewMode,
) -> Float32[Tensor, "b 3 h w"]:
    """Density with H and E concentrations multiplied by ``factors`` (columns H, E); may leave what 8 bits can hold."""
    inverse = pseudo_inverse(stains)
    amounts = [_sum_of(density.unbind(1), inverse[:, :, stain]) for stain in (0, 1)]
    change = factors
    if mode == "robust":
        amounts = [amount.clamp(min=0.0) for amount in amounts]
        change = factors - 1.0
    weights = change.unsqueeze(-1) * stains
    scaled = torch.stack([_sum_of(amounts, weights[:, :, channel]) for channel in range(3)], 1)
    return density + scaled if mode == "robust" else scaled


def _sum_of(
    planes: "tuple[Float32[Tensor, '_ h w'], ...] | list[Float32[Tensor, '_ h w']]", weights: Float32[Tensor, "b k"]
) -> Float32[Tensor, "b h w"]:
    """The planes' sum, each multiplied by its tile's weight."""
    terms = [plane * weight.view(-1, 1, 1) for plane, weight in zip(planes, weights.unbind(1), strict=True)]
    return sum(terms[1:], terms[0])


def turn(tiles: UInt8[Tensor, "b h w 3"], turns: Int64[Tensor, " b"]) -> UInt8[Tensor, "b h w 3"]:
    """Flip and rotate each tile by its number, 0 to 7: the three bits of it flip x, flip y and swap the axes.

    Axes are swapped only where tiles are square. No tile is looked up by its number, which would make a GPU wait.
    """
    bits = [((turns & bit) > 0).view(-1, 1, 1, 1) for bit in (1, 2, 4)]
    turned = torch.where(bits[0], tiles.flip(2), tiles)
    turned = torch.where(bits[1], turned.flip(1), turned)
    if tiles.shape[1] == tiles.shape[2]:
        turned = torch.where(bits[2], turned.transpose(1, 2), turned)
    return turned
