"""Keywords about slides and tiles: the command line's flags of the same names, whose help says what each one is.

Type checkers and editors complete them from here; what they do and what their defaults are stands with their owners
(:class:`wsi_lmc.grid.GridConfig` and the like), and a test compares the two. Lengths ending in ``_um`` are in microns,
areas ending in ``_um2`` in square microns, ``_px`` in target pixels, ``mpp`` in microns per pixel.
"""

from typing import Literal, TypedDict

from wsi_lmc.slide import ReaderName, Resample
from wsi_lmc.tilestore import Codec


class TissueSettings(TypedDict, total=False):
    """How tissue is told from glass, see :class:`wsi_lmc.tissue.TissueConfig`."""

    overview_mpp: float
    smooth_um: float
    min_object_um2: float
    min_hole_um2: float
    lowest_threshold: int
    highest_threshold: int


class GridSettings(TypedDict, total=False):
    """Which tiles are cut, see :class:`wsi_lmc.grid.GridConfig`."""

    tile_px: int
    tile_mpp: float
    stride: int | None
    min_tissue: float
    edge: Literal["drop", "pad"]
    max_tiles: int
    max_gigapixels: float


class TileSettings(GridSettings, TissueSettings, total=False):
    """How slides become tiles, see :class:`wsi_lmc.steps.tile.TileConfig`."""

    mpp: float | None
    reader: ReaderName
    resample: Resample
    codec: Codec
