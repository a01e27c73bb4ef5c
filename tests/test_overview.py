"""The overview shows the outline, and the kept tiles unveiled, where they are."""

from pathlib import Path

import cv2
import numpy as np

from wsi_lmc.grid import GridConfig, place_tiles
from wsi_lmc.overview import draw_overview, write_jpeg
from wsi_lmc.slide import Overview, SlideGeometry
from wsi_lmc.tissue import TissueMask
from wsi_lmc.units import Mpp, SlideBox, SlidePoint, SlideSize


def test_kept_tiles_are_unveiled_and_the_outline_is_drawn(tmp_path: Path) -> None:
    size = SlideSize(2560, 1280)
    geometry = SlideGeometry(size, Mpp(0.5, 0.5), (1.0,), SlideBox(SlidePoint(0, 0), size))
    pixels = np.full((80, 160, 3), (200, 100, 180), np.uint8)
    mask = TissueMask(np.zeros((80, 160), bool), (16.0, 16.0), None)
    mask.mask[16:48, 96:128] = True  # tiles 6 and 7 of rows 1 and 2
    grid = place_tiles(mask, geometry, GridConfig())
    assert len(grid) == 4
    picture = draw_overview(Overview(pixels, (16.0, 16.0)), mask, grid)
    scale = picture.shape[1] / 160
    assert picture.shape[0] / 80 == scale
    inside = picture[int(24 * scale), int(104 * scale)]
    outside = picture[int(24 * scale), int(40 * scale)]
    np.testing.assert_array_equal(inside, (200, 100, 180))
    assert outside.min() > 150, "veiled"
    edge = picture[int(32 * scale), int(96 * scale) - 2 : int(96 * scale) + 3].astype(int)
    assert (np.abs(edge - (0, 120, 60)).sum(axis=1) < 10).any(), "outlined in green"
    write_jpeg(tmp_path / "x.jpg", picture)
    read = cv2.imread(str(tmp_path / "x.jpg"))
    assert read is not None
    assert np.abs(read[..., ::-1].astype(int) - picture).mean() < 6
