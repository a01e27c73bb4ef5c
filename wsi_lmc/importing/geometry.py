"""What patches are, by the attributes of their coordinates: TRIDENT's own, CLAM's, or stated by the user."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32

from wsi_lmc.errors import SlideError
from wsi_lmc.importing.config import ImportConfig
from wsi_lmc.importing.foreign import Patches
from wsi_lmc.units import SlideSize

ATTRIBUTES = (
    "patch_size", "patch_size_level0", "overlap", "level0_width", "level0_height", "mpp",
    "patch_level", "downsample", "level_dim", "custom_downsample",
)  # fmt: skip
"""What is looked at; all else that stands beside the coordinates (names, folders) is not even read."""
Stated = Mapping[str, tuple[float, ...]]
_AGREE = 0.02


def patches_of(stated: Stated) -> Patches | None:
    """What attributes say, TRIDENT's or CLAM's; None where they say nothing of the patches' size.

    Raises:
        SlideError: ``unsupported`` or ``damaged``: they say too little, or what cannot be.
    """
    px = _one(stated, "patch_size")
    if px is None:
        return None
    if px < 1 or px != int(px):
        raise SlideError("damaged", f"patch_size {px:g}", "whole pixels, 1 at least", "Make this file again.")
    footprint = _one(stated, "patch_size_level0")
    if footprint is None:
        return _of_level(int(px), stated)
    if footprint < 1:
        raise SlideError("damaged", f"patch_size_level0 {footprint:g}", "1 or more", "Make this file again.")
    overlap, width, height = (_one(stated, name) for name in ("overlap", "level0_width", "level0_height"))
    stride = int(px - overlap) if overlap is not None and 0 <= overlap < px else None
    size = SlideSize(int(width), int(height)) if width and height and min(width, height) >= 1 else None
    return Patches(int(px), (footprint, footprint), stride, None, size, _one(stated, "mpp"))


def stated_patches(config: ImportConfig) -> Patches | None:
    """What the user says of patches; None where nothing is said."""
    if config.patch_size is None or config.downsample is None:
        return None
    side = config.patch_size * config.downsample
    return Patches(config.patch_size, (side, side))


def agreed(found: Patches | None, given: Patches | None) -> Patches:
    """The files' own statement, or the user's where they make none.

    Raises:
        SlideError: ``unsupported`` (neither says anything) or ``mpp_conflict`` (they say different things).
    """
    if found is None and given is None:
        raise SlideError(
            "unsupported",
            "coordinates that do not say how large their patches are",
            "attributes patch_size and patch_level or patch_size_level0, in this file or the one of the patches",
            "Name the folder of the patches' files with --patches, or give --patch-size and --downsample.",
        )
    if found is not None and given is not None and not _same(found, given):
        raise SlideError(
            "mpp_conflict",
            f"the file states patches of {found.px} px over {found.footprint[0]:g} level-0 pixels, "
            f"but the options say {given.px} px over {given.footprint[0]:g}",
            "one size",
            "Drop --patch-size and --downsample to use the file's, or find out which is right.",
        )
    chosen = found or given
    assert chosen is not None  # noqa: S101  one of them is there
    return chosen


def measured_stride(origins: Int32[np.ndarray, "n 2"], patches: Patches) -> int:
    """Step from patch to patch in target pixels, by the most frequent step along x; ``px`` where none overlap."""
    order = np.lexsort((origins[:, 0], origins[:, 1]))
    rows = origins[order].astype(np.int64)
    steps = np.diff(rows[:, 0])[(np.diff(rows[:, 1]) == 0)]
    steps = steps[steps > 0]
    if not len(steps):
        return patches.px
    values, counts = np.unique(steps, return_counts=True)
    step = float(values[counts.argmax()]) * patches.px / patches.footprint[0]
    return min(patches.px, max(1, round(step)))


def _of_level(px: int, stated: Stated) -> Patches:
    """Patches of one level of a slide, as CLAM reads them: ``px`` pixels of that level a side."""
    level, downsample = _one(stated, "patch_level"), stated.get("downsample")
    custom = _one(stated, "custom_downsample")
    if custom not in (None, 1.0):
        raise SlideError(
            "unsupported",
            f"patches of a custom_downsample of {custom:g}",
            "patches of a level as it is",
            "Cut them again without it.",
        )
    if level == 0 and downsample is None:
        downsample = (1.0, 1.0)
    if downsample is None or min(downsample) < 1:
        raise SlideError(
            "unsupported",
            "patches of a level whose downsample is not stated",
            "an attribute downsample",
            "Give --patches, the folder of CLAM's own files of patches.",
        )
    x, y = downsample if len(downsample) == 2 else downsample * 2
    sides = stated.get("level_dim")
    size = None
    if sides is not None and len(sides) == 2 and min(sides) >= 1:
        size = SlideSize(round(sides[0] * x), round(sides[1] * y))
    return Patches(px, (px * x, px * y), None, None if level is None else int(level), size)


def _one(stated: Stated, name: str) -> float | None:
    values = stated.get(name)
    return values[0] if values is not None and len(values) == 1 else None


def _same(found: Patches, given: Patches) -> bool:
    sides = zip(found.footprint, given.footprint, strict=True)
    return found.px == given.px and all(abs(one / other - 1.0) <= _AGREE for one, other in sides)
