"""MIDOG 2021 and MIDOG++: mitotic figures, and the cells that look like them.

The JSON looks like COCO, but ``bbox`` is x1, y1, x2, y2 and not x, y, width, height; category 1 is a mitotic figure, 2
a hard negative. All boxes have 50 pixels; some reach beyond the image.
"""

import csv
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from wsi_lmc.annotations.files import not_of, read_json, read_limited
from wsi_lmc.annotations.regions import FARTHEST

MITOTIC_FIGURE, HARD_NEGATIVE = "mitotic figure", "hard negative"
MIDOG2021_SCANNERS = {
    "Hamamatsu XR": range(1, 51),
    "Hamamatsu S360": range(51, 101),
    "Aperio CS2": range(101, 151),
    "Leica GT450": range(151, 201),
}
"""Scanners by number of file; the last has no annotations."""
_CATEGORIES = {1: MITOTIC_FIGURE, 2: HARD_NEGATIVE}
_EXPECTED = "MIDOG's JSON: images, categories and annotations with bbox as x1, y1, x2, y2"
_SLIDE_COLUMNS = ("Slide", "Dataset", "Tumor", "Scanner", "Origin", "Species")
_NUMBER = re.compile(r"([0-9]{3})\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with its annotated cells: ``centres`` are x, y in pixels, ``labels`` one a cell, in the same order."""

    file_name: str
    width: int
    height: int
    tumour: str
    centres: Float64[np.ndarray, "n 2"]
    labels: tuple[str, ...]


def read_midog(path: Path) -> tuple[AnnotatedImage, ...]:
    """Every image of ``MIDOG.json`` or ``MIDOG++.json``, in the order of the file, those without cells, too.

    Raises:
        UsageError: no such file, or one of another format; boxes of width and height (COCO) are told apart by these
            being smaller than their corner.
    """
    document = read_json(path, _EXPECTED)
    try:
        _check_categories(document["categories"])
        cells: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
        for annotation in document["annotations"]:
            cells[int(annotation["image_id"])].append(_cell(annotation))
        images = [_image(image, cells.pop(int(image["id"]), [])) for image in document["images"]]
        if cells:
            raise ValueError(f"cells of image {min(cells)}, which is not listed")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_of(path, _EXPECTED, f"{type(error).__name__}: {str(error)[:150]}") from error
    return tuple(images)


def midog2021_scanner(file_name: str) -> str:
    """The scanner of an image of MIDOG 2021, by its number; empty for what is none of them."""
    match = _NUMBER.fullmatch(file_name)
    number = int(match[1]) if match else 0
    return next((scanner for scanner, numbers in MIDOG2021_SCANNERS.items() if number in numbers), "")


@dataclass(frozen=True)
class MidogSlide:
    """A row of MIDOG++'s table of slides; ``scanner`` is spelt as there."""

    number: int
    subset: str
    tumour: str
    scanner: str
    origin: str
    species: str


def read_midogpp_slides(path: Path) -> tuple[MidogSlide, ...]:
    """MIDOG++'s ``datasets_xvalidation.csv``: columns Slide, Dataset, Tumor, Scanner, Origin, Species, by semicolons.

    Raises:
        UsageError: no such file, a column is missing, or a slide has no number.
    """
    expected = f"columns {';'.join(_SLIDE_COLUMNS)}"
    try:
        reader = csv.DictReader(read_limited(path).decode("utf-8-sig").splitlines(), delimiter=";")
        names = reader.fieldnames or []
        missing = [name for name in _SLIDE_COLUMNS if name not in names]
        if missing:
            raise ValueError(f"no column {missing[0]} among {', '.join(names)[:100]!r}")
        rows = [[(row[name] or "").strip() for name in _SLIDE_COLUMNS] for row in reader]
        return tuple(MidogSlide(int(number), *others) for number, *others in rows)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise not_of(path, expected, str(error)[:200]) from error


def _check_categories(categories: list[dict[str, Any]]) -> None:
    """The numbers must mean what they mean here, whatever the words for the second are."""
    names = {int(category["id"]): str(category["name"]) for category in categories}
    if names.keys() != _CATEGORIES.keys() or names[1] != MITOTIC_FIGURE:
        raise ValueError(f"categories {names}, not 1 (mitotic figure) and 2 (not one)")


def _cell(annotation: dict[str, Any]) -> tuple[float, float, str]:
    left, top, right, bottom = (float(value) for value in annotation["bbox"])
    if not max(abs(value) for value in (left, top, right, bottom)) < FARTHEST:
        raise ValueError(f"annotation {annotation['id']} lies on no image")
    if right <= left or bottom <= top:
        raise ValueError(f"annotation {annotation['id']} has bbox {annotation['bbox']}: width and height, as in COCO?")
    return (left + right) / 2, (top + bottom) / 2, _CATEGORIES[int(annotation["category_id"])]


def _image(image: dict[str, Any], cells: list[tuple[float, float, str]]) -> AnnotatedImage:
    width, height = int(image["width"]), int(image["height"])
    if width <= 0 or height <= 0:
        raise ValueError(f"image {image['id']} has {width} x {height} pixels")
    centres = np.asarray([(x, y) for x, y, _ in cells], np.float64).reshape(-1, 2)
    labels = tuple(label for _, _, label in cells)
    return AnnotatedImage(str(image["file_name"]), width, height, str(image.get("tumor_type", "")), centres, labels)
