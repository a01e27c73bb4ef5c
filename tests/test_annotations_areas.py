"""Shares of tiles inside outlines and masks, against other ways to measure them, and the labels that follow."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from wsi_lmc.annotations import (
    CODINGS,
    Annotation,
    Region,
    ShareLimits,
    centred_on,
    grade_labels,
    inside_shares,
    lesion_labels,
    mask_shares,
    read_ncrf,
)
from wsi_lmc.errors import UsageError
from wsi_lmc.slide import GivenMpp, open_slide
from wsi_lmc.tissue import TissueConfig, find_tissue


def _box(left: float, top: float, right: float, bottom: float) -> Region:
    return Region("box", np.asarray([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64))


def _star(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Region:
    """An uneven outline around a centre, far from convex."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
    radii = radius * rng.uniform(0.3, 1.0, 24)
    return Region("star", np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], 1))


def _sampled(annotation: Annotation, origin: np.ndarray, footprint: tuple[float, float]) -> float:
    """The share of a dense lattice of points inside, as matplotlib tells inside from outside."""
    across = 250
    u, v = ((np.arange(across) + 0.5) / across * side for side in footprint)
    points = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2) + origin
    inside = np.zeros(len(points), bool)
    for region in annotation.lesions:
        inside |= Outline(np.vstack([region.points, region.points[:1]])).contains_points(points)
    for region in annotation.excluded:
        inside &= ~Outline(np.vstack([region.points, region.points[:1]])).contains_points(points)
    return float(inside.mean())


def test_upright_boxes_are_measured_exactly() -> None:
    annotation = Annotation((_box(100, 200, 180, 400), _box(150, 200, 220, 400)), (_box(170, 0, 190, 1000),))
    origins = np.asarray([(100, 200), (150, 200), (90, 180), (500, 200), (100, 900)], np.int32)
    shares = inside_shares(annotation, origins, (100.0, 40.0))
    np.testing.assert_allclose(shares, [0.8, 0.5, 0.35, 0, 0])
    assert inside_shares(Annotation(()), origins, (100.0, 40.0)).tolist() == [0.0] * 5


def test_an_outline_may_be_given_in_either_direction_and_touch_itself() -> None:
    corners = np.asarray([(0, 0), (90, 10), (60, 100), (5, 70)], np.float64)
    origins = np.asarray([(0, 0), (30, 20)], np.int32)
    forward, backward = (
        inside_shares(Annotation((Region("a", points),)), origins, (64.0, 50.0)) for points in (corners, corners[::-1])
    )
    np.testing.assert_allclose(forward, backward)
    closed = Region("a", np.vstack([corners, corners[:1], corners[:1]]))
    np.testing.assert_allclose(inside_shares(Annotation((closed,)), origins, (64.0, 50.0)), forward)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_shares_agree_with_sampled_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lesions = tuple(_star(rng, (rng.uniform(0, 300), rng.uniform(0, 200)), rng.uniform(20, 150)) for _ in range(3))
    annotation = Annotation(lesions, (_star(rng, (150.0, 100.0), 60.0),))
    origins = rng.integers(-20, 220, (4, 2)).astype(np.int32)
    footprint = (97.0, 61.5)
    shares = inside_shares(annotation, origins, footprint)
    expected = [_sampled(annotation, origin, footprint) for origin in origins]
    np.testing.assert_allclose(shares, expected, atol=0.006)


def test_shares_of_a_whole_tiling_sum_to_the_area() -> None:
    region = _star(np.random.default_rng(4), (260.0, 190.0), 170.0)
    x, y = region.points.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    lattice = np.stack(np.meshgrid(np.arange(0, 640, 40), np.arange(0, 480, 30)), axis=-1)
    shares = inside_shares(Annotation((region,)), lattice.reshape(-1, 2).astype(np.int32), (40.0, 30.0))
    assert shares.sum() * 1200 == pytest.approx(area, rel=2e-3)


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_shares_of_a_mask_agree_with_a_magnified_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 9)) < 0.4
    footprint, downsample = (14.0, 6.0), (4.0, 2.0)
    origins = rng.integers(0, 22, (6, 2)).astype(np.int32)
    large = np.zeros((60, 60), bool)
    large[:26, :36] = np.repeat(np.repeat(mask, 2, axis=0), 4, axis=1)
    expected = [large[y : y + 6, x : x + 14].mean() for x, y in origins]
    np.testing.assert_allclose(mask_shares(mask, downsample, origins, footprint), expected, atol=1e-12)


def test_between_the_limits_a_tile_has_no_label() -> None:
    shares = np.asarray([0.0, 0.01, 0.49, 0.5, 1.0])
    assert lesion_labels(shares, ShareLimits()) == ["normal", "", "", "tumor", "tumor"]
    assert lesion_labels(shares, ShareLimits(0.495, 0.4)) == ["normal", "normal", "", "tumor", "tumor"]
    for wrong in ((0.2, 0.2), (1.1, 0.0), (0.5, -0.1)):
        with pytest.raises(UsageError, match="least_tumour"):
            ShareLimits(*wrong)


def test_patches_around_points_stay_in_the_image() -> None:
    centres = np.asarray([(100.0, 60.0), (3.0, -2.5), (299.0, 199.0), (150.5, 20.0)])
    origins = centred_on(centres, (64.0, 50.0), (300, 200))
    np.testing.assert_array_equal(origins, [(68, 35), (0, 0), (236, 150), (118, 0)])
    assert centred_on(np.zeros((0, 2)), (64.0, 50.0), (64, 50)).shape == (0, 2)
    with pytest.raises(UsageError, match="an image of 300 x 200"):
        centred_on(centres, (64.0, 201.0), (300, 200))


def test_the_class_that_covers_most_of_a_tile_is_its_grade() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :12] = 3
    mask[:12, 12:] = 4
    tiles = (np.asarray([(0, 0), (40, 0), (40, 40), (120, 0)], np.int32), (40.0, 40.0))
    coding = CODINGS["panda_radboud"]
    assert grade_labels(mask, coding, (4.0, 4.0), tiles, 0.5) == ["gleason 3", "gleason 4", "", ""]
    assert grade_labels(mask, coding, (4.0, 4.0), tiles, 0.1) == ["gleason 3", "gleason 4", "gleason 3", ""]


@pytest.mark.real
def test_real_lesions_have_their_area_and_lie_on_tissue(test_data: Path) -> None:
    path = test_data / "annotations" / "camelyon16_Tumor_001.ncrf.json"
    annotation, side = read_ncrf(path), 256
    area = 0.0
    for outline in json.loads(path.read_text(encoding="utf-8"))["positive"]:
        x, y = np.asarray(outline["vertices"], np.float64).T
        area += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    low = np.floor(np.min([region.points.min(axis=0) for region in annotation.lesions], axis=0) / side)
    high = np.ceil(np.max([region.points.max(axis=0) for region in annotation.lesions], axis=0) / side)
    lattice = np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])), -1).reshape(-1, 2) * side
    shares = inside_shares(annotation, lattice.astype(np.int32), (side, side))
    assert shares.sum() * side**2 == pytest.approx(area, rel=1e-3)
    slide_path = test_data / "wsi" / "camelyon16_tumor_001_level5.tif"  # reduced 32 times; here a pixel is a pixel
    with open_slide(slide_path, given=GivenMpp(7.8, "manifest")) as slide:
        mask, _ = find_tissue(slide, TissueConfig())
    tumour = lattice[shares > 0.99].astype(np.int32)
    downsample = (mask.downsample[0] * 32, mask.downsample[1] * 32)
    assert len(tumour) > 20
    assert mask_shares(mask.mask, downsample, tumour, (side, side)).mean() > 0.95
