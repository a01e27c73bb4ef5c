"""Sites: how a laboratory stains and its scanner sees; from stain concentrations to the pixels of its scans.

The two sites differ most in how strongly they stain, which is what LMC is made to remove, and a little in hue, white
point, gamma and sharpness, which it is not: with large differences of those the site stays visible to a linear probe.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8


@dataclass(frozen=True)
class Site:
    """One laboratory and its scanner.

    ``stains`` are unit optical densities (rows H, E; columns red, green, blue; natural log). ``strength`` multiplies
    the concentrations of H and E, and varies from slide to slide by the relative ``spread``. ``white`` is the colour
    of bare glass, ``gamma`` the scanner's, ``blur_px`` the sigma of its optics.
    """

    name: str
    stains: tuple[tuple[float, float, float], tuple[float, float, float]]
    strength: tuple[float, float]
    spread: float
    white: tuple[int, int, int]
    gamma: float
    blur_px: float
    jpeg_quality: int


NORTH = Site(
    "north",
    stains=((0.650, 0.704, 0.286), (0.092, 0.954, 0.283)),
    strength=(1.10, 0.95),
    spread=0.12,
    white=(243, 243, 245),
    gamma=1.0,
    blur_px=0.5,
    jpeg_quality=88,
)
SOUTH = Site(
    "south",
    stains=((0.638, 0.713, 0.292), (0.110, 0.948, 0.299)),
    strength=(0.72, 1.40),
    spread=0.12,
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


def expose(
    concentrations: Float32[np.ndarray, "h w 2"], site: Site, strength: tuple[float, float], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """What the site's scanner records of stain concentrations: Beer-Lambert, optics, gamma, sensor noise."""
    mixing = (np.asarray(strength)[:, None] * stain_matrix(site)).astype(np.float32)
    light = np.exp(-(concentrations @ mixing))
    light = cv2.GaussianBlur(light, (0, 0), site.blur_px)
    recorded = np.asarray(site.white, np.float32) * light**site.gamma
    recorded += _noise(recorded.shape, rng)
    return np.clip(np.rint(recorded), 0, 255).astype(np.uint8)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Sensor noise of about one grey level; one tile of it repeated, since drawing fresh noise takes longest of all."""
    side = 512
    tile = rng.normal(0.0, 1.0, (side, side, 3)).astype(np.float32)
    repeats = (-(-shape[0] // side), -(-shape[1] // side), 1)
    return np.tile(tile, repeats)[: shape[0], : shape[1]]
