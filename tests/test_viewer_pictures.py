"""What lies under the tiles: the slide's pixels at their places, stored ones where the file is gone, never a label."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.faults.canaries import canaries_in, write_canary_svs
from tests.views import serving, write_features_of
from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.grid import GridConfig
from wsi_lmc.patches import write_patches
from wsi_lmc.pseudonyms import find_named_slides
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.runfolder import add_slides, prepare_run, record
from wsi_lmc.slide import open_slide
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tilestore import TileStore
from wsi_lmc.units import LevelSize, SlidePoint
from wsi_lmc.viewer import ViewConfig
from wsi_lmc.viewer.library import Query
from wsi_lmc.viewer.pictures import TILE_PX, StoredPicture, levels_of, open_picture, piece_of
from wsi_lmc.viewer.sights import UnknownError
from wsi_lmc.viewer.tiles import Area, tiles_of
from wsi_lmc.viewer.viewing import Viewer

CONFIG = TileConfig(GridConfig(tile_px=64))


def _tile(slides: Path, run: Path) -> Path:
    tile_cohort(find_slides([str(slides)]), run, CONFIG, RunOptions(SerialExecutor()))
    return run


def _decoded(content: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert found is not None
    return found


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected).mean())


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    shutil.copy(small_cohort / "slides" / "north-01.tif", folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, slides: Path) -> Path:
    return _tile(slides, tmp_path_factory.mktemp("pictures") / "run")


def test_the_pyramid_ends_in_one_pixel_and_its_pieces_cover_the_slide_once() -> None:
    size = (1300.0, 700.0)
    assert levels_of(size) == 11
    for level in range(12):
        scale = 2.0 ** (11 - level)
        covered = 0.0
        for column in range(4):
            for row in range(4):
                piece = piece_of(size, level, column, row)
                if piece is not None:
                    area, pixels = piece
                    assert (area.x, area.y) == (column * TILE_PX * scale, row * TILE_PX * scale)
                    assert (area.width / pixels[0], area.height / pixels[1]) == (scale, scale)
                    assert max(pixels) <= TILE_PX
                    covered += pixels[0] * pixels[1]
        assert covered == np.ceil(size[0] / scale) * np.ceil(size[1] / scale)
    assert piece_of(size, 12, 0, 0) is None
    assert piece_of(size, 0, 1, 0) is None


@pytest.mark.parametrize("level", [11, 10, 9, 7])
def test_a_piece_is_the_slide_s_pixels_of_its_place(run: Path, slides: Path, level: int) -> None:
    piece = piece_of((1024.0, 1280.0), level, 0, 1 if level > 10 else 0)
    assert piece is not None
    found = _decoded(Viewer(ViewConfig((run,))).piece("north-01", level, 0, 1 if level > 10 else 0))
    area, size = piece
    with open_slide(slides / "north-01.tif") as slide:
        whole = slide.read_level(SlidePoint(0, 0), 0, LevelSize(1024, 1280)).pixels
    part = whole[int(area.y) : int(area.y + area.height), int(area.x) : int(area.x + area.width)]
    expected = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    assert _difference(found, expected) < 9
    elsewhere = np.roll(expected, (found.shape[0] // 8, found.shape[1] // 8), axis=(0, 1))
    assert _difference(found, elsewhere) > 15


def test_views_that_no_level_is_coarse_enough_for_come_from_an_overview(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = open_picture(SlideEntry(slides / "north-01.tif", "north-01"), None)
    area, size = Area(128, 256, 640, 896), (80, 112)
    expected = picture.read(area, size)
    monkeypatch.setattr("wsi_lmc.viewer.pictures._MOST_PX", 100)
    found = picture.read(area, size)
    picture.close()
    assert _difference(found, expected.astype(int)) < 4


def test_a_tile_s_picture_is_its_pixels(run: Path) -> None:
    store = TileStore.open(run / "tiles" / "north-01.zarr")
    found = _decoded(Viewer(ViewConfig((run,))).tile_picture("north-01", 17))
    assert _difference(found, store.read(np.asarray([17]))[0]) < 6


def test_where_the_file_is_gone_overview_and_stored_tiles_are_seen(tmp_path: Path, slides: Path, run: Path) -> None:
    shutil.copytree(slides, tmp_path / "slides")
    moved = _tile(tmp_path / "slides", tmp_path / "run")
    (tmp_path / "slides" / "north-01.tif").unlink()
    viewer = Viewer(ViewConfig((moved,)))
    assert viewer.slide("north-01")["picture"]["kind"] == "overview"
    near, own = (
        _decoded(viewer.piece("north-01", 11, 1, 1)),
        _decoded(Viewer(ViewConfig((run,))).piece("north-01", 11, 1, 1)),
    )
    tiles = tiles_of(TileStore.open(moved / "tiles" / "north-01.zarr"))
    inside = np.zeros(near.shape[:2], bool)
    for x, y in (tiles.origins - TILE_PX).tolist():
        inside[max(0, y) : max(0, y + 64), max(0, x) : max(0, x + 64)] = True
    assert 0.1 < inside.mean() < 1
    assert np.abs(near[inside].astype(int) - own[inside]).mean() < 5, "stored tiles"
    far = _decoded(viewer.piece("north-01", 8, 0, 0))
    assert np.abs(far.astype(int) - _decoded(Viewer(ViewConfig((run,))).piece("north-01", 8, 0, 0))).mean() < 60
    shutil.rmtree(moved / "tiles")
    with pytest.raises(UnknownError):
        Viewer(ViewConfig((moved,))).piece("north-01", 8, 0, 0)


def test_a_slide_that_has_changed_is_not_laid_under_the_tiles_of_another(tmp_path: Path, small_cohort: Path) -> None:
    (tmp_path / "slides").mkdir()
    path = shutil.copy(small_cohort / "slides" / "north-01.tif", tmp_path / "slides")
    moved = _tile(tmp_path / "slides", tmp_path / "run")
    pixels = np.full((256, 512, 3), 200, np.uint8)
    write_canary_svs(Path(path), pixels)
    assert Viewer(ViewConfig((moved,))).slide("north-01")["picture"]["kind"] == "overview"


def test_stored_tiles_lie_where_they_were_cut_and_not_where_too_many_are_seen(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TileStore.open(run / "tiles" / "north-01.zarr")
    tiles = tiles_of(store)
    picture = StoredPicture(tiles, store, None)
    x, y = tiles.origins[20].tolist()
    around = picture.read(Area(x - 10, y - 20, 100, 120), (100, 120))
    assert (around[20:84, 10:74] == store.read(np.asarray([20]))[0]).all()
    monkeypatch.setattr("wsi_lmc.viewer.pictures._MOST_TILES", 0)
    assert len(np.unique(picture.read(Area(0, 0, 1024, 1280), (64, 80)))) == 1
    assert picture.kind == "stored"


def test_packed_images_are_seen_on_a_sheet(tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(images):
        cv2.imwrite(str(path), np.full((64, 64, 3), 40 * number, np.uint8))
    write_patches(tmp_path / "run", "group", images, 64, 0.5)
    viewer = Viewer(ViewConfig((tmp_path / "run",)))
    (slide_id,) = [row["slide_id"] for row in viewer.slides(Query())["slides"]]
    about = viewer.slide(slide_id)
    assert (about["picture"]["kind"], about["picture"]["width"], about["picture"]["height"]) == ("sheet", 192.0, 128.0)
    assert about["outline"] is False
    sheet = _decoded(viewer.piece(slide_id, about["picture"]["levels"], 0, 0))
    assert sheet.shape == (128, 192, 3)
    seen = [int(sheet[y, x].mean().round()) for x, y in ((32, 32), (96, 32), (160, 32), (32, 96), (96, 96))]
    assert np.abs(np.asarray(seen) - [0, 40, 80, 120, 160]).max() <= 2
    assert viewer.tile_at(slide_id, 70, 100)["row"] == 4


def test_no_label_macro_or_name_is_ever_served(
    tmp_path: Path, small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(small_cohort / "slides" / "north-01.tif") as slide:
        pixels = slide.read_level(SlidePoint(0, 0), 0, LevelSize(1024, 1024)).pixels
    hidden = tmp_path / "CanaryFolder Doe"
    write_canary_svs(hidden / "CanaryFile.svs", pixels)
    shutil.copy(hidden / "CanaryFile.svs", tmp_path / "pseudonym:p-001")  # as a manifest names it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.csv").write_text("slide,slide_id\nCanaryFile.svs,p-001\n")
    run = tmp_path / "run"
    entries = find_named_slides([str(hidden / "CanaryFile.svs")], tmp_path / "map.csv", run)
    tile_cohort(entries, run, CONFIG, RunOptions(SerialExecutor()))
    own = tmp_path / "own"
    tile_cohort(find_slides([str(hidden / "CanaryFile.svs")]), own, CONFIG, RunOptions(SerialExecutor()))
    write_features_of(run, "p-001", 0)
    for folder, slide_id, kind, allowed in (
        (run, "p-001", "overview", ()),
        (own, "CanaryFile", "slide", ("CanaryFile",)),
    ):
        with serving(ViewConfig((folder,))) as ask:
            about = ask(f"/api/slides/{slide_id}").document
            assert about["picture"]["kind"] == kind, "a hidden slide's file is not known"
            levels = about["picture"]["levels"]
            assert (about["picture"]["width"], about["picture"]["height"]) == (1024.0, 1024.0)
            paths = ["/", "/api/slides", *(f"/api/slides/{slide_id}{more}" for more in ("", "/outline", "/tiles/3"))]
            paths += [
                f"/api/slides/{slide_id}/layers/{value['name']}?slide={slide_id}&row=1" for value in about["values"]
            ]
            paths += [f"/pixels/{slide_id}/{level}/0_0.jpg" for level in range(levels + 1)]
            paths += [f"/pixels/{slide_id}/tile-3.jpg"]
            answers = {path: ask(path) for path in paths}
        assert all(answer.status == 200 for answer in answers.values())
        for path, answer in answers.items():
            assert canaries_in(answer.body, allowed) == [], path
            assert b"Doe" not in answer.body, path
        coarse = _decoded(answers[f"/pixels/{slide_id}/{levels - 3}/0_0.jpg"].body)
        expected = cv2.resize(pixels, (128, 128), interpolation=cv2.INTER_AREA)
        assert _difference(coarse, expected) < (60 if kind == "overview" else 6), "the slide, and not its macro image"


def test_a_slide_of_unknown_pixel_size_is_seen_without_a_scale(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 512, 3)).astype(np.uint8)
    write_canary_svs(tmp_path / "slides" / "a.svs", pixels, mpp="nonsense")
    about = Viewer(ViewConfig((_tile(tmp_path / "slides", tmp_path / "run"),))).slide("a")
    assert about["failure"]["code"] == "mpp_invalid"
    assert about["picture"] == {
        "kind": "slide", "width": 512.0, "height": 256.0, "mpp": None, "side": TILE_PX, "levels": 9,
    }  # fmt: skip


def test_why_a_hidden_slide_failed_is_told_without_its_name(tmp_path: Path) -> None:
    run, path = tmp_path / "run", tmp_path / "Jane-Doe.svs"
    prepare_run(run)
    add_slides(run, [SlideEntry(path, "p-001")])
    record(run, Outcome("p-001", "tile", "failed", "damaged", f"half of {path}", "Copy it again."))
    about = Viewer(ViewConfig((run,))).slide("p-001")
    assert about["failure"]["code"] == "damaged"
    assert about["failure"]["means"].startswith("a file that contradicts itself")
    assert str(tmp_path) not in str(about)
    assert about["picture"] is None
    assert about["values"] == []


def test_a_damaged_store_is_named_and_the_slide_still_seen(tmp_path: Path, slides: Path) -> None:
    run = _tile(slides, tmp_path / "run")
    (run / "tiles" / "north-01.zarr" / "zarr.json").write_text("{")
    about = Viewer(ViewConfig((run,))).slide("north-01")
    assert about["damaged"] == ["tiles"]
    assert about["picture"]["kind"] == "slide"
    assert about["values"] == []
