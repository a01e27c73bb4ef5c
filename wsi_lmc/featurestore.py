"""Features of one slide on disk: a zarr v3 group, thousands of rows a chunk (one row a chunk reads ten times slower).

Arrays: ``features`` float16 or float32 (N, D), and ``origins``, ``tissue_fraction``, ``valid`` as in the tile store.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Float, Float32, Int32, UInt8

from wsi_lmc.tilestore import TileRows
from wsi_lmc.zarrio import Attributes, create_group, open_sealed, read_array, seal, write_array

SCHEMA = "wsi-lmc/features"
SCHEMA_VERSION = 1
ROWS_PER_CHUNK = 4096
IMPORTED = "imported"
"""Attribute of stores whose features another tool made: that tool. What nobody knows of these is None or left out."""
FEATURE_FILES = (".h5", ".hdf5", ".pt")
"""Names of files that features are imported from end so."""


def write_features(path: Path, features: Float[np.ndarray, "n d"], rows: TileRows, attributes: Attributes) -> None:
    """Write a complete store at ``path`` (which must not exist) and seal it with checksums."""
    group = create_group(path)
    write_array(group, "features", features, ROWS_PER_CHUNK)
    write_array(group, "origins", rows.origins)
    write_array(group, "tissue_fraction", rows.tissue_fraction)
    write_array(group, "valid", rows.valid)
    seal(path, {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **attributes})


@dataclass(frozen=True)
class FeatureStore:
    """Features of one slide, opened for reading."""

    path: Path
    attributes: Attributes
    group: zarr.Group

    @classmethod
    def open(cls, path: Path) -> "FeatureStore":
        """Open a published store.

        Raises:
            StoreError: nothing there, another schema or version, or an array is missing.
        """
        names = ("features", "origins", "tissue_fraction", "valid")
        group, attributes = open_sealed(path, SCHEMA, SCHEMA_VERSION, names)
        if "encoder" in attributes:  # the first stores do not say so, since there was no other way
            attributes["encoder"] = {"normalised": "none"} | attributes["encoder"]
        return cls(path, attributes, group)

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return str(self.attributes["slide"]["id"])

    def __len__(self) -> int:
        return int(cast("zarr.Array[Any]", self.group["features"]).shape[0])

    @property
    def width(self) -> int:
        """How many numbers the features of a tile are."""
        return int(cast("zarr.Array[Any]", self.group["features"]).shape[1])

    @cached_property
    def features(self) -> Float[np.ndarray, "n d"]:
        """One row a tile, float16 or float32 as stored."""
        return read_array(self.group, "features")

    @cached_property
    def origins(self) -> Int32[np.ndarray, "n 2"]:
        """x, y of each tile's top-left corner in level-0 pixels."""
        return read_array(self.group, "origins")

    @cached_property
    def tissue_fraction(self) -> Float32[np.ndarray, " n"]:
        """Share of each tile's area in the tissue mask, 0 to 1; NaN where the features were imported."""
        return read_array(self.group, "tissue_fraction")

    @cached_property
    def valid(self) -> UInt8[np.ndarray, " n"]:
        """A :class:`wsi_lmc.tilestore.Validity` for each tile."""
        return read_array(self.group, "valid")
