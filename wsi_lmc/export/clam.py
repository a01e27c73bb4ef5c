"""CLAM's folder of features: ``h5_files/<id>.h5``, ``pt_files/<id>.pt`` and a data set's ``dataset.csv``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_lmc.export.arrays import write_tensor
from wsi_lmc.export.bags import Bag, Exported, Skipped
from wsi_lmc.export.hdf5 import Dataset, write_hdf5
from wsi_lmc.export.tables import fit_to_train, patient_of, write_rows

DATASET = "dataset.csv"


def write_clam(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's HDF5 file, and its features once more as the bare tensor that CLAM trains on."""
    datasets = {"features": Dataset(bag.features), "coords": Dataset(bag.origins.astype(np.int32))}
    return [
        write_hdf5(out, out / "h5_files" / f"{bag.slide_id}.h5", datasets),
        write_tensor(out, out / "pt_files" / f"{bag.slide_id}.pt", bag.features),
    ]


def finish_clam(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write ``case_id,slide_id,label``; CLAM stops at an empty ``case_id``, at slides without tiles and at no label."""
    fit, skipped = fit_to_train(slides, DATASET)
    if not fit and not skipped:
        return [], []
    rows = ((patient_of(slide), slide.slide_id, slide.entry.label) for slide in fit)
    return [write_rows(out, out / DATASET, ("case_id", "slide_id", "label"), rows)], skipped
