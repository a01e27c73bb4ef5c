"""Tissue on synthetic colours, and on a real slide against a mask drawn with QuPath."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsi_lmc.grid import GridConfig, place_tiles
from wsi_lmc.slide import GivenMpp, open_slide
from wsi_lmc.tissue import TissueConfig, TissueMask, find_tissue, pen_or_black, tissue_of

CONFIG = TissueConfig()
GLASS, TISSUE = (243, 243, 244), (205, 150, 195)


def _picture(shape: tuple[int, int] = (240, 320)) -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = np.full((*shape, 3), GLASS, np.float64) + rng.normal(0, 1, (*shape, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _stained(pixels: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 8, pixels[box].shape)
    pixels[box] = np.clip(np.asarray(TISSUE) + noise, 0, 255).astype(np.uint8)
    return pixels


def test_tissue_is_found_where_it_is() -> None:
    box = (slice(40, 150), slice(180, 290))
    mask, threshold = tissue_of(_stained(_picture(), box), 8.0, CONFIG)
    expected = np.zeros(mask.shape, bool)
    expected[box] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.93
    assert CONFIG.lowest_threshold <= threshold <= CONFIG.highest_threshold


def test_glass_is_no_tissue_and_tissue_is_no_glass() -> None:
    assert not tissue_of(_picture(), 8.0, CONFIG)[0].any()
    assert tissue_of(_stained(_picture(), (slice(None), slice(None))), 8.0, CONFIG)[0].mean() > 0.99
    assert not tissue_of(np.full((50, 70, 3), 255, np.uint8), 8.0, CONFIG)[0].any()


@pytest.mark.parametrize("ink", [(25, 110, 70), (35, 60, 150), (30, 28, 32)])
def test_pen_marks_and_black_edges_are_left_out(ink: tuple[int, int, int]) -> None:
    pixels = _stained(_picture(), (slice(40, 150), slice(180, 290)))
    cv2.line(pixels, (40, 20), (60, 220), ink, 12)
    mask, _ = tissue_of(pixels, 8.0, CONFIG)
    assert not mask[:, :120].any()
    assert mask[60:130, 200:270].all()
    assert pen_or_black(pixels)[120, 50]


def test_sizes_are_in_microns_whatever_the_overviews_scale() -> None:
    """A piece of 12,800 um2 is under the limit of 20,000, one of 51,200 over it; a hole likewise."""
    for um, pixel in ((8.0, 1), (4.0, 2)):
        pixels = _picture((200 * pixel, 260 * pixel))
        for top, left, side in ((20, 20, 14), (100, 20, 40), (20, 100, 90)):
            _stained(pixels, (slice(top * pixel, (top + side) * pixel), slice(left * pixel, (left + side) * pixel)))
        pixels[60 * pixel : 70 * pixel, 140 * pixel : 150 * pixel] = GLASS
        mask, _ = tissue_of(pixels, um, CONFIG)
        assert not mask[: 50 * pixel, : 60 * pixel].any()
        assert mask[120 * pixel, 40 * pixel]
        assert mask[65 * pixel, 145 * pixel], "small holes are filled"


def test_glass_that_reaches_the_edge_is_no_hole() -> None:
    pixels = _stained(_picture(), (slice(None), slice(None)))
    pixels[:30, -30:] = GLASS  # 900 pixels in a corner
    pixels[90:120, 100:130] = GLASS  # and as many inside
    mask, _ = tissue_of(pixels, 8.0, CONFIG)
    assert not mask[5, -5]
    assert mask[105, 115]
    tiny = _picture((25, 33))  # all its glass is less than a hole
    assert not tissue_of(tiny, 8.0, CONFIG)[0].any()
    assert tissue_of(_stained(tiny, (slice(None), slice(10, 33))), 8.0, CONFIG)[0].mean() == pytest.approx(0.7, abs=0.1)


@pytest.mark.real
@pytest.mark.parametrize("tile_mpp", [0.25, 0.5])
def test_agrees_with_a_mask_drawn_in_qupath(real_slides: Path, tile_mpp: float) -> None:
    """Tiles at a tissue fraction of one half: above the 0.921 that an HSV threshold of hs2p reaches."""
    folder = real_slides / "kang_P2_0039"
    drawn = cv2.imread(str(next(folder.glob("*mask_ds4.png"))), cv2.IMREAD_GRAYSCALE)
    assert drawn is not None
    config = GridConfig(tile_mpp=tile_mpp)
    with open_slide(next(folder.glob("*lower.tif")), given=GivenMpp(0.25, "option --mpp")) as slide:
        ours, _ = find_tissue(slide, CONFIG)
        grids = [place_tiles(m, slide.geometry, config) for m in (ours, TissueMask(drawn > 0, (4.0, 4.0), None))]
    kept, reference = ({tuple(origin) for origin in grid.origins.tolist()} for grid in grids)
    assert len(reference) > 250
    assert len(kept & reference) / len(kept | reference) > 0.921
