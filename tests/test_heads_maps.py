"""Maps: boxes where the tiles are, in QuPath's frame, numbers as they are; pictures with every tile in its place."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsi_lmc.contours import read_geojson
from wsi_lmc.heads import maps
from wsi_lmc.heads.maps import Place, TileMap, draw_map, percentiles, to_geojson
from wsi_lmc.units import SlidePoint

ORIGINS = np.asarray([[100, 40], [180, 40], [100, 100], [500, 220]], np.int32)
PLACE = Place("s1", (80.0, 60.5), (800.0, 400.0), (100.0, 40.0))
ATTENTION = np.asarray([[0.1], [0.2], [0.2], [0.5]])


def test_tiles_stand_in_qupaths_frame(tmp_path: Path) -> None:
    text = to_geojson(TileMap(PLACE, ORIGINS, ("attention",), ATTENTION))
    document = json.loads(text)
    assert document["type"] == "FeatureCollection"
    first, *_, last = document["features"]
    assert first["geometry"]["coordinates"] == [[[0, 0], [80, 0], [80, 60.5], [0, 60.5], [0, 0]]]
    assert first["properties"]["objectType"] == "tile"
    assert last["properties"]["measurements"] == {"attention": 0.5, "attention percentile": 100.0}
    assert len({feature["id"] for feature in document["features"]}) == 4
    assert text == to_geojson(TileMap(PLACE, ORIGINS, ("attention",), ATTENTION)), "ids do not change between runs"
    path = tmp_path / "s1.geojson"
    path.write_text(text)
    rings = [polygon[0] for polygon in read_geojson(path, SlidePoint(100, 40))]
    np.testing.assert_allclose([ring[0] for ring in rings], ORIGINS)
    np.testing.assert_allclose([ring[2] for ring in rings], ORIGINS + np.asarray([80.0, 60.5]))


def test_probabilities_of_all_classes_are_written() -> None:
    values = np.asarray([[0.25, 0.75]] * 4)
    document = json.loads(to_geojson(TileMap(PLACE, ORIGINS, ("probability a", "probability b"), values)))
    assert document["features"][2]["properties"]["measurements"] == {"probability a": 0.25, "probability b": 0.75}


def test_ranks_are_in_percent() -> None:
    np.testing.assert_allclose(percentiles(ATTENTION[:, 0]), [25, 62.5, 62.5, 100])
    assert percentiles(np.zeros(0)).shape == (0,)


def test_each_tile_is_painted_in_its_place() -> None:
    tiles = TileMap(PLACE, ORIGINS, ("attention",), ATTENTION)
    background, scale = maps._background(tiles)
    assert background.shape == (400, 800, 3)
    assert scale == (1.0, 1.0)
    painted = maps._painted(tiles, ATTENTION[:, 0], background.shape[:2], scale)
    for (x, y), (value,) in zip(ORIGINS, ATTENTION, strict=True):
        assert painted[int(y + 30), int(x + 40)] == value
    assert np.isnan(painted[350, 100])
    covered = np.isfinite(painted).sum() / painted.size
    assert covered == pytest.approx(4 * 80 * 60.25 / (800 * 400), rel=0.02)


def test_pictures_lie_over_the_overview(tmp_path: Path) -> None:
    overview = tmp_path / "o.jpg"
    pixels = np.full((1600, 3200, 3), 255, np.uint8)
    pixels[:, :1600] = (200, 0, 0)
    cv2.imwrite(str(overview), pixels[..., ::-1])
    place = Place("s1", (80.0, 60.0), (800.0, 400.0), overview=overview)
    background, scale = maps._background(TileMap(place, ORIGINS, ("attention",), ATTENTION))
    assert background.shape == (400, 800, 3)
    assert scale == (1.0, 1.0)
    red, green, blue = background[200, 200].astype(int)
    assert red > 190
    assert green == pytest.approx(64, abs=8), "paled by a quarter"
    assert blue < 80
    draw_map(TileMap(place, ORIGINS, ("attention",), ATTENTION), tmp_path / "one.png")
    names = tuple(f"probability {name}" for name in "abcd")
    draw_map(TileMap(PLACE, ORIGINS, names, np.full((4, 4), 0.25)), tmp_path / "four.png")
    one, four = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "four.png"))
    assert one is not None
    assert four is not None
    assert one.shape[1] > one.shape[0]
    assert four.shape[1] > one.shape[1]
    purple = np.abs(one[..., ::-1].astype(int) - (0.75 * np.asarray([253, 231, 37]) + 0.25 * 255)).sum(-1) < 40
    assert purple.any(), "the tile of most attention has the scale's yellow"
