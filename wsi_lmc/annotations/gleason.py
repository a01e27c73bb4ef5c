"""Masks of Gleason grades: what their pixels' values mean in each published cohort, and grades of tiles."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from wsi_lmc.annotations.areas import mask_shares
from wsi_lmc.annotations.files import not_of, read_limited
from wsi_lmc.errors import UsageError

STROMA, BENIGN, CANCER = "stroma", "benign", "cancer"
GRADE_3, GRADE_4, GRADE_5 = "gleason 3", "gleason 4", "gleason 5"
_ONE_HOT = {"NC": BENIGN, "G3": GRADE_3, "G4": GRADE_4, "G5": GRADE_5}


@dataclass(frozen=True)
class Coding:
    """What the values of a cohort's masks mean; None is outside of what was annotated, and gives no label."""

    values: Mapping[int, str | None]
    about: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that occur, without what is not annotated."""
        return tuple(dict.fromkeys(name for name in self.values.values() if name is not None))


CODINGS = {
    "gleason2019": Coding(
        {0: None, 1: BENIGN, 3: GRADE_3, 4: GRADE_4, 5: GRADE_5, 6: BENIGN},
        "Gleason 2019 challenge; 0 is benign or outside of the tissue, which it does not tell apart, so it is not used",
    ),
    "panda_radboud": Coding(
        {0: None, 1: STROMA, 2: BENIGN, 3: GRADE_3, 4: GRADE_4, 5: GRADE_5},
        "PANDA, data_provider radboud: glands one by one, drawn partly by a network; in the red channel",
    ),
    "panda_karolinska": Coding(
        {0: None, 1: BENIGN, 2: CANCER}, "PANDA, data_provider karolinska: regions, without grades; in the red channel"
    ),
    "sicapv2": Coding(
        {0: None, 3: GRADE_3, 4: GRADE_4, 5: GRADE_5},
        "SICAPv2 (its readme says 0 to 3, its masks hold 0, 3, 4, 5); 0 is benign or not annotated: benign patches are "
        "known by the partition tables only",
    ),
    "gleason_grade": Coding(
        {0: GRADE_3, 1: GRADE_4, 2: GRADE_5, 3: BENIGN, 4: STROMA}, "BioImageInformatics/gleason_grade; 0 is a grade"
    ),
}


def read_grades(path: Path, coding: Coding, page: int = 0) -> UInt8[np.ndarray, "y x"]:
    """A mask's values, all of them of the coding.

    Args:
        path: PNG or TIFF of one channel, or of three of which the first holds the values and the others nothing, or
            the same.
        coding: what values there may be.
        page: which image of a TIFF that holds several (a pyramid: its levels).

    Raises:
        UsageError: it cannot be read, is no mask of whole numbers, or holds other values.
    """
    if not path.is_file():
        raise not_of(path, "a mask in PNG or TIFF", "there is no such file")
    try:
        _, images = cv2.imreadmulti(str(path), start=page, count=1, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise not_of(path, "a mask in PNG or TIFF", f"it cannot be read ({error.err[:80]})") from error
    if not images:
        raise not_of(path, "a mask in PNG or TIFF", f"it has no image number {page}")
    values = _one_channel(path, np.asarray(images[0]))
    found = {int(value) for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256))}
    if not found <= coding.values.keys():
        others = ", ".join(str(value) for value in sorted(found - coding.values.keys())[:10])
        known = ", ".join(f"{value} {name or 'nothing'}" for value, name in coding.values.items())
        raise UsageError(f"{path} holds the values {others}", known, "Name the coding of this cohort's masks.")
    return values


def grade_labels(
    mask: UInt8[np.ndarray, "y x"],
    coding: Coding,
    downsample: tuple[float, float],
    tiles: tuple[Int32[np.ndarray, "n 2"], tuple[float, float]],
    least: float,
) -> list[str]:
    """The class that covers most of each tile; nothing where that is less than ``least`` of the tile's area.

    Args:
        mask: values of the coding.
        coding: what they mean.
        downsample: level-0 pixels to one pixel of the mask, along x and y.
        tiles: their top-left corners (x, y) and their width and height, in level-0 pixels.
        least: share of the tile's area, 0 to 1.
    """
    origins, footprint = tiles
    names = coding.classes
    shares = np.zeros((len(names), len(origins)))
    for row, name in enumerate(names):
        values = [value for value, meaning in coding.values.items() if meaning == name]
        shares[row] = mask_shares(np.isin(mask, values), downsample, origins, footprint)
    best = shares.argmax(axis=0)
    return [names[row] if shares[row, tile] >= least else "" for tile, row in enumerate(best.tolist())]


def read_sicap_partition(path: Path) -> dict[str, str]:
    """Labels by image of one of SICAPv2's partition tables, saved as CSV: columns image_name, NC, G3, G4, G5.

    Raises:
        UsageError: no such file, a column is missing, or an image has no class, or several.
    """
    expected = f"columns image_name, {', '.join(_ONE_HOT)}, one of them 1"
    try:
        rows = list(csv.DictReader(read_limited(path).decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise not_of(path, expected, str(error)[:100]) from error
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        try:
            classes = [name for column, name in _ONE_HOT.items() if int(row[column])]
            (found[row["image_name"]],) = classes
        except (KeyError, TypeError, ValueError) as error:
            raise not_of(path, expected, f"line {number} is {str(row)[:120]}") from error
    return found


def _one_channel(path: Path, image: np.ndarray) -> UInt8[np.ndarray, "y x"]:
    """The values of a mask, which may be stored as a picture in colours."""
    if image.dtype != np.uint8:
        raise not_of(path, "a mask of whole numbers up to 255", f"pixels are {image.dtype}")
    if image.ndim == 2:
        return image
    blue, green, red = (image[..., channel] for channel in range(3))
    empty = not (blue.any() or green.any())
    if not empty and not (np.array_equal(blue, red) and np.array_equal(green, red)):
        raise not_of(path, "values in one channel", "it is a picture in colours")
    return np.ascontiguousarray(red)
