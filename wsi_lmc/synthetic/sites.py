"""Sites: how a laboratory stains and its scanner sees; from stain concentrations to the pixels of its scans.

The two sites differ most in how strongly they stain, which is what LMC is made to remove, and a little in hue, white
point, gamma and sharpness, which it is not: with large differences of those the site stays visible to a linear probe.

Within a site, slides and tiles vary about as much as measured at real ones (docs/results.md; tests/test_synthetic.py
measures both): in how strongly they are stained, in the stains' hue, and in what lies outside the plane of the two.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

OTHER = (0.268, 0.570, 0.776)
"""Unit optical density of what is neither H nor E: red cells and pigments, near Ruifrok's brown."""
_UNEVEN_OVER_PX = 300  # level-0 pixels
_CELL_PX = 8


@dataclass(frozen=True)
class Site:
    """One laboratory and its scanner.

    ``stains`` are unit optical densities (rows H, E; columns red, green, blue; natural log). ``strength`` multiplies
    the concentrations of H and E. From slide to slide strength varies by the relative ``spread`` and the stains' hue by
    ``hue_deg`` degrees; within a slide each concentration varies by ``unevenness``, and ``other`` is the density of
    other absorbers over that of both stains. ``white`` is the colour of bare glass, ``gamma`` the scanner's,
    ``blur_px`` the sigma of its optics.
    """

    name: str
    stains: tuple[tuple[float, float, float], tuple[float, float, float]]
    strength: tuple[float, float]
    spread: float
    hue_deg: float
    unevenness: float
    other: float
    white: tuple[int, int, int]
    gamma: float
    blur_px: float
    jpeg_quality: int


@dataclass(frozen=True)
class Staining:
    """How one slide was stained: unit optical densities of H and E (rows), and factors on their concentrations."""

    stains: Float64[np.ndarray, "2 3"]
    strength: tuple[float, float]


NORTH = Site(
    "north",
    stains=((0.650, 0.704, 0.286), (0.092, 0.954, 0.283)),
    strength=(1.10, 0.95),
    spread=0.30,
    hue_deg=5.0,
    unevenness=0.20,
    other=0.13,
    white=(243, 243, 245),
    gamma=1.0,
    blur_px=0.5,
    jpeg_quality=88,
)
SOUTH = Site(
    "south",
    stains=((0.638, 0.713, 0.292), (0.110, 0.948, 0.299)),
    strength=(0.72, 1.40),
    spread=0.30,
    hue_deg=5.0,
    unevenness=0.20,
    other=0.13,
    white=(243, 242, 240),
    gamma=0.97,
    blur_px=0.55,
    jpeg_quality=86,
)
SITES = (NORTH, SOUTH)


def stain_matrix(site: Site) -> Float64[np.ndarray, "2 3"]:
    """Unit vectors of H and E."""
    vectors = np.asarray(site.stains)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stain_slide(site: Site, rng: np.random.Generator) -> Staining:
    """The staining of one more slide of a site."""
    h, e = (float(strength * np.exp(rng.normal(0, site.spread))) for strength in site.strength)
    tilted = stain_matrix(site) + rng.normal(0, np.radians(site.hue_deg) / np.sqrt(2), (2, 3))  # two axes turn it
    tilted = np.maximum(tilted, 0.01)
    return Staining(tilted / np.linalg.norm(tilted, axis=1, keepdims=True), (h, e))


def expose(
    concentrations: Float32[np.ndarray, "h w 2"], site: Site, staining: Staining, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """What the site's scanner records of stain concentrations: Beer-Lambert, optics, gamma, sensor noise."""
    amounts = concentrations * np.asarray(staining.strength, np.float32)
    if site.unevenness:
        amounts *= np.exp(site.unevenness * _fields(amounts.shape, _UNEVEN_OVER_PX, rng))
    density = amounts @ staining.stains.astype(np.float32)
    if site.other:
        spots = np.maximum(_fields(amounts.shape, _CELL_PX, rng)[..., :1], 0.0)
        density += site.other * spots * amounts.sum(axis=2, keepdims=True) * np.asarray(OTHER, np.float32)
    light = cv2.GaussianBlur(np.exp(-density), (0, 0), site.blur_px)
    recorded = np.asarray(site.white, np.float32) * light**site.gamma
    recorded += _noise(recorded.shape, rng)
    return np.clip(np.rint(recorded), 0, 255).astype(np.uint8)


def _fields(shape: tuple[int, ...], over_px: int, rng: np.random.Generator) -> Float32[np.ndarray, "h w 2"]:
    """Two fields of random numbers of about unit variance, smooth over so many pixels."""
    height, width = shape[:2]
    coarse = rng.normal(0.0, 1.0, (2 + height // over_px, 2 + width // over_px, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Sensor noise of about one grey level; one tile of it repeated, since drawing fresh noise takes longest of all."""
    side = 512
    tile = rng.normal(0.0, 1.0, (side, side, 3)).astype(np.float32)
    repeats = (-(-shape[0] // side), -(-shape[1] // side), 1)
    return np.tile(tile, repeats)[: shape[0], : shape[1]]
