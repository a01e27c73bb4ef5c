"""HDF5 files of arrays with attributes, published whole.

h5py empties a file it opens for writing before it learns that another process reads it, and a killed writer leaves
a file nobody can open: so every file is written beside and renamed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from wsi_lmc.publish import publishing

Attributes = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Dataset:
    """An array and what its file says of it."""

    values: np.ndarray
    attributes: Attributes = field(default_factory=dict)


def write_hdf5(out: Path, final: Path, datasets: Mapping[str, Dataset], about: Attributes | None = None) -> Path:
    """Write datasets to ``final``, below ``out``, and ``about`` as attributes of the file. Same input, same bytes."""
    with publishing(out, final) as draft, h5py.File(draft, "w") as file:
        for key, value in (about or {}).items():
            file.attrs[key] = value
        for name, dataset in datasets.items():
            stored = file.create_dataset(name, data=dataset.values, track_times=False)  # same bytes
            for key, value in dataset.attributes.items():
                stored.attrs[key] = value
    return final
