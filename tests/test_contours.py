"""Outlines: exact round trips, exact areas, and what QuPath needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_lmc.contours import mask_to_polygons, polygons_to_mask, read_geojson, to_geojson
from wsi_lmc.errors import SlideError
from wsi_lmc.units import SlidePoint

SCALE = (16.0, 12.0)


def _area(ring: list[list[float]]) -> float:
    x, y = np.asarray(ring).T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 13))))
def test_a_mask_comes_back(mask: np.ndarray) -> None:
    polygons = mask_to_polygons(mask, SCALE)
    shape = (mask.shape[0], mask.shape[1])
    np.testing.assert_array_equal(polygons_to_mask(polygons, shape, SCALE), mask)
    area = sum(_area(polygon[0]) - sum(_area(hole) for hole in polygon[1:]) for polygon in polygons)
    assert area == pytest.approx(mask.sum() * SCALE[0] * SCALE[1])


def test_a_file_comes_back_and_is_cropped_to_the_bounds(tmp_path: Path) -> None:
    mask = np.zeros((7, 11), bool)
    mask[1:5, 3:9] = True
    mask[2:4, 5:7] = False
    polygons = mask_to_polygons(mask, SCALE)
    offset = SlidePoint(40, 24)
    text = to_geojson("slide", polygons, offset)
    document = json.loads(text)
    feature = document["features"][0]
    rings = feature["geometry"]["coordinates"]
    assert document["type"] == "FeatureCollection"
    assert all(ring[0] == ring[-1] for ring in rings), "rings are closed"
    assert min(x for x, _ in rings[0]) == 3 * 16 - 40
    assert min(y for _, y in rings[0]) == 1 * 12 - 24
    assert feature["properties"]["objectType"] == "annotation"
    assert len(feature["properties"]["classification"]["color"]) == 3
    assert to_geojson("slide", polygons, offset) == text
    path = tmp_path / "x.geojson"
    path.write_text(text)
    np.testing.assert_array_equal(polygons_to_mask(read_geojson(path, offset), (7, 11), SCALE), mask)


def test_single_features_and_multipolygons_are_read(tmp_path: Path) -> None:
    square = [[[0, 0], [32, 0], [32, 24], [0, 24], [0, 0]]]
    path = tmp_path / "x.geojson"
    for document in (
        {"type": "MultiPolygon", "coordinates": [square, square]},
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}},
        [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}}],
    ):
        path.write_text(json.dumps(document))
        mask = polygons_to_mask(read_geojson(path, SlidePoint(0, 0)), (4, 5), SCALE)
        assert mask.sum() == 4
        assert mask[:2, :2].all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"features": [{"geometry": {"type": "Point", "coordinates": [1, 2]}}]}',
        "[1]",
        '{"type": "Polygon", "coordinates": [[]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3, NaN], [4, 5]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3, 1e300], [4, 5]]]}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.geojson").write_text(text)
    with pytest.raises(SlideError) as caught:
        read_geojson(tmp_path / "x.geojson", SlidePoint(0, 0))
    assert caught.value.code == "bad_mask"
