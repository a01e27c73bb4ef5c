"""STAMP 2's features: ``<id>.h5`` with coordinates in microns, a clinical table and a slide table.

STAMP refuses files of a newer version than its own, so the oldest that reads this layout is named.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_lmc.export.bags import Bag, Exported, Skipped
from wsi_lmc.export.hdf5 import Dataset, write_hdf5
from wsi_lmc.export.tables import fit_to_train, patient_of, write_rows

VERSION = "2.1.0"
CLINICAL, SLIDES = "clini.csv", "slide.csv"


def write_stamp(bag: Bag, out: Path) -> list[Path]:
    """Write ``feats`` (float16) and ``coords`` (float32, microns from the slide's corner to the tile's).

    Features that no float16 holds stay float32, which STAMP reads as well: as float16 they would become infinite.
    """
    small = float(np.abs(bag.features).max(initial=0.0)) <= float(np.finfo(np.float16).max)
    datasets = {
        "feats": Dataset(bag.features.astype(np.float16) if small else bag.features),
        "coords": Dataset(bag.microns.astype(np.float32)),
    }
    about = {
        "stamp_version": VERSION,
        "extractor": bag.encoder,
        "unit": "um",
        "tile_size_um": bag.tile_um,
        "tile_size_px": bag.px,
        "feat_type": "tile",
        "code_hash": str(bag.attributes["encoder"]["sha256"])[:8],
    }
    return [write_hdf5(out, out / f"{bag.slide_id}.h5", datasets, about)]


def finish_stamp(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write ``PATIENT,label``, a row a patient as STAMP insists, and ``PATIENT,FILENAME``, a row a slide.

    Patients whose slides have different labels are left out of both: STAMP knows one label a patient.
    """
    fit, skipped = fit_to_train(slides, f"{CLINICAL} and {SLIDES}")
    if not fit and not skipped:
        return [], []
    labels: dict[str, set[str]] = defaultdict(set)
    for slide in fit:
        labels[patient_of(slide)].add(slide.entry.label)
    agreed = {patient: next(iter(found)) for patient, found in labels.items() if len(found) == 1}
    kept = [slide for slide in fit if patient_of(slide) in agreed]
    skipped += [
        Skipped(slide.slide_id, f"its patient's slides have several labels: features written, no row in {CLINICAL}")
        for slide in fit
        if patient_of(slide) not in agreed
    ]
    of_slides = ((patient_of(slide), f"{slide.slide_id}.h5") for slide in kept)
    return [
        write_rows(out, out / CLINICAL, ("PATIENT", "label"), sorted(agreed.items())),
        write_rows(out, out / SLIDES, ("PATIENT", "FILENAME"), of_slides),
    ], skipped
