"""Plain files, one a slide, for whoever reads tensors or arrays, and a table of the slides.

TransMIL, DSMIL and their kin read ``<id>.pt``, a bare tensor (tiles, dimensions). ``<id>.npz`` holds all that is known
of a slide's tiles, for NumPy alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_lmc.export.arrays import write_npz, write_tensor
from wsi_lmc.export.bags import Bag, Exported, Skipped
from wsi_lmc.export.tables import write_rows

SLIDES = "slides.csv"


def write_transmil(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's features as a bare float32 tensor."""
    return [write_tensor(out, out / f"{bag.slide_id}.pt", bag.features)]


def write_arrays(bag: Bag, out: Path) -> list[Path]:
    """Write ``features`` (N, D), ``origins`` (N, 2; level-0 px), ``tissue_fraction`` (N), ``footprint`` (level-0 px).

    ``mpp`` is of level-0 pixels along x and y, ``tile_mpp`` and ``tile_px`` of the target.
    """
    arrays = {
        "features": bag.features,
        "origins": bag.origins,
        "tissue_fraction": bag.tissue_fraction,
        "footprint": np.asarray(bag.footprint, np.float64),
        "mpp": np.asarray(bag.attributes["slide"]["mpp"], np.float64),
        "tile_mpp": np.float64(bag.attributes["tile"]["mpp"]),
        "tile_px": np.int64(bag.px),
    }
    return [write_npz(out, out / f"{bag.slide_id}.npz", arrays)]


def finish_plain(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write ``slide_id,patient,site,label,tiles`` of every slide."""
    rows = ((s.slide_id, s.entry.patient, s.entry.site, s.entry.label, s.tiles) for s in slides)
    return [write_rows(out, out / SLIDES, ("slide_id", "patient", "site", "label", "tiles"), rows)], []
