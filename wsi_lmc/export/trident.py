"""TRIDENT's folder of one patching, which Patho-Bench and TITAN read, too.

``<mag>x_<px>px_<overlap>px_overlap/patches/<id>_patches.h5`` holds the coordinates, and
``…/features_<encoder>/<id>.h5`` the features with the same coordinates. TRIDENT speaks of magnifications where this
package speaks of microns per pixel, so both stand in the attributes: ``mpp`` is the true one.
"""

from pathlib import Path

import numpy as np

from wsi_lmc.export.bags import Bag, geometric_mean
from wsi_lmc.export.hdf5 import Dataset, write_hdf5

_CONVENTIONAL = (80, 60, 40, 20, 10, 5, 2.5, 1.25)
_TOLERANCE = 0.02  # a slide's level within 2 % of the wanted mpp is read as it is: then both have one name here, too


def magnification(mpp: float) -> int | float:
    """Objective that ``mpp`` (microns per pixel) is called after: 10 / mpp, a conventional one where it is within 2 %.

    Elsewhere the nearest whole number, so that 0.265 um is 38, and not 40 as in TRIDENT, whose tiles would then be
    6 % too large.

    >>> magnification(0.2528), magnification(0.5), magnification(0.265)
    (40, 20, 38)
    """
    exact = 10.0 / mpp
    nearest = min(_CONVENTIONAL, key=lambda value: abs(exact / value - 1.0))
    return nearest if abs(exact / nearest - 1.0) <= _TOLERANCE else max(1, round(exact))


def write_trident(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's coordinate file and feature file below ``out``."""
    tile, encoder = bag.attributes["tile"], bag.encoder
    folder = out / f"{magnification(tile['mpp']):g}x_{tile['px']}px_{_overlap(bag)}px_overlap"
    coords = Dataset(bag.origins.astype(np.int64), _describe(bag))
    about = {"name": bag.slide_id, "savetodir": "", "encoder": encoder}
    patches, features = folder / "patches", folder / f"features_{encoder}"
    return [
        write_hdf5(out, patches / f"{bag.slide_id}_patches.h5", {"coords": coords}),
        write_hdf5(out, features / f"{bag.slide_id}.h5", {"features": Dataset(bag.features, about), "coords": coords}),
    ]


def _describe(bag: Bag) -> dict[str, str | int | float]:
    """Attributes of ``coords``; sizes in level-0 pixels but ``patch_size`` and ``overlap`` in target pixels.

    TRIDENT knows square patches only: of a slide with oblong pixels, the side of the square of equal area is given.
    """
    slide, tile = bag.attributes["slide"], bag.attributes["tile"]
    known = [name for name in ("width", "height") if name in slide]  # not of all features that were imported
    return {
        "patch_size": int(tile["px"]),
        "patch_size_level0": round(geometric_mean(tile["footprint"])),
        "level0_magnification": magnification(geometric_mean(slide["mpp"])),
        "target_magnification": magnification(tile["mpp"]),
        "overlap": _overlap(bag),
        "name": bag.slide_id,
        "savetodir": "",
        **{f"level0_{name}": int(slide[name]) for name in known},
        "mpp": geometric_mean(tile["effective_mpp"]),
    }


def _overlap(bag: Bag) -> int:
    """Target pixels that neighbouring tiles share; 0 where they lie apart."""
    tile = bag.attributes["tile"]
    return max(0, int(tile["px"]) - int(tile["stride"]))
