"""Coordinates: each type in its own frame, arithmetic on slides with oblong pixels."""

import dataclasses

import pytest

from wsi_lmc.units import LevelSize, Mpp, SlideBox, SlidePoint, SlideSize, TileSize


def test_mean_mpp_is_the_side_of_the_square_of_equal_area() -> None:
    mpp = Mpp(0.25, 0.36)
    assert mpp.mean == pytest.approx(0.3)
    assert mpp.mean**2 == pytest.approx(mpp.x * mpp.y)
    assert Mpp(0.5, 0.5).mean == 0.5


@pytest.mark.parametrize(("x", "y", "expected"), [(0.5, 0.5, 0.0), (0.5, 0.51, 0.02), (0.51, 0.5, 0.02), (1, 2, 1)])
def test_anisotropy_is_relative_and_knows_no_order(x: float, y: float, expected: float) -> None:
    assert Mpp(float(x), float(y)).anisotropy == pytest.approx(expected)


def test_scaling_keeps_the_axes_apart() -> None:
    """Reducing by 4 across and 2 down makes pixels 4 and 2 times as large; microns stay what they were."""
    mpp, size = Mpp(0.25, 0.5), SlideSize(4000, 1000)
    reduced = mpp.scaled(4.0, 2.0)
    assert reduced == Mpp(1.0, 1.0)
    assert SlideSize(1000, 500).microns(reduced) == size.microns(mpp) == (1000.0, 500.0)


def test_box_ends_are_the_first_pixels_beyond() -> None:
    box = SlideBox(SlidePoint(30, 7), SlideSize(100, 20))
    assert (box.right, box.bottom) == (130, 27)
    neighbour = SlideBox(SlidePoint(box.right, box.origin.y), box.size)
    assert neighbour.right - box.origin.x == 200


def test_equal_numbers_in_two_frames_are_not_equal() -> None:
    sizes = [SlideSize(3, 4), LevelSize(3, 4), TileSize(3, 4)]
    assert len(set(sizes)) == 3
    assert sizes[0] != sizes[1] != sizes[2]


@pytest.mark.parametrize("value", [Mpp(1.0, 2.0), SlidePoint(1, 2), SlideSize(1, 2), LevelSize(1, 2), TileSize(1, 2)])
def test_coordinates_cannot_change(value: object) -> None:
    name = dataclasses.fields(value)[0].name  # pyright: ignore[reportArgumentType]  every value is a dataclass
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, 9)
