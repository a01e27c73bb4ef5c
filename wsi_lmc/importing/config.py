"""What may be stated of features that others made, where their files do not tell."""

from dataclasses import dataclass
from typing import Annotated

from annotated_doc import Doc

from wsi_lmc.errors import UsageError


@dataclass(frozen=True)
class ImportConfig:
    """What is known of the features beside their files."""

    encoder: Annotated[
        str | None, Doc("Encoder of the features: which of TRIDENT's folders features_NAME; CLAM's files name none.")
    ] = None
    mpp: Annotated[float | None, Doc("Microns per level-0 pixel of slides of which no file states any.")] = None
    patch_size: Annotated[
        int | None, Doc("Side of a patch in pixels of the level it was read at, where no file states it.")
    ] = None
    downsample: Annotated[
        float | None, Doc("Level-0 pixels in a pixel of that level, along either side; 1 for level 0.")
    ] = None

    def __post_init__(self) -> None:
        if (self.patch_size is None) != (self.downsample is None):
            found = "--downsample without --patch-size" if self.patch_size is None else "--patch-size alone"
            raise UsageError(found, "both, or neither", "Give --patch-size and --downsample (1 for level 0).")
        if (self.patch_size is not None and self.patch_size < 1) or (
            self.downsample is not None and self.downsample < 1
        ):
            found = f"patch_size = {self.patch_size}, downsample = {self.downsample}"
            raise UsageError(found, "1 or more each", "Correct them.")
