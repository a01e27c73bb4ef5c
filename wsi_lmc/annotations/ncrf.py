"""Camelyon16's lesions as Baidu's NCRF repository has them: JSON outlines, and centres of patches as text."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from wsi_lmc.annotations.files import not_of, read_json, read_limited
from wsi_lmc.annotations.regions import Annotation, Region, to_region

_EXPECTED = "NCRF's JSON: positive and negative, lists of outlines with name and vertices"
_CENTRES = "lines of slide,x,y"


def read_ncrf(path: Path) -> Annotation:
    """Outlines of a slide: ``positive`` are lesions, ``negative`` are cut out of them.

    Raises:
        UsageError: no such file, or one of another format.
    """
    document = read_json(path, _EXPECTED)
    try:
        lesions, bare = _regions(document["positive"])
        excluded, bare_too = _regions(document["negative"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_of(path, _EXPECTED, f"{type(error).__name__}: {str(error)[:100]}") from error
    return Annotation(lesions, excluded, bare + bare_too)


def read_ncrf_centres(path: Path) -> dict[str, Int64[np.ndarray, "n 2"]]:
    """Centres of patches (x, y in level-0 pixels) by slide, in the order of the file.

    Raises:
        UsageError: no such file, or a line that is no slide,x,y.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(read_limited(path).decode("utf-8", "replace").splitlines(), 1):
        try:
            slide, x, y = line.split(",")
            found.setdefault(slide.strip(), []).append((int(x), int(y)))
        except ValueError as error:
            raise not_of(path, _CENTRES, f"line {number} is {line[:60]!r}") from error
    return {slide: np.asarray(centres, np.int64) for slide, centres in found.items()}


def _regions(outlines: list[dict[str, Any]]) -> tuple[tuple[Region, ...], int]:
    """Outlines, and how many enclose nothing."""
    found = [to_region(str(outline["name"]), outline["vertices"]) for outline in outlines]
    regions = tuple(region for region in found if region is not None)
    return regions, len(found) - len(regions)
