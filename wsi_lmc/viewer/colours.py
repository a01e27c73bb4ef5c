"""Colours of values, which people with any colour vision can tell apart, and what says what they mean.

Numbers are shown in cividis (Nunez, Anderton, Renslow 2018: the same order of brightness to everybody), classes in the
eight colours of Okabe and Ito (2008). Three numbers at once become lightness, blue against yellow and green against
red, in this order, so that without red and green the first two can still be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import matplotlib
import numpy as np
from jaxtyping import Float, Int64, UInt8

OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
KEPT, REJECTED, UNREADABLE, PADDED = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[7], OKABE_ITO[4]
_STOPS = 9  # colours of a legend's strip
_SOLID = 255


@dataclass(frozen=True)
class Legend:
    """What colours mean: of a scale from ``low`` to ``high``, or of classes (name, colour, how many); a sentence."""

    title: str
    note: str
    low: float | None = None
    high: float | None = None
    classes: tuple[tuple[str, str, int], ...] = ()

    def document(self) -> dict[str, Any]:
        """As the page takes it."""
        classes = [{"name": name, "colour": colour, "count": count} for name, colour, count in self.classes]
        scale = None
        if self.low is not None and self.high is not None:
            scale = {"low": self.low, "high": self.high, "colours": [_hex(colour) for colour in _strip()]}
        return {"title": self.title, "note": self.note, "scale": scale, "classes": classes}


def by_value(values: Float[np.ndarray, " n"], low: float, high: float) -> UInt8[np.ndarray, "n 4"]:
    """Colours of numbers on a scale; what lies beyond its ends has the colour of that end, what is no number none."""
    there = np.isfinite(values)
    share = np.clip((np.where(there, values, low) - low) / max(high - low, 1e-12), 0.0, 1.0)
    colours = _cividis()[np.rint(share * 255).astype(np.int64)]
    colours[~there] = 0
    return colours


def by_class(numbers: Int64[np.ndarray, " n"], colours: Sequence[str]) -> UInt8[np.ndarray, "n 4"]:
    """Colours of classes; a negative number has none."""
    table = np.asarray([*map(_rgba, colours), (0, 0, 0, 0)], np.uint8)
    return table[np.where(numbers < 0, len(colours), numbers)]


def by_three(shares: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 4"]:
    """Colours of three numbers from 0 to 1: lightness, blue to yellow, green to red (CIELAB)."""
    inside = np.clip(shares, 0.0, 1.0)
    lab = np.empty((len(inside), 1, 3), np.float32)
    lab[:, 0, 0] = 30 + 60 * inside[:, 0]
    lab[:, 0, 1] = 90 * inside[:, 2] - 45
    lab[:, 0, 2] = 120 * inside[:, 1] - 60
    colours = np.full((len(inside), 4), _SOLID, np.uint8)
    if len(inside):
        colours[:, :3] = np.rint(np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1)[:, 0] * 255)
    return colours


def to_png(picture: UInt8[np.ndarray, "rows columns 4"]) -> bytes:
    """A picture of red, green, blue and opacity as PNG."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))[1].tobytes()


@cache
def _cividis() -> UInt8[np.ndarray, "256 4"]:
    scale = matplotlib.colormaps["cividis"]
    return np.asarray(scale(np.arange(256), bytes=True), np.uint8)


def _strip() -> UInt8[np.ndarray, "stops 4"]:
    return _cividis()[np.linspace(0, 255, _STOPS).astype(np.int64)]


def _hex(colour: UInt8[np.ndarray, " 4"]) -> str:
    red, green, blue, _ = colour.tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _rgba(colour: str) -> tuple[int, int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), _SOLID
