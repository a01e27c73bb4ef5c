"""Tissue beside blank, pen-marked, one-colour, random and mutated tiles: nothing is NaN, and no neighbour notices.

What a tile gets is compared with what it gets alone: views bit for bit, vectors to 5e-7 (a few units in the last place
of float32), since a sum over pixels may be rounded in another order.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tissue import HOPELESS, MUTATED, degrees, hostile, hue, mix, unit
from wsi_lmc.patches import read_image
from wsi_lmc.stain import RUIFROK, Drawn, SeparationConfig, ViewConfig, draw_views, render_views, separate
from wsi_lmc.stain.views import ViewMode, turned_planes

SHAPES = ((40, 56), (32, 32), (64, 48))
KINDS = st.tuples(st.sampled_from(sorted(HOPELESS | MUTATED)), st.integers(0, 2**20))
SEPARATIONS = st.builds(
    SeparationConfig,
    beta=st.sampled_from([0.0, 0.15, 0.345]),
    alpha=st.sampled_from([0.0, 1.0, 10.0]),
    centred=st.booleans(),
    stride=st.sampled_from([1, 2, 4]),
)
VIEWS = st.builds(
    ViewConfig,
    mode=st.sampled_from(["paper", "robust"]),
    scale_low=st.sampled_from([1e-6, 0.5, 1.0]),
    scale_high=st.sampled_from([1.0, 2.0, 100.0]),
    scale_law=st.sampled_from(["uniform", "log-uniform"]),
    gamma=st.sampled_from([0.0, 0.2, 2.0]),
    white_point=st.sampled_from([0.0, 0.1, 5.0]),
    blur=st.sampled_from([0.0, 1.0, 4.0]),
    jpeg=st.sampled_from([0, 1, 50, 95]),
    geometry=st.sampled_from(["of-mode", "none", "same", "independent"]),
)


def _real(test_data: Path) -> list[np.ndarray]:
    """The middle of two images of each of several sites."""
    sites = ["colon_crosssite/glas_uk", "camelyon17_centers/tiles256", "breast_crosssite/ucsb_us", "stain_schemes"]
    images = [sorted((test_data / site).rglob("*.jp*g"))[:2] for site in sites]
    found = [read_image(path) for paths in images for path in paths]
    assert len(found) == 8
    corners = [((image.shape[0] - 256) // 2, (image.shape[1] - 256) // 2) for image in found]
    return [image[y : y + 256, x : x + 256] for image, (y, x) in zip(found, corners, strict=True)]


@pytest.fixture(scope="session", params=["synthetic", pytest.param("real", marks=pytest.mark.real)])
def tissue(request: pytest.FixtureRequest) -> list[np.ndarray]:
    if request.param == "real":
        return _real(request.getfixturevalue("test_data"))
    pairs = (RUIFROK, ((0.650, 0.704, 0.286), (0.092, 0.954, 0.283)))
    return [mix(pair, seed, (64, 64)) for pair in pairs for seed in (1, 2)]


def _batch(
    tissue: list[np.ndarray], kinds: list[tuple[str, int]], shape: tuple[int, int], first: int
) -> tuple[torch.Tensor, list[int]]:
    """Two good tiles, hostile ones between them; and the rows of the good ones."""
    good = [tissue[(first + number) % len(tissue)][: shape[0], : shape[1]] for number in (0, 1)]
    between = [hostile(kind, seed, good[seed % 2]) for kind, seed in kinds]
    return torch.from_numpy(np.stack([good[0], *between, good[1]])), [0, len(kinds) + 1]


@given(
    kinds=st.lists(KINDS, min_size=1, max_size=6),
    config=SEPARATIONS,
    shape=st.sampled_from(SHAPES),
    first=st.integers(0, 7),
)
def test_stains_are_finite_and_leave_neighbours_alone(
    tissue: list[np.ndarray],
    kinds: list[tuple[str, int]],
    config: SeparationConfig,
    shape: tuple[int, int],
    first: int,
) -> None:
    tiles, _ = _batch(tissue, kinds, shape, first)
    found = separate(tiles, config)
    assert bool(torch.isfinite(found.vectors).all())
    torch.testing.assert_close(found.vectors.norm(dim=2), torch.ones(len(tiles), 2))
    for row in range(len(tiles)):
        alone = separate(tiles[row : row + 1], config)
        assert bool(found.trusted[row]) == bool(alone.trusted[0])
        if found.trusted[row]:  # others' vectors, of no use, can hang on the last bit
            torch.testing.assert_close(found.vectors[row], alone.vectors[0], rtol=0, atol=5e-7)


@given(
    kinds=st.lists(KINDS, min_size=1, max_size=4),
    config=VIEWS,
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 1000),
)
def test_views_are_finite_in_range_and_leave_neighbours_alone(
    tissue: list[np.ndarray],
    kinds: list[tuple[str, int]],
    config: ViewConfig,
    shape: tuple[int, int],
    seed: int,
) -> None:
    """Even with the vectors of hopeless tiles themselves, which a training replaces by their slide's."""
    tiles, good = _batch(tissue, kinds, shape, seed)
    stains = separate(tiles, SeparationConfig()).vectors
    drawn = draw_views(len(tiles), config, torch.Generator().manual_seed(seed))
    views = render_views(turned_planes(tiles, drawn), stains, drawn, config.mode)
    for image in (views.a, views.b):
        assert bool(torch.isfinite(image).all())
        assert 0 <= float(image.min()) <= float(image.max()) <= 1, "of 255 grey levels"
    assert 0 <= float(views.clipped_share) <= 1
    for row in good:
        only = slice(row, row + 1)
        alone = render_views(turned_planes(tiles[only], drawn.of(only)), stains[only], drawn.of(only), config.mode)
        assert torch.equal(views.a[row], alone.a[0])
        assert torch.equal(views.b[row], alone.b[0])


@given(
    kind=st.sampled_from(sorted(HOPELESS)),
    seed=st.integers(0, 2**20),
    stride=st.sampled_from([1, 4]),
    first=st.integers(0, 7),
)
def test_hopeless_tiles_are_never_trusted(
    tissue: list[np.ndarray], kind: str, seed: int, stride: int, first: int
) -> None:
    tile = hostile(kind, seed, tissue[first % len(tissue)][:64, :48])
    assert not bool(separate(torch.from_numpy(tile[None]), SeparationConfig(stride=stride)).trusted[0])


def test_tissue_is_trusted(tissue: list[np.ndarray]) -> None:
    """Of whole tiles: what a corner of a few pixels holds is another matter."""
    trusted = [bool(separate(torch.from_numpy(tile[None]), SeparationConfig()).trusted[0]) for tile in tissue]
    assert all(trusted), trusted


def test_no_hue_is_taken_for_two_stains() -> None:
    rng = np.random.default_rng(0)
    tiles = np.broadcast_to(np.stack([hue(rng) for _ in range(1000)])[:, None, None], (1000, 4, 5, 3)).astype(np.uint8)
    found = separate(torch.from_numpy(tiles), SeparationConfig())
    assert bool(torch.isfinite(found.vectors).all())
    assert not bool(found.trusted.any())


def test_two_colours_have_no_plane_of_their_own() -> None:
    """Their covariance has one axis: the second is rounding, and turned with the batch's composition."""
    colours = np.array([(150, 90, 180), (200, 120, 170)], np.uint8)
    tile = colours[np.indices((40, 56)).sum(0) % 2]
    assert not bool(separate(torch.from_numpy(tile[None]), SeparationConfig(centred=True, stride=1)).trusted[0])
    assert bool(separate(torch.from_numpy(tile[None]), SeparationConfig(stride=1)).trusted[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (3, 17)])
@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_tiles_of_a_pixels_height_do_no_harm(shape: tuple[int, int], mode: ViewMode) -> None:
    config = ViewConfig(mode, gamma=2.0, white_point=1.0, blur=2.0, jpeg=10, geometry="independent")
    tile = mix(RUIFROK, 1, shape)
    tiles = torch.from_numpy(np.stack([hostile(kind, 3, tile) for kind in HOPELESS | MUTATED]))
    found = separate(tiles, SeparationConfig(stride=4))
    drawn = draw_views(len(tiles), config, torch.Generator().manual_seed(0))
    views = render_views(turned_planes(tiles, drawn), found.vectors, drawn, mode)
    for values in (found.vectors, views.a, views.b):
        assert bool(torch.isfinite(values).all())


def test_the_vectors_of_a_trusted_tile_are_never_nearly_parallel(tissue: list[np.ndarray]) -> None:
    for tile in tissue:
        found = separate(torch.from_numpy(tile[None]), SeparationConfig())
        first, second = unit(found.vectors[0].double().numpy())
        assert degrees(first[None], second[None]) >= 10


class _Recorder(TorchDispatchMode):
    """Remembers which of torch's operations ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ran.add(func.name())
        return func(*args, **(kwargs or {}))


def test_lapack_is_never_called() -> None:
    """It refuses whole batches, makes a GPU wait, and ``lstsq`` is silently wrong there."""
    tiles = torch.from_numpy(np.stack([mix(RUIFROK, 1, (32, 48)), hostile("white", 0, mix(RUIFROK, 1, (32, 48)))]))
    config = ViewConfig(gamma=0.1, white_point=0.1, blur=1.0, jpeg=50)
    with _Recorder() as recorder:
        stains = separate(tiles, SeparationConfig()).vectors
        drawn = draw_views(2, config, torch.Generator().manual_seed(0))
        render_views(turned_planes(tiles, drawn), stains, drawn, "robust")
    assert "aten::bmm" in recorder.ran
    assert not [name for name in recorder.ran if "linalg" in name or "lstsq" in name or "svd" in name]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_cpu_and_gpu_agree(tissue: list[np.ndarray], mode: ViewMode) -> None:
    """Vectors of tissue, trust of all tiles, and views; a rounding can tip a coefficient of JPEG, so without it."""
    kinds = [(kind, 5) for kind in sorted(HOPELESS)]
    tiles, good = _batch(tissue, kinds, (64, 48), 0)
    here, there = separate(tiles, SeparationConfig()), separate(tiles.cuda(), SeparationConfig())
    torch.testing.assert_close(there.vectors.cpu()[good], here.vectors[good], atol=1e-4, rtol=0)
    assert torch.equal(there.trusted.cpu(), here.trusted)
    config = replace(ViewConfig(mode), gamma=0.2, white_point=0.1, blur=1.0)
    drawn = draw_views(len(tiles), config, torch.Generator().manual_seed(0))
    moved = Drawn(*(None if values is None else values.cuda() for values in drawn))
    stains = torch.tensor(RUIFROK).expand(len(tiles), 2, 3)
    one = render_views(turned_planes(tiles, drawn), stains, drawn, mode)
    other = render_views(turned_planes(tiles.cuda(), moved), stains.cuda(), moved, mode)
    torch.testing.assert_close(other.a.cpu(), one.a, atol=1e-4, rtol=0)
    torch.testing.assert_close(other.b.cpu(), one.b, atol=1e-4, rtol=0)
