"""Values of tiles as pictures: each cell where its tile lies, in the colour that the legend gives its value."""

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.views import write_attention, write_view
from wsi_lmc.errors import UsageError
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.grid import GridConfig, place_tiles
from wsi_lmc.labels import write_labels
from wsi_lmc.slide import open_slide
from wsi_lmc.tilestore import TileRows, TileStore, Validity
from wsi_lmc.tissue import TissueConfig, find_tissue
from wsi_lmc.viewer.colours import KEPT, OKABE_ITO, REJECTED, UNREADABLE, by_class, by_three, by_value, to_png
from wsi_lmc.viewer.layers import kept_layer, label_layer, score_layer, similarity_layer, value_layer
from wsi_lmc.viewer.scores import find_classifications, read_scores, score_names
from wsi_lmc.viewer.tiles import Area, Tiles, tiles_of
from wsi_lmc.viewer.viewing import ViewConfig, Viewer


def _tiles(origins: list[tuple[int, int]], footprint: float = 10, step: float = 10, **more: Any) -> Tiles:
    """Tiles on a slide of 130 x 90 pixels."""
    count, stated = len(origins), {"valid": np.zeros(len(origins), np.uint8), "bounds": Area(0, 0, 130, 90)} | more
    corners = np.asarray(origins, np.int32).reshape(count, 2)
    return Tiles(
        corners, np.linspace(0, 1, count, dtype=np.float32), footprint=(footprint, footprint), step=(step, step),
        size=(130.0, 90.0), mpp=(0.5, 0.5), px=10, stored=corners, **stated,
    )  # fmt: skip


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _decoded(document: dict[str, Any]) -> np.ndarray:
    coded = np.frombuffer(base64.b64decode(document["picture"]), np.uint8)
    found = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    assert found is not None
    return cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    return write_view(tmp_path_factory.mktemp("layers"), small_cohort)


# ---------------------------------------------------------------- rasters


def test_each_cell_lies_over_its_tile() -> None:
    raster = _tiles([(30, 20), (50, 20), (30, 60)]).raster
    assert raster.on_grid
    assert (raster.area, raster.shape) == (Area(30, 20, 30, 50), (5, 3))
    colours = np.asarray([[1, 0, 0, 9], [2, 0, 0, 9], [3, 0, 0, 9]], np.uint8)
    picture = raster.paint(colours)
    assert [int(picture[place][0]) for place in ((0, 0), (0, 2), (4, 0))] == [1, 2, 3]
    assert np.count_nonzero(picture[..., 3]) == 3


def test_cells_of_overlapping_tiles_are_centred_on_them() -> None:
    raster = _tiles([(0, 0), (5, 0), (0, 5)], footprint=10, step=5).raster
    assert (raster.area, raster.shape) == (Area(2.5, 2.5, 10, 10), (2, 2))


def test_rounded_origins_are_still_on_the_grid() -> None:
    step = 10.4
    raster = _tiles([(round(column * step), 0) for column in range(12)], footprint=step, step=step).raster
    assert raster.on_grid
    assert raster.shape == (1, 12)


@pytest.mark.parametrize("origins", [[(0, 0), (10, 4), (23, 41)], [(0, 0), (1, 0)]])
def test_tiles_on_no_common_grid_fill_their_places(origins: list[tuple[int, int]]) -> None:
    raster = _tiles(origins).raster
    assert not raster.on_grid
    picture = raster.paint(np.asarray([[10 * row + 10, 0, 0, 255] for row in range(len(origins))], np.uint8))
    scale = (raster.shape[1] / raster.area.width, raster.shape[0] / raster.area.height)
    x, y = (np.asarray(origins[-1]) + 9 - np.asarray([raster.area.x, raster.area.y])) * scale
    assert picture[int(y), int(x), 0] == 10 * len(origins)


def test_many_off_grid_tiles_need_a_bounded_canvas() -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 400_000, (500, 2))
    raster = _tiles([(int(x), int(y)) for x, y in places], footprint=512, step=512).raster
    assert max(raster.shape) <= 2049
    assert raster.area.width >= np.ptp(places[:, 0])


def test_a_tile_is_found_by_a_place_and_of_several_the_nearest_centre() -> None:
    tiles = _tiles([(0, 0), (5, 0), (0, 5)], footprint=10, step=5)
    assert [tiles.row_at(*place) for place in ((1, 1), (9, 4), (2, 9), (14.9, 9.9), (15, 9), (-1, 0))] == [
        0, 1, 2, 1, None, None,
    ]  # fmt: skip
    assert tiles.row_of(5, 0) == 1
    assert tiles.row_of(5, 1) is None
    assert tiles.box(2) == Area(0, 5, 10, 10)


def test_no_tiles_at_all() -> None:
    tiles = _tiles([])
    assert tiles.raster.paint(np.zeros((0, 4), np.uint8)).shape == (1, 1, 4)
    assert tiles.row_at(0, 0) is None


def test_packed_images_stand_on_a_sheet_in_the_store_s_order(tmp_path: Path) -> None:
    origins = np.asarray([[0, 0], [64, 0], [0, 16384], [0, 32768], [16384, 0]], np.int32)
    rows = TileRows(origins, np.ones(5, np.float32), np.zeros(5, np.uint8))
    slide = {"id": "s", "width": 32768, "height": 49152, "mpp": [0.5, 0.5], "vendor": "images", "bounds": [0, 0, 1, 1]}
    tile = {"px": 64, "footprint": [64.0, 64.0], "stride": 64}
    write_features(tmp_path / "s.zarr", np.eye(5, dtype=np.float32), rows, {"slide": slide, "tile": tile})
    tiles = tiles_of(FeatureStore.open(tmp_path / "s.zarr"))
    assert tiles.sheet
    assert tiles.origins.tolist() == [[0, 0], [64, 0], [128, 0], [0, 64], [64, 64]]
    assert tiles.stored.tolist() == origins.tolist()
    assert tiles.size == (192.0, 128.0)


def test_stores_that_say_little_are_shown_as_far_as_there_are_tiles(tmp_path: Path) -> None:
    rows = TileRows(np.asarray([[7, 300], [263, 300]], np.int32), np.ones(2, np.float32), np.zeros(2, np.uint8))
    write_features(tmp_path / "s.zarr", np.eye(2, dtype=np.float32), rows, {"slide": {"id": "s"}, "tile": {"px": 256}})
    tiles = tiles_of(FeatureStore.open(tmp_path / "s.zarr"))
    assert (tiles.size, tiles.mpp, tiles.step) == ((519.0, 556.0), None, (256.0, 256.0))


# ---------------------------------------------------------------- colours and legends


def test_a_scale_rises_in_brightness_and_its_ends_hold_what_lies_beyond() -> None:
    colours = by_value(np.asarray([-5.0, 0.0, 0.25, 0.5, 0.75, 1.0, 7.0, np.nan]), 0.0, 1.0)
    light = colours[:7, :3] @ [0.2126, 0.7152, 0.0722]
    assert light[0] == light[1]
    assert light[5] == light[6]
    assert (np.diff(light[1:6]) > 10).all()
    assert colours[7].tolist() == [0, 0, 0, 0], "what is no number has no colour"
    assert (colours[:7, 3] == 255).all()


def test_classes_have_the_colours_of_their_legend() -> None:
    colours = by_class(np.asarray([2, 0, -1]), OKABE_ITO)
    assert tuple(colours[0, :3].tolist()) == _rgb(OKABE_ITO[2])
    assert tuple(colours[1, :3].tolist()) == _rgb(OKABE_ITO[0])
    assert colours[2, 3] == 0


def test_three_numbers_are_lightness_blue_to_yellow_and_green_to_red() -> None:
    dark, light, blue, yellow, green, red = by_three(
        np.asarray([[0, 0.5, 0.5], [1, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 1]])
    ).astype(int)
    assert light[:3].sum() > dark[:3].sum() + 300
    assert blue[2] > blue[0]
    assert yellow[2] < yellow[0]
    assert green[1] > green[0]
    assert red[1] < red[0]


def test_png_keeps_colours_and_opacity() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(np.uint8)
    picture[..., 3] = 255
    assert (_decoded({"picture": base64.b64encode(to_png(picture)).decode()}) == picture).all()


def test_the_legend_has_the_numbers_of_the_scale() -> None:
    tiles = _tiles([(0, 0), (20, 10)])
    layer = value_layer(tiles, np.asarray([2.0, 4.0]), ("Title", "Note."), (1.0, 4.0))
    document = layer.document()
    assert (document["columns"], document["rows"], document["area"]) == (3, 2, [0.0, 0.0, 30.0, 20.0])
    legend = document["legend"]
    assert (legend["title"], legend["note"], legend["scale"]["low"], legend["scale"]["high"]) == (
        "Title",
        "Note.",
        1,
        4,
    )
    ends = legend["scale"]["colours"][0], legend["scale"]["colours"][-1]
    assert ends == ("#00224d", "#fde737")
    assert tuple(_decoded(document)[1, 2, :3].tolist()) == _rgb(ends[1])


def test_attention_is_told_as_multiples_of_its_mean() -> None:
    tiles = _tiles([(0, 0), (10, 0), (20, 0), (30, 0)])
    values = np.asarray([0.1, 0.1, 0.6, np.nan])
    layer = score_layer(tiles, "attention", values, "")
    assert layer.values is not None
    np.testing.assert_allclose(layer.values, values / np.nanmean(values))
    assert (layer.legend.low, layer.legend.high) == (0.0, pytest.approx(2.25))
    assert score_layer(tiles, "attention", np.full(4, 0.25), "").legend.high == 2.0, "a flat one looks flat"
    assert score_layer(tiles, "attention percentile", values, "").legend.high == 100.0
    assert score_layer(tiles, "probability a", values, "").legend.high == 1.0


def test_similarity_that_is_all_the_same_has_a_scale() -> None:
    layer = similarity_layer(_tiles([(0, 0), (10, 0)]), np.ones(2), "it")
    assert layer.legend.low is not None
    assert layer.legend.high is not None
    assert layer.legend.low < layer.legend.high


def test_labels_beyond_the_colours_share_the_last() -> None:
    tiles = _tiles([(10 * column, 0) for column in range(12)])
    layer = label_layer(tiles, [f"l{column}" for column in range(10)] + ["l0", ""])
    assert layer.legend.classes[0] == ("l0", OKABE_ITO[0], 2)
    assert layer.legend.classes[-1] == ("3 others", OKABE_ITO[-1], 3)
    assert layer.picture[0, 11, 3] == 0
    assert len({tuple(colour) for colour in layer.picture[0, :, :3].tolist()}) == 8


# ---------------------------------------------------------------- of a real run


@pytest.mark.parametrize("slide_id", ["north-01", "south-02"])
def test_every_tile_s_tissue_is_where_the_store_says(run: Path, slide_id: str) -> None:
    document = Viewer(ViewConfig((run,))).layer(slide_id, "tissue", None)
    picture, (left, top, width, height) = _decoded(document), document["area"]
    store = TileStore.open(run / "tiles" / f"{slide_id}.zarr")
    centres = store.origins + np.asarray(store.attributes["tile"]["footprint"]) / 2
    columns = ((centres[:, 0] - left) / width * document["columns"]).astype(int)
    rows = ((centres[:, 1] - top) / height * document["rows"]).astype(int)
    assert (picture[rows, columns] == by_value(store.tissue_fraction, 0.0, 1.0)).all()
    assert np.count_nonzero(picture[..., 3]) == len(store)
    assert document["columns"] != document["rows"]


def test_rejected_cells_are_those_of_the_grid_with_tissue_that_were_not_kept(run: Path, small_cohort: Path) -> None:
    document = Viewer(ViewConfig((run,))).layer("north-01", "kept", None)
    picture = _decoded(document)
    with open_slide(small_cohort / "slides" / "north-01.tif") as slide:
        mask, _ = find_tissue(slide, TissueConfig())
        every = place_tiles(mask, slide.geometry, GridConfig(tile_px=64, min_tissue=0.0))
    left, top, width, height = document["area"]
    assert (left, top, width, height) == (0.0, 0.0, 1024.0, 1280.0)
    expected = np.where(every.tissue_fraction >= 0.5, 2, (every.tissue_fraction > 0.02).astype(int))
    columns, rows = (every.origins // 64).T
    found = np.zeros(len(every), int)
    for number, colour in ((1, REJECTED), (2, KEPT)):
        found[(picture[rows, columns, :3] == _rgb(colour)).all(axis=1) & (picture[rows, columns, 3] > 0)] = number
    certain = (every.tissue_fraction == 0) | (every.tissue_fraction > 0.02)  # the line's own width is not tissue
    assert (found[certain] == expected[certain]).all()
    assert {1, 2} <= set(found[certain].tolist())
    counts = {entry["name"]: entry["count"] for entry in document["legend"]["classes"]}
    assert counts["kept"] == (found == 2).sum()
    assert counts["rejected: some tissue, but too little"] == (found == 1).sum()


def test_unreadable_tiles_have_a_colour_of_their_own() -> None:
    valid = np.asarray([Validity.OK, Validity.UNREADABLE, Validity.PADDED], np.uint8)
    layer = kept_layer(_tiles([(0, 0), (10, 0), (20, 0)], valid=valid), [])
    assert tuple(layer.picture[0, 1, :3].tolist()) == _rgb(UNREADABLE)
    assert [count for _, _, count in layer.legend.classes] == [1, 1, 1]


def test_the_grid_starts_at_the_scanned_area() -> None:
    bounds = Area(7, 3, 60, 40)
    outline = [[[[0.0, 0.0], [130.0, 0.0], [130.0, 90.0], [0.0, 90.0], [0.0, 0.0]]]]
    layer = kept_layer(_tiles([(17, 23)], bounds=bounds), outline)
    assert (layer.area, layer.picture.shape[:2]) == (Area(7, 3, 60, 40), (4, 6))
    kept = (layer.picture[..., :3] == _rgb(KEPT)).all(axis=2)
    assert np.argwhere(kept).tolist() == [[2, 1]]
    assert (layer.picture[..., 3] > 0).all()


def test_scores_lie_on_their_tiles_whatever_bounds_the_files_count_from(run: Path, tmp_path: Path) -> None:
    viewer = Viewer(ViewConfig((run,)))
    names = {each["title"]: each["name"] for each in viewer.slide("north-01")["values"]}
    assert {"Attention", "Attention percentile"} <= set(names)
    assert "Attention" not in {each["title"] for each in viewer.slide("north-02")["values"]}
    picture = _decoded(viewer.layer("north-01", names["Attention percentile"], None))
    store = TileStore.open(run / "tiles" / "north-01.zarr")
    columns, rows = ((store.origins - store.origins.min(axis=0)) // 64).T
    percent = np.arange(1, len(store) + 1) * 100 / len(store)
    assert (np.abs(picture[rows, columns].astype(int) - by_value(percent, 0, 100)) <= 2).all(), "six digits are written"

    moved = json.loads((run / "attending" / "attention" / "north-01.geojson").read_text())
    for feature in moved["features"]:
        feature["geometry"]["coordinates"] = [
            [[x - 12, y - 34] for x, y in ring] for ring in feature["geometry"]["coordinates"]
        ]
    folder = write_attention(tmp_path / "moved", run, "north-01")
    (folder / "attention" / "north-01.geojson").write_text(json.dumps(moved))
    (found,) = find_classifications([], [folder])
    scores = read_scores(found, "north-01", (12.0, 34.0))
    assert scores is not None
    assert np.isfinite(scores.aligned(store.origins, 0)).all()
    assert np.isnan(scores.aligned(store.origins + np.int32(1), 0)).all()


def test_probabilities_come_from_the_table_of_tiles(run: Path, tmp_path: Path) -> None:
    folder = write_attention(tmp_path / "tables", run, "north-01")
    store = TileStore.open(run / "tiles" / "north-01.zarr")
    (folder / "predictions").mkdir()
    lines = [
        f"{x},{y},a,{0.25 + 0.5 * (row == 5)},{0.75 - 0.5 * (row == 5)}\n" for row, (x, y) in enumerate(store.origins)
    ]
    table = folder / "predictions" / "north-01.csv"
    table.write_text("x,y,truth,probability a,probability b\n" + "".join(lines))
    (found,) = find_classifications([], [folder])
    assert score_names(found, "north-01") == ("probability a", "probability b")
    viewer = Viewer(ViewConfig((run,), classifications=(folder,)))
    told = {each["title"]: each["value"] for each in viewer.tile("north-01", 5)["values"]}
    assert (told["Probability a"], told["Probability b"]) == (0.75, 0.25)
    table.write_text("x,y,truth,probability a\n1,here,a,0.5\n")
    with pytest.raises(UsageError, match="cannot be read"):
        read_scores(found, "north-01")


def test_labels_are_shown_where_there_are_some(run: Path) -> None:
    store = TileStore.open(run / "tiles" / "south-01.zarr")
    path = write_labels(run, "south-01", store.origins, ["x" if row == 3 else "" for row in range(len(store))])
    try:
        document = Viewer(ViewConfig((run,))).layer("south-01", "labels", None)
    finally:
        path.unlink()
    assert np.count_nonzero(_decoded(document)[..., 3]) == 1
    assert [entry["name"] for entry in document["legend"]["classes"]] == ["x"]
