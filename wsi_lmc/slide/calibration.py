"""Microns per pixel: decided here for every reader, never guessed, its source recorded.

Libraries disagree (tiffslide reports 0.5 where Aperio's MPP is missing, OpenSlide nothing), so the readers only
quote the file and this module judges.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wsi_lmc.errors import SlideError
from wsi_lmc.slide.reader import MppStatement
from wsi_lmc.units import Mpp

SMALLEST, LARGEST = 0.05, 10.0
_NUMERIC = re.compile(r"[0-9eE+., -]{0,40}|[+-]?(nan|inf)", re.IGNORECASE)
_AGREE = 0.02  # relative; the tolerance within which a level counts as native, too


@dataclass(frozen=True)
class GivenMpp:
    """A pixel size from the user: one slide's manifest row (overrides the file) or ``--mpp`` (fills a gap)."""

    value: float
    source: Literal["manifest", "option --mpp", "argument mpp"]


@dataclass(frozen=True)
class Calibration:
    """Microns per level-0 pixel, and who said so."""

    mpp: Mpp
    source: str


def calibrate(statements: tuple[MppStatement, ...], given: GivenMpp | None) -> Calibration:
    """Decide on a slide's microns per level-0 pixel.

    A manifest's value overrides the file. ``--mpp`` stands for a whole cohort, so it only fills in where a file
    says nothing usable; where it contradicts a file by more than 2 % nothing is assumed.

    Raises:
        SlideError: ``mpp_missing``, ``mpp_invalid`` or ``mpp_conflict``.
    """
    if given is not None:
        _check_given(given)
        if given.source == "manifest":
            return Calibration(Mpp(given.value, given.value), given.source)
    stated = _first_usable(statements)
    if given is None:
        return stated or _refuse(statements)
    if stated is None:
        return Calibration(Mpp(given.value, given.value), given.source)
    if abs(stated.mpp.mean / given.value - 1.0) > _AGREE:
        raise SlideError(
            "mpp_conflict",
            f"the file states {stated.mpp.mean:.4g} um/px ({stated.source}) but --mpp says {given.value:.4g}",
            "agreement within 2 %",
            "Drop --mpp to use the file's, or overrule this slide in the manifest's column mpp.",
        )
    return stated


def parse_mpp(text: str) -> float | None:
    """Microns per pixel from text, decimal comma accepted; None where it is no number in [0.05, 10].

    >>> parse_mpp("0,2528"), parse_mpp("40x"), parse_mpp("0")
    (0.2528, None, None)
    """
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and SMALLEST <= value <= LARGEST else None


def agree(statements: Sequence[MppStatement]) -> bool:
    """Whether all usable statements agree within 2 %, axis by axis; unusable ones agree with nothing."""
    values = [(parse_mpp(statement.x), parse_mpp(statement.y)) for statement in statements]
    xs, ys = [x for x, _ in values if x is not None], [y for _, y in values if y is not None]
    usable = len(xs) == len(ys) == len(values)
    return usable and all(max(axis, default=1.0) <= min(axis, default=1.0) * (1 + _AGREE) for axis in (xs, ys))


def _first_usable(statements: tuple[MppStatement, ...]) -> Calibration | None:
    for statement in statements:
        x, y = parse_mpp(statement.x), parse_mpp(statement.y)
        if x is not None and y is not None:
            return Calibration(Mpp(x, y), statement.source)
    return None


def _check_given(given: GivenMpp) -> None:
    if parse_mpp(str(given.value)) is None:
        raise SlideError(
            "mpp_invalid",
            f"{given.value} um/px from {given.source}",
            f"a number from {SMALLEST} to {LARGEST}",
            f"Correct {given.source}.",
        )


def _refuse(statements: tuple[MppStatement, ...]) -> Calibration:
    remedy = "Give the scanner's value with --mpp, or per slide in the manifest's column mpp."
    if not statements:
        raise SlideError("mpp_missing", "the file states no pixel size", "microns per pixel", remedy)
    said = "; ".join(f"{statement.source} = {_quoted(statement.x)}, {_quoted(statement.y)}" for statement in statements)
    raise SlideError("mpp_invalid", f"unusable pixel size {said}", f"{SMALLEST} to {LARGEST} um/px", remedy)


def _quoted(text: str) -> str:
    """A value of the file, for a message; what is no number is not told, since it may be anything, even a name."""
    return repr(text) if _NUMERIC.fullmatch(text) else "no number"
