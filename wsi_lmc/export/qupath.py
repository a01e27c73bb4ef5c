"""QuPath's GeoJSON: ``<id>.geojson`` with the tissue as annotations and the tiles as tile objects.

Level-0 pixels from the corner of the scanned area, since QuPath crops slides to it. Ids do not change between exports.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from wsi_lmc.contours import tile_objects, tissue_objects
from wsi_lmc.export.bags import Bag
from wsi_lmc.publish import publish_text
from wsi_lmc.units import SlidePoint

_COMPONENTS = 3  # as many as can be seen at once, as colours


def write_qupath(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's objects; tiles carry their tissue fraction and the first components of their features."""
    corner = SlidePoint(*bag.corner)
    measurements = dict(principal_components(bag))
    if np.isfinite(bag.tissue_fraction).all():  # of imported features it is unknown, and QuPath knows no NaN in JSON
        measurements["Tissue fraction"] = bag.tissue_fraction.astype(np.float64)
    objects = tissue_objects(bag.slide_id, bag.tissue(), corner)
    objects += tile_objects(bag.slide_id, bag.origins - np.asarray(bag.corner, np.float64), bag.footprint, measurements)
    final = out / f"{bag.slide_id}.geojson"
    text = json.dumps({"type": "FeatureCollection", "features": objects}, separators=(",", ":"), allow_nan=False)
    publish_text(out, final, text + "\n")
    return [final]


def principal_components(bag: Bag) -> Mapping[str, Float64[np.ndarray, " n"]]:
    """The first components of a slide's features, in standard deviations of each; nothing of fewer than two tiles.

    They are of this slide alone: a value means nothing at another one. Of the two directions that a component may
    have, the one is taken along which its largest loading is positive.
    """
    if len(bag.features) < 2:
        return {}
    centred = bag.features.astype(np.float64) - bag.features.mean(axis=0, dtype=np.float64)
    if not np.isfinite(centred).all():
        return {}
    _, vectors = np.linalg.eigh(centred.T @ centred)
    loadings = vectors[:, ::-1][:, :_COMPONENTS]
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])])
    scores = centred @ loadings
    scores /= np.maximum(scores.std(axis=0), 1e-12)
    return {f"Feature component {number + 1} (of this slide)": column for number, column in enumerate(scores.T)}
