"""One slide's features as another tool left them: which files there are, and what was read of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int32

from wsi_lmc.slide import MppStatement
from wsi_lmc.units import SlideSize

Layout = Literal["trident", "clam"]


@dataclass(frozen=True)
class Files:
    """Files of one slide: its features, and coordinates in a file of their own, where there is one.

    ``folders`` are those that were named by the user: no file may lead out of them.
    """

    features: Path
    coordinates: Path | None
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Patches:
    """What patches are: ``px`` and ``stride`` in target pixels, ``footprint`` (width, height) in level-0 pixels.

    ``stride``, ``level``, ``size`` (of the slide) and ``mpp`` (microns per target pixel) are None where nothing states
    them. Target pixels are those the patches were cut with; what an encoder made of these is not known.
    """

    px: int
    footprint: tuple[float, float]
    stride: int | None = None
    level: int | None = None
    size: SlideSize | None = None
    mpp: float | None = None

    def statements(self, source: str) -> tuple[MppStatement, ...]:
        """What the files say of the slide's own pixels, at level 0; nothing where they state no microns."""
        if self.mpp is None:
            return ()
        x, y = (self.mpp * self.px / side for side in self.footprint)
        return (MppStatement(source, repr(x), repr(y)),)


@dataclass(frozen=True)
class Foreign:
    """Features float16 or float32 of N patches, ``origins`` x, y of their top-left corners in level-0 pixels."""

    features: Float[np.ndarray, "n d"]
    origins: Int32[np.ndarray, "n 2"]
    patches: Patches
