"""Which tiles of a slide are cut, and which label each gets."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.places import CellPlaces, LesionPlaces, MaskPlaces, SomePlaces
from wsi_lmc.annotations import ShareLimits
from wsi_lmc.grid import GridConfig, TileGrid, place_tiles
from wsi_lmc.slide import Slide, open_slide
from wsi_lmc.tissue import TissueConfig, find_tissue

LESION = "tumor_001"


@pytest.fixture(scope="module")
def slide(downloads: Path) -> Slide:
    return open_slide(downloads / "camelyon16" / "images" / f"{LESION}.tif")


@pytest.fixture(scope="module")
def grid(slide: Slide) -> TileGrid:
    mask, _ = find_tissue(slide, TissueConfig())
    return place_tiles(mask, slide.geometry, GridConfig(tile_px=64, tile_mpp=0.25))


def _corners(grid: TileGrid) -> set[tuple[int, int]]:
    return {(x, y) for x, y in grid.origins.tolist()}


def test_a_slide_without_lesions_is_normal_everywhere(slide: Slide, grid: TileGrid) -> None:
    cut, labels = LesionPlaces(None, ShareLimits(), 10_000, ("normal", "tumor"), 0).choose(slide, grid)
    np.testing.assert_array_equal(cut.origins, grid.origins)
    assert set(labels) == {"normal"}


def test_only_the_kinds_asked_for_and_so_many_of_each(slide: Slide, grid: TileGrid, downloads: Path) -> None:
    outlines = downloads / "camelyon16" / "annotations" / f"{LESION}.xml"
    for kinds in (("tumor",), ("normal", "tumor")):
        cut, labels = LesionPlaces(outlines, ShareLimits(), 7, kinds, 0).choose(slide, grid)
        assert sorted(labels) == sorted(kinds * 7)
        assert _corners(cut) < _corners(grid)
        assert len(cut.tissue_fraction) == len(cut.padded) == len(labels)
    again = LesionPlaces(outlines, ShareLimits(), 7, ("normal", "tumor"), 0).choose(slide, grid)
    np.testing.assert_array_equal(again[0].origins, cut.origins)
    other = LesionPlaces(outlines, ShareLimits(), 7, ("normal", "tumor"), 1).choose(slide, grid)
    assert _corners(other[0]) != _corners(cut)


def test_a_slide_of_no_tissue_has_no_tiles(slide: Slide, grid: TileGrid) -> None:
    empty = grid.part(range(0))
    for places in (LesionPlaces(None, ShareLimits(), 5, ("normal",), 0), SomePlaces(5, 0)):
        cut, labels = places.choose(slide, empty)
        assert (len(cut), labels) == (0, [])


def test_some_tiles_have_no_label(slide: Slide, grid: TileGrid) -> None:
    cut, labels = SomePlaces(9, 0).choose(slide, grid)
    assert _corners(cut) < _corners(grid)
    assert labels == [""] * 9
    assert len(SomePlaces(10_000, 0).choose(slide, grid)[0]) == len(grid)


def test_of_two_cells_in_one_corner_the_first_kind_counts(slide: Slide, grid: TileGrid) -> None:
    cells = ((5.0, 5.0, "other"), (9.0, 4.0, "mitosis"), (300.0, 200.0, "other"))
    cut, labels = CellPlaces(cells, ("mitosis", "other")).choose(slide, grid)
    assert dict(zip(map(tuple, cut.origins.tolist()), labels, strict=True)) == {
        (0, 0): "mitosis", (268, 168): "other",
    }  # fmt: skip


def test_what_decides_is_in_the_fingerprint(downloads: Path) -> None:
    folder = downloads / "camelyon16" / "annotations"
    mask = downloads / "gleason" / "one" / "mask" / "core1_mask.png"
    limits = ShareLimits()
    places = [
        LesionPlaces(None, limits, 5, ("normal",), 0),
        LesionPlaces(folder / "tumor_001.xml", limits, 5, ("normal",), 0),
        LesionPlaces(folder / "tumor_002.xml", limits, 5, ("normal",), 0),
        LesionPlaces(None, ShareLimits(0.6), 5, ("normal",), 0),
        LesionPlaces(None, limits, 6, ("normal",), 0),
        LesionPlaces(None, limits, 5, ("tumor",), 0),
        LesionPlaces(None, limits, 5, ("normal",), 1),
        SomePlaces(5, 0),
        SomePlaces(5, 1),
        CellPlaces(((1.0, 2.0, "a"),), ("a",)),
        CellPlaces(((1.0, 3.0, "a"),), ("a",)),
        MaskPlaces(mask, "panda_radboud", 0, 0.5),
        MaskPlaces(mask, "panda_radboud", 0, 0.6),
        MaskPlaces(mask, "gleason_grade", 0, 0.5),
    ]
    assert len({each.identity() for each in places}) == len(places)
