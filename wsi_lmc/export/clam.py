"""CLAM's folder of features: ``h5_files/<id>.h5``, ``pt_files/<id>.pt`` and a data set's ``dataset.csv``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from wsi_lmc.export.bags import Bag
from wsi_lmc.export.hdf5 import Dataset, write_hdf5
from wsi_lmc.publish import publish_text, publishing
from wsi_lmc.spreadsheets import to_csv

DATASET = "dataset.csv"


def write_clam(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's HDF5 file, and its features once more as the bare tensor that CLAM trains on."""
    datasets = {"features": Dataset(bag.features), "coords": Dataset(bag.origins.astype(np.int32))}
    bare = out / "pt_files" / f"{bag.slide_id}.pt"
    files = [write_hdf5(out, out / "h5_files" / f"{bag.slide_id}.h5", datasets), bare]
    with publishing(out, bare) as draft:
        torch.save(torch.from_numpy(bag.features), draft)
    return files


def write_dataset(slide_ids: Sequence[str], labels: Mapping[str, tuple[str, str]], out: Path) -> Path:
    """Write ``case_id,slide_id,label`` for slides of ``labels`` (slide id: patient, label).

    A slide of an unknown patient is a case of its own: CLAM stops at an empty ``case_id``.
    """
    rows = ((labels[slide_id][0] or slide_id, slide_id, labels[slide_id][1]) for slide_id in slide_ids)
    publish_text(out, out / DATASET, to_csv(("case_id", "slide_id", "label"), rows))
    return out / DATASET
