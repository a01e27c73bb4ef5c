"""How images become tiles."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_doc import Doc

from wsi_lmc.errors import UsageError
from wsi_lmc.units import NOMINAL

SAME_MPP = 0.02
"""Pixel sizes that differ by no more, relatively, count as one."""
_SMALLEST, _LARGEST = 0.05, 10.0


@dataclass(frozen=True)
class PackConfig:
    """How images become tiles."""

    tile_px: Annotated[int, Doc("Side of a tile, in pixels.")] = 256
    tile_mpp: Annotated[
        float | None, Doc("Microns per pixel that images are reduced to, by means over area; by default they stay.")
    ] = None
    fit: Annotated[bool, Doc("Reduce each image until its shorter side has tile_px pixels.")] = False
    enlarge: Annotated[bool, Doc("Let --tile-mpp and --fit enlarge images, too (bicubic): no detail comes of it.")] = (
        False
    )
    crop: Annotated[
        Literal["grid", "centre"], Doc("Of larger images: all whole tiles side by side, or the one in the middle.")
    ] = "grid"
    codec: Annotated[Literal["lossless", "jpeg"], Doc("How tiles are stored; jpeg: quality 95, not subsampled.")] = (
        "lossless"
    )
    mpp: Annotated[float | None, Doc("Microns per pixel of images for which the manifest states none.")] = None
    nominal_mpp: Annotated[
        float | None, Doc("Stands for the microns per pixel where nobody knows them; recorded as nominal.")
    ] = None

    def __post_init__(self) -> None:
        sizes = [size for size in (self.tile_mpp, self.mpp, self.nominal_mpp) if size is not None]
        if self.tile_px < 1 or not all(_SMALLEST <= size <= _LARGEST for size in sizes):
            found = f"tile_px = {self.tile_px}, microns per pixel = {', '.join(map(str, sizes)) or 'none'}"
            raise UsageError(found, f"1 or more, and {_SMALLEST} to {_LARGEST}", "Correct them.")
        if self.fit and self.tile_mpp is not None:
            raise UsageError("both --fit and --tile-mpp", "one of them", "Leave one out.")
        if self.mpp is not None and self.nominal_mpp is not None:
            raise UsageError("both --mpp and --nominal-mpp", "one of them", "Leave one out: it is known, or it is not.")

    def mpp_of(self, stated: float | None) -> tuple[float, str] | None:
        """An image's microns per pixel and who says so; ``stated`` is what the manifest does. None: nobody does."""
        stand_in = f"{NOMINAL} (option --nominal-mpp)"
        said = ((stated, "manifest"), (self.mpp, "option --mpp"), (self.nominal_mpp, stand_in))
        return next(((value, source) for value, source in said if value is not None), None)
