"""Outlines and tiles as GeoJSON, and outlines as masks: level-0 pixels, closed rings, as QuPath reads and writes."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64
from skimage import draw

from wsi_lmc.errors import SlideError, without_quotes
from wsi_lmc.units import SlidePoint

_FARTHEST = 1e9  # level-0 pixels: no slide is as large, and NaN is not below it
_NAMESPACE = uuid.UUID("8a0f4a0e-9b0c-5c36-8c60-4b1f3a1f2d11")  # ids must not change between runs
_TISSUE = {"name": "Tissue", "color": [200, 0, 80]}  # QuPath throws on a classification object without a colour

Ring = list[list[float]]
Polygon = list[Ring]


def mask_to_polygons(mask: Bool[np.ndarray, "y x"], downsample: tuple[float, float]) -> list[Polygon]:
    """Outlines of a mask along its pixels' edges, as polygons with holes in level-0 pixels.

    Traced on a doubled mask, so that a ring runs along pixel borders and not through pixel centres (which would
    lose half a pixel all round), and a one-pixel object keeps its area.
    """
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    rings, tree = cv2.findContours(np.ascontiguousarray(doubled), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tree is None:
        return []
    polygons: list[Polygon] = []
    for index, (_, _, child, parent) in enumerate(tree[0]):
        if parent >= 0:
            continue
        polygon = [_to_slide(rings[index], downsample)]
        while child >= 0:
            polygon.append(_to_slide(rings[child], downsample))
            child = int(tree[0][child][0])
        polygons.append(polygon)
    return polygons


def polygons_to_mask(
    polygons: list[Polygon], shape: tuple[int, int], downsample: tuple[float, float]
) -> Bool[np.ndarray, "y x"]:
    """Fill polygons (level-0 pixels) into a mask of ``shape`` (height, width): holes stay empty, parts are joined.

    A mask pixel belongs to a polygon when its centre does.
    """
    mask = np.zeros(shape, bool)
    for polygon in polygons:
        part = np.zeros(shape, bool)
        for ring in polygon:
            x, y = (np.asarray(ring, np.float64) / downsample - 0.5).T
            part[draw.polygon(y, x, shape)] ^= True
        mask |= part
    return mask


def to_geojson(slide_id: str, polygons: list[Polygon], offset: SlidePoint) -> str:
    """A FeatureCollection for QuPath, which crops a slide to its bounds: ``offset`` (their origin) is subtracted."""
    document = {"type": "FeatureCollection", "features": tissue_objects(slide_id, polygons, offset)}
    return json.dumps(document, separators=(",", ":")) + "\n"


def tissue_objects(slide_id: str, polygons: list[Polygon], offset: SlidePoint) -> list[dict[str, Any]]:
    """QuPath's annotations, one a polygon, from ``offset`` (level-0 pixels)."""
    return [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{slide_id}/{index}")),
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x - offset.x, y - offset.y] for x, y in ring] for ring in polygon],
            },
            "properties": {"objectType": "annotation", "classification": _TISSUE, "name": f"tissue {index + 1}"},
        }
        for index, polygon in enumerate(polygons)
    ]


def tile_objects(
    slide_id: str,
    corners: Float64[np.ndarray, "n 2"],
    footprint: tuple[float, float],
    measurements: Mapping[str, Float64[np.ndarray, " n"]],
) -> list[dict[str, Any]]:
    """QuPath's tile objects, with numbers that were measured of each.

    ``corners`` are x, y of the top-left in level-0 pixels from the corner of the scanned area, which is QuPath's
    origin; ``footprint`` is a tile's width and height there.
    """
    return [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{slide_id}/{x:.12g},{y:.12g}")),
            "geometry": {"type": "Polygon", "coordinates": [_box(x, y, footprint)]},
            "properties": {
                "objectType": "tile",
                "measurements": {name: float(f"{values[row]:.6g}") for name, values in measurements.items()},
            },
        }
        for row, (x, y) in enumerate(corners.tolist())
    ]


def _box(x: float, y: float, footprint: tuple[float, float]) -> Ring:
    right, bottom = round(x + footprint[0], 3), round(y + footprint[1], 3)
    return [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]


def read_geojson(path: Path, offset: SlidePoint) -> list[Polygon]:
    """Polygons and MultiPolygons of a GeoJSON file in level-0 pixels; ``offset`` is added back.

    Raises:
        SlideError: ``bad_mask`` where the file holds anything else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        features = document["features"] if isinstance(document, dict) and "features" in document else document
        polygons = [
            polygon
            for feature in (features if isinstance(features, list) else [features])
            for polygon in _polygons(feature.get("geometry", feature))
        ]
        return [[_ring(ring, offset) for ring in polygon] for polygon in polygons]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SlideError(
            "bad_mask",
            f"{path.name} is no GeoJSON of polygons ({without_quotes(str(error))[:200]})",
            "Polygon or MultiPolygon features in level-0 pixels, as QuPath exports them",
            "Export the annotations from QuPath again.",
        ) from error


def _ring(points: list[list[float]], offset: SlidePoint) -> Ring:
    """A ring in level-0 pixels, moved by ``offset``; raises ValueError where it encloses nothing or has no place."""
    ring = [[float(x) + offset.x, float(y) + offset.y] for x, y, *_ in points]
    if len(ring) < 3:
        raise ValueError(f"a ring of {len(ring)} points")
    if any(not abs(value) < _FARTHEST for point in ring for value in point):
        raise ValueError("a point that lies on no slide")
    return ring


def _polygons(geometry: dict[str, Any]) -> list[Polygon]:
    if geometry["type"] == "Polygon":
        return [geometry["coordinates"]]
    if geometry["type"] == "MultiPolygon":
        return list(geometry["coordinates"])
    raise ValueError("a geometry of another type")


def _to_slide(ring: np.ndarray, downsample: tuple[float, float]) -> Ring:
    """A ring traced on the doubled mask, moved onto pixel borders, closed, in level-0 pixels."""
    points = ring[:, 0, :].astype(np.float64)
    # The ring runs through sub-pixels: an even coordinate is a left or top half, whose border is at half its value;
    # an odd one a right or bottom half, whose border is one further.
    scaled = (points + points % 2) / 2 * np.asarray(downsample)
    closed = np.vstack([scaled, scaled[:1]])
    return [[round(float(x), 3), round(float(y), 3)] for x, y in closed]
