"""What cutting slides takes, reckoned before it is done: bytes of stores, and hours.

Times are ratios to libjpeg-turbo decoding a JPEG tile of 256 px, as measured in docs/speed.md ("What plan reckons
with"); that decoding is timed on this machine, now, so only the ratios are another machine's.
"""

import time
from dataclasses import dataclass
from functools import cache

import cv2
import imagecodecs
import numpy as np
from jaxtyping import UInt8

from wsi_lmc.slide import decode_jpeg
from wsi_lmc.steps.audit import Cutting
from wsi_lmc.tilestore import StoredCodec

TILE_PX = 256 * 256
_LOSSLESS, _JPEG, _JPEG_REDUCED = 185_000, 45_000, 65_000
"""Bytes of a tile of 256 px of real tissue, which compresses worse than anything drawn; reduced, it is sharper."""
EMBEDDED_PER_S = 93.0  # tiles: the network of the paper, OpenVINO in bfloat16, two cores
_READ = {"no": 1.15, "dct": 1.05, "area": 1.6}
_READ_BY_LIBRARY = 6.7  # OpenSlide or tiffslide, a tile at a time
_STORE: dict[StoredCodec, float] = {"kept": 0.33, "lossless": 1.2, "jpeg": 2.6}
_PUBLISH_S = 0.1  # a slide: checksums, fsync, outline, overview
_TIMED = 200  # decodings in all, of which the fastest run counts: others work on this machine, too
_RUNS = 5


@dataclass(frozen=True)
class Machine:
    """``decode_s`` is what one core takes to decode a JPEG tile of 256 px, ``cores`` how many work."""

    decode_s: float
    cores: int

    @property
    def said(self) -> str:
        """The measurement in words."""
        return f"{1 / self.decode_s:,.0f} JPEG tiles a second and core on this machine"


def measure(cores: int) -> Machine:
    """Time this machine; takes a tenth of a second."""
    jpeg = sample_jpeg()
    pixels = np.empty((256, 256, 3), np.uint8)
    fastest = float("inf")
    for _ in range(_RUNS):
        began = time.perf_counter()
        for _ in range(_TIMED // _RUNS):
            decode_jpeg(jpeg, pixels)
        fastest = min(fastest, (time.perf_counter() - began) / (_TIMED // _RUNS))
    return Machine(fastest, cores)


def store_bytes(cutting: Cutting, tiles: int) -> int:
    """Bytes of a slide's tile store: exact but for metadata where JPEG bytes are kept, else those of real tissue."""
    if cutting.stored == "kept":
        return cutting.kept_bytes
    jpeg = _JPEG if cutting.reduction == "no" else _JPEG_REDUCED
    each = _LOSSLESS if cutting.stored == "lossless" else jpeg
    return round(tiles * cutting.tile_px / TILE_PX * each)


def core_seconds(cutting: Cutting, tiles: int, opened_s: float, machine: Machine) -> float:
    """Seconds that one core takes to cut a slide; ``opened_s`` is what opening it and its overview have taken."""
    store = cutting.tile_px / TILE_PX * _STORE[cutting.stored]
    by = _READ[cutting.reduction] if cutting.decoded else _READ_BY_LIBRARY
    read = 0.0 if cutting.stored == "kept" else cutting.level_px / TILE_PX * by
    return opened_s + _PUBLISH_S + tiles * (read + store) * machine.decode_s


@cache
def sample_jpeg() -> bytes:
    """A JPEG of 256 px with as many bytes as one of tissue has (15 kB), drawn here: it takes as long to decode."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 1, (256, 256, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), 1.5)
    pixels: UInt8[np.ndarray, "y x 3"] = np.clip(190 + 20 * soft / soft.std() + 2 * grain, 0, 255).astype(np.uint8)
    return bytes(imagecodecs.jpeg8_encode(pixels, level=80, subsampling="420"))
