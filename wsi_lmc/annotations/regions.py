"""Outlined regions of a slide: lesions, and what is cut out of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

FARTHEST = 1e9  # level-0 pixels: no slide is as large, and NaN is not below it
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class Region:
    """One outline: corners as x, y in level-0 pixels, not closed (the last joins the first).

    Where it crosses itself, a point is inside if a ray from it meets the outline an odd number of times, as ASAP fills.
    """

    name: str
    points: Float64[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Annotation:
    """Outlines of one slide: what is inside ``lesions`` but not inside ``excluded`` is lesion.

    ``dropped`` counts outlines that enclose nothing: single points, lines, stray clicks.
    """

    lesions: tuple[Region, ...]
    excluded: tuple[Region, ...] = ()
    dropped: int = 0


def to_region(name: str, points: Sequence[Sequence[float]]) -> Region | None:
    """An outline from its corners; None where it encloses nothing.

    Raises:
        ValueError: a corner that has no place on any slide.
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    if not (np.abs(corners) < FARTHEST).all():
        raise ValueError(f"outline {name[:40]!r} has a corner that lies on no slide")
    return Region(name, corners) if len(corners) >= _FEWEST_POINTS else None
