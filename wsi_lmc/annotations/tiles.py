"""One label a tile, from outlines or points."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_doc import Doc
from jaxtyping import Float64, Int32

from wsi_lmc.errors import UsageError

NORMAL, TUMOUR = "normal", "tumor"
"""Spelt as the data sets spell them."""


@dataclass(frozen=True)
class ShareLimits:
    """When a tile is tumour, and when it is normal; between the two it has no label."""

    least_tumour: Annotated[float, Doc("A tile is tumour from this share of its area inside the lesions on.")] = 0.5
    most_tumour_in_normal: Annotated[float, Doc("A tile is normal up to this share; between the two it is unused.")] = (
        0.0
    )

    def __post_init__(self) -> None:
        if not 0 <= self.most_tumour_in_normal < self.least_tumour <= 1:
            found = f"least_tumour = {self.least_tumour}, most_tumour_in_normal = {self.most_tumour_in_normal}"
            raise UsageError(found, "0 <= most_tumour_in_normal < least_tumour <= 1", "Correct them.")


def lesion_labels(shares: Float64[np.ndarray, " n"], limits: ShareLimits) -> list[str]:
    """``tumor``, ``normal`` or nothing for each tile, by the share of its area inside lesions."""
    return [
        TUMOUR if share >= limits.least_tumour else NORMAL if share <= limits.most_tumour_in_normal else ""
        for share in shares.tolist()
    ]


def centred_on(
    centres: Float64[np.ndarray, "n 2"], footprint: tuple[float, float], size: tuple[int, int]
) -> Int32[np.ndarray, "n 2"]:
    """Top-left corners of tiles around points, moved inside the image where they would leave it.

    Args:
        centres: x, y in level-0 pixels.
        footprint: width and height of a tile in level-0 pixels.
        size: width and height of the image.

    Raises:
        UsageError: the image is smaller than a tile.
    """
    room = np.asarray(size) - np.ceil(footprint)
    if room.min() < 0:
        found = f"an image of {size[0]} x {size[1]} pixels"
        raise UsageError(found, f"{footprint[0]:g} x {footprint[1]:g} at least", "Choose smaller tiles.")
    return np.clip(np.rint(centres - np.asarray(footprint) / 2), 0, room).astype(np.int32)
