"""The grid: exact tissue shares, no overlap, equal microns in x and y, x and y never swapped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_lmc.errors import SlideError
from wsi_lmc.grid import GridConfig, axis_count, place_tiles, tissue_fractions
from wsi_lmc.slide import SlideGeometry
from wsi_lmc.tissue import TissueMask
from wsi_lmc.units import Mpp, SlideBox, SlidePoint, SlideSize


def _geometry(width: int, height: int, mpp: float = 0.5, origin: tuple[int, int] = (0, 0)) -> SlideGeometry:
    size = SlideSize(width, height)
    box = SlideBox(SlidePoint(*origin), SlideSize(width - origin[0], height - origin[1]))
    return SlideGeometry(size, Mpp(mpp, mpp), (1.0, 4.0), box)


def _full(width: int, height: int, downsample: float = 16.0) -> TissueMask:
    shape = (int(np.ceil(height / downsample)), int(np.ceil(width / downsample)))
    return TissueMask(np.ones(shape, bool), (downsample, downsample), None)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(3.0, 17.0), st.floats(5.0, 60.0), st.floats(5.0, 60.0))
def test_tissue_fractions_are_exact(seed: int, downsample: float, wide: float, high: float) -> None:
    """Against areas summed pixel by pixel."""
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 14)) < 0.5
    xs, ys = rng.integers(0, 60, 3).astype(np.int32), rng.integers(0, 40, 2).astype(np.int32)
    scale = (downsample, downsample * 1.25)
    found = tissue_fractions(TissueMask(mask, scale, None), xs, ys, (wide, high))
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            edges_x, edges_y = np.arange(15) * scale[0], np.arange(10) * scale[1]
            across = np.clip(np.minimum(edges_x[1:], x + wide) - np.maximum(edges_x[:-1], x), 0, None)
            down = np.clip(np.minimum(edges_y[1:], y + high) - np.maximum(edges_y[:-1], y), 0, None)
            assert found[row, column] == pytest.approx(down @ mask @ across / (wide * high), abs=1e-9)


def test_rows_run_along_x_first_and_tiles_do_not_overlap() -> None:
    grid = place_tiles(_full(1100, 700), _geometry(1100, 700), GridConfig(min_tissue=0.0))
    assert grid.origins.tolist() == [[x, y] for y in (0, 256) for x in (0, 256, 512, 768)]
    assert not grid.padded.any()


def test_tiles_stand_where_the_tissue_is() -> None:
    mask = _full(2048, 1024)
    mask.mask[:, :] = False
    mask.mask[16:48, 80:112] = True  # y 256 to 768, x 1280 to 1792
    grid = place_tiles(mask, _geometry(2048, 1024), GridConfig())
    assert grid.origins.tolist() == [[1280, 256], [1536, 256], [1280, 512], [1536, 512]]
    assert grid.tissue_fraction.tolist() == [1.0] * 4


def test_the_border_drops_or_pads() -> None:
    drop = place_tiles(_full(600, 300), _geometry(600, 300), GridConfig(min_tissue=0.0))
    pad = place_tiles(_full(600, 300), _geometry(600, 300), GridConfig(min_tissue=0.0, edge="pad"))
    assert len(drop) == 2
    assert len(pad) == 6
    assert pad.padded.tolist() == [False, False, True, True, True, True]


def test_a_coarser_tile_covers_more_of_level_0() -> None:
    grid = place_tiles(_full(4096, 4096), _geometry(4096, 4096, mpp=0.25), GridConfig(tile_mpp=0.5, min_tissue=0.0))
    assert grid.sampling.footprint == (512.0, 512.0)
    assert len(grid) == 64


def test_strides_overlap_as_asked() -> None:
    config = GridConfig(min_tissue=0.0, stride=128)
    grid = place_tiles(_full(600, 300), _geometry(600, 300), config)
    assert grid.origins.tolist() == [[0, 0], [128, 0], [256, 0]]


def test_the_grid_starts_at_the_bounds() -> None:
    grid = place_tiles(_full(1000, 900), _geometry(1000, 900, origin=(100, 50)), GridConfig(min_tissue=0.0))
    assert grid.origins[0].tolist() == [100, 50]


@given(st.integers(1, 5000), st.floats(1, 400), st.floats(1, 400))
def test_as_many_as_fit(span: int, side: float, step: float) -> None:
    count = axis_count(span, side, step, pad=False)
    assert count == 0 or (count - 1) * step + side <= span + 1e-3
    assert count * step + side > span - 1e-3


def test_too_many_tiles_are_refused_before_anything_is_read() -> None:
    with pytest.raises(SlideError) as caught:
        place_tiles(_full(512, 512), _geometry(1_000_000, 1_000_000), GridConfig())
    assert caught.value.code == "too_large"
