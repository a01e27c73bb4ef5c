"""Tiles with known stains, and tiles that no stain can be found in, for the tests of stain separation."""

import colorsys
from collections.abc import Callable

import numpy as np

from wsi_lmc.stain import RUIFROK

Rng = np.random.Generator


def unit(pair: object) -> np.ndarray:
    """Stain vectors of length one, float64."""
    vectors = np.asarray(pair, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def mix(pair: object, seed: int, shape: tuple[int, int] = (96, 128), even: bool = False) -> np.ndarray:
    """A tile with known stains: some pixels of H, some of E, many of both; ``even``: all of about one density."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.4, 0.4, shape)
    total = rng.uniform(0.95, 1.05, shape) if even else rng.gamma(6.0, 0.2, shape)
    density = np.stack([share * total, (1 - share) * total], -1) @ unit(pair)
    density += rng.normal(0, 0.01, density.shape)
    return np.clip(np.rint(255 * np.exp(-density)), 0, 255).astype(np.uint8)


def separate_by_numpy(tile: np.ndarray) -> np.ndarray:
    """Macenko's method, uncentred, one tile, by SVD: written from the paper, not from the library."""
    density = np.maximum(-np.log(np.maximum(tile.reshape(-1, 3).astype(np.float64), 1) / 255), 0)
    density = density[(density >= 0.15).all(1)]
    basis = np.linalg.svd(density, full_matrices=False)[2][:2]
    basis *= np.where(basis @ density.mean(0) < 0, -1, 1)[:, None]
    angle = np.arctan2(density @ basis[1], density @ basis[0])
    found = [np.array([np.cos(a), np.sin(a)]) @ basis for a in np.percentile(angle, [1, 99])]
    return np.stack(sorted(found, key=lambda vector: -float(np.asarray(vector)[0])))


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    """Largest angle between unit vectors."""
    return float(np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1))).max())


def hue(rng: Rng) -> np.ndarray:
    """A saturated colour of any hue."""
    return np.rint(np.asarray(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.2, 1))) * 255)


def _even(colour: Callable[[Rng], object]) -> Callable[[np.ndarray, Rng], np.ndarray]:
    return lambda tile, rng: np.broadcast_to(np.asarray(colour(rng)), tile.shape)


def _nearly_even(tile: np.ndarray, rng: Rng) -> np.ndarray:
    return hue(rng).clip(1, 254) + rng.integers(-1, 2, tile.shape)


def _all_pen(tile: np.ndarray, rng: Rng) -> np.ndarray:
    pens = [(0, 140, 60), (20, 40, 170), (12, 12, 14)]
    return np.asarray(pens[rng.integers(3)]) + rng.normal(0, 2, tile.shape)


def _pen_strokes(tile: np.ndarray, rng: Rng) -> np.ndarray:
    y, x = np.indices(tile.shape[:2])
    drawn = (y * rng.uniform(0.2, 2) + x * rng.uniform(-1, 1) + rng.integers(50)) % 30 < 12
    return np.where(np.expand_dims(drawn, 2), _all_pen(tile, rng), tile)


def _one_stain(tile: np.ndarray, rng: Rng) -> np.ndarray:
    return 255 * np.exp(-rng.gamma(4, 0.2, (*tile.shape[:2], 1)) * unit(RUIFROK)[rng.integers(2)])


def _checkerboard(tile: np.ndarray, rng: Rng) -> np.ndarray:
    y, x = np.indices(tile.shape[:2]) // rng.integers(1, 9)
    return np.where(((y + x) % 2 == 0)[..., None], hue(rng), hue(rng))


def _one_pixel(tile: np.ndarray, rng: Rng) -> np.ndarray:
    white = np.full(tile.shape, 250)
    white[rng.integers(tile.shape[0]), rng.integers(tile.shape[1])] = (90, 40, 120)
    return white


def _bits_flipped(tile: np.ndarray, rng: Rng) -> np.ndarray:
    return tile ^ np.where(rng.random(tile.shape) < 0.05, 1 << rng.integers(0, 8, tile.shape), 0)


def _rows_zeroed(tile: np.ndarray, rng: Rng) -> np.ndarray:
    return np.where((rng.random(tile.shape[0]) < 0.3)[:, None, None], 0, tile)


def _saturated(tile: np.ndarray, rng: Rng) -> np.ndarray:
    return np.where(tile < rng.integers(60, 200), 0, 255)


HOPELESS: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "white": _even(lambda rng: 255),
    "glass": _even(lambda rng: rng.integers(225, 250)),
    "black": _even(lambda rng: 0),
    "grey": _even(lambda rng: rng.integers(0, 256)),
    "one colour": _even(hue),
    "one channel": _even(lambda rng: np.eye(3)[rng.integers(3)] * 255),
    "nearly one colour": _nearly_even,
    "pen": _all_pen,
    "one stain": _one_stain,
    "one pixel": _one_pixel,
}
"""Made from a tile and a generator; no H and E can be told from them."""

MUTATED: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "pen strokes": _pen_strokes,
    "checkerboard": _checkerboard,
    "random bytes": lambda tile, rng: rng.integers(0, 256, tile.shape),
    "bits flipped": _bits_flipped,
    "channels swapped": lambda tile, rng: tile[..., rng.permutation(3)],
    "inverted": lambda tile, rng: 255 - tile,
    "rows zeroed": _rows_zeroed,
    "saturated": _saturated,
}
"""What may still look like tissue, or may not."""


def hostile(kind: str, seed: int, tile: np.ndarray) -> np.ndarray:
    """A tile of a kind named above, as large as ``tile``, which some are made of."""
    made = (HOPELESS | MUTATED)[kind](tile, np.random.default_rng(seed))
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)
