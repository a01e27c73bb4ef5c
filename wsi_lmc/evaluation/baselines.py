"""What an encoder has to be compared with: how far plain colour, and plain texture without colour, get."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation.scores import FeatureSet, SlideFeatures
from wsi_lmc.tilestore import TileStore

Baseline = Literal["colour", "texture"]
_AT_ONCE = 256
_LEVELS = 16  # grey levels of the co-occurrences
_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation")


def colour_features(tiles: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n 6"]:
    """Mean and standard deviation of red, green and blue of each tile."""
    values = tiles.reshape(len(tiles), -1, 3)
    mean, deviation = values.mean(axis=1, dtype=np.float32), values.std(axis=1, dtype=np.float32)
    return np.concatenate([mean, deviation], axis=1)


def texture_features(tiles: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n 32"]:
    """Local binary patterns (radii 1 and 3, uniform), co-occurrences at 1 and 4 pixels, skewness and kurtosis.

    All of the luminance brought to mean 0 and deviation 1 in each tile, so that brightness and contrast, and with them
    most of a stain, do not count.
    """
    return np.stack([_texture(tile) for tile in tiles]).astype(np.float32) if len(tiles) else np.zeros((0, 32), "f4")


BASELINES: dict[str, Callable[[UInt8[np.ndarray, "n h w 3"]], Float32[np.ndarray, "n d"]]] = {
    "colour": colour_features,
    "texture": texture_features,
}


def baseline_set(one: FeatureSet, kind: Baseline) -> FeatureSet:
    """The same tiles described by a baseline, read from the tile stores that ``one`` was embedded from.

    Its features have different units, so each is brought to mean 0 and deviation 1 over all of these tiles.

    Raises:
        UsageError: a slide's tiles are not there any more.
    """
    described = [_described(slide, kind) for slide in one.slides]
    every = np.concatenate([slide.features for slide in described]).astype(np.float64)
    mean, deviation = every.mean(axis=0), every.std(axis=0)
    unit = np.where(deviation > 0, deviation, 1.0)
    scaled = [replace(slide, features=((slide.features - mean) / unit).astype(np.float32)) for slide in described]
    return replace(one, name=kind, slides=tuple(scaled))


def _described(slide: SlideFeatures, kind: Baseline) -> SlideFeatures:
    if slide.store is None or slide.origins is None or not slide.store.is_dir():
        raise UsageError(
            f"no tiles of slide {slide.slide_id}", "its tile store, for the baselines", "Leave out --baseline."
        )
    store = TileStore.open(slide.store)
    row_of = {tuple(origin): row for row, origin in enumerate(store.origins.tolist())}
    missing = [origin for origin in slide.origins.tolist() if tuple(origin) not in row_of]
    if missing:
        raise UsageError(f"{slide.store} has no tile at {missing[0]}", "the tiles of the features", "Embed it again.")
    rows = np.asarray([row_of[tuple(origin)] for origin in slide.origins.tolist()], np.int64)
    order = np.argsort(rows)
    parts = [
        BASELINES[kind](store.read(rows[order[start : start + _AT_ONCE]])) for start in range(0, len(rows), _AT_ONCE)
    ]
    found = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    features = np.empty_like(found)
    features[order] = found
    return replace(slide, features=features)


def _texture(tile: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " 32"]:
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float64)
    deviation = grey.std()
    scaled = (grey - grey.mean()) / deviation if deviation > 0 else np.zeros_like(grey)
    clipped = np.clip((scaled + 3) / 6, 0, 1)
    parts = []
    for points, radius in ((8, 1), (8, 3)):
        codes = local_binary_pattern((255 * clipped).astype(np.uint8), points, radius, "uniform").astype(np.int64)
        parts.append(np.bincount(codes.ravel(), minlength=points + 2)[: points + 2] / codes.size)
    levels = np.minimum((clipped * _LEVELS).astype(np.uint8), _LEVELS - 1)
    together = graycomatrix(levels, [1, 4], [0, np.pi / 2], _LEVELS, symmetric=True, normed=True)
    parts += [graycoprops(together, name).mean(axis=1) for name in _PROPERTIES]
    parts.append(np.asarray([(scaled**3).mean(), (scaled**4).mean(), *np.percentile(scaled, [10, 90])]))
    return np.concatenate(parts)
