"""Features with known effects: of the site along axis 0, of the class along axis 1, of each group everywhere."""

from dataclasses import dataclass

import numpy as np

from wsi_lmc.evaluation import FeatureSet, SlideFeatures


@dataclass(frozen=True)
class Planted:
    """Sizes of the effects, and how much there is of what.

    ``turn`` (radians) is how far the class's direction is turned, from axis 1 towards axis 2, from one site to the
    next: what a classifier learnt at one site holds less and less at another.
    """

    site: float = 0.0
    kind: float = 0.0
    private: float = 0.0
    turn: float = 0.0
    sites: tuple[str, ...] = ("north", "south")
    groups: int = 6
    tiles: int = 30
    classes: tuple[str, ...] = ("benign", "malignant")
    dimension: int = 5
    seed: int = 0


def planted_set(name: str, what: Planted) -> FeatureSet:
    """A set of features with the planted effects; slides have different numbers of tiles."""
    rng = np.random.default_rng(what.seed)
    slides = []
    for number, site in enumerate(what.sites):
        for group in range(what.groups):
            count = what.tiles + 3 * group
            labels = rng.integers(0, len(what.classes), count)
            features = rng.normal(0, 1, (count, what.dimension)) + what.private * rng.normal(0, 1, what.dimension)
            features[:, 0] += what.site * number
            features[:, 1] += what.kind * labels * np.cos(what.turn * number)
            features[:, 2] += what.kind * labels * np.sin(what.turn * number)
            origins = np.stack([np.arange(count) * 256, np.arange(count) % 7 * 512], 1).astype(np.int32)
            values = features.astype(np.float32)
            slides.append(SlideFeatures(f"{site}-{group}", f"secret {site} {group}", site, values, labels, origins))
    return FeatureSet(name, tuple(slides), what.classes, sum(len(slide.labels) for slide in slides))
