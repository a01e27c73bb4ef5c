"""Folders as TRIDENT and CLAM write them, by h5py and torch alone: asymmetric slides, what their own code stores."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from wsi_lmc.executor import SerialExecutor
from wsi_lmc.importing import ImportConfig, ImportInputs, Layout, find_imports, import_cohort
from wsi_lmc.run import RunOptions
from wsi_lmc.steps.outcome import Outcome

DIM = 5
WIDTH, HEIGHT = 20_011, 13_007
TRIDENT = "20x_256px_0px_overlap"


def bag(count: int, seed: int = 0, side: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Features and the corners of their patches, whose steps along x and y cannot be swapped."""
    features = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    places = np.arange(count)
    coords = np.stack([places % 6 * side + 4_003, places // 6 * side + 301], axis=1).astype(np.int64)
    return features, coords


def write(path: Path, attributes: dict[str, dict[str, Any]] | None = None, **datasets: np.ndarray) -> Path:
    """An HDF5 file of datasets in chunks of single rows, as TRIDENT's are; attributes by dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            growing = {"chunks": (1, *values.shape[1:]), "maxshape": (None, *values.shape[1:])} if values.size else {}
            stored = file.create_dataset(name, data=values, **growing)
            for key, value in (attributes or {}).get(name, {}).items():
                stored.attrs[key] = value
    return path


def stored(path: Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """A dataset and its attributes, by nothing but h5py."""
    with h5py.File(path) as file:
        found = file[name]
        assert isinstance(found, h5py.Dataset)
        return np.asarray(found[()]), dict(found.attrs)


def about_trident(**changes: Any) -> dict[str, Any]:
    """Attributes of coordinates as TRIDENT writes them (a value of None leaves one out): no pixel size among them."""
    stated = {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "name": "Mueller_Hans", "savetodir": "/home/mueller/slides", "level0_width": WIDTH,
        "level0_height": HEIGHT,
    }  # fmt: skip
    return {name: value for name, value in (stated | changes).items() if value is not None}


def about_clam(**changes: Any) -> dict[str, Any]:
    """Attributes of coordinates as CLAM's create_patches_fp.py writes them."""
    sides = (WIDTH // 2, HEIGHT // 2)
    stated = {
        "patch_size": 256, "patch_level": 1, "downsample": (2.0, 2.0), "downsampled_level_dim": sides,
        "level_dim": sides, "name": "Mueller_Hans", "save_path": "/home/mueller/patches",
    }  # fmt: skip
    return {name: value for name, value in (stated | changes).items() if value is not None}


def trident_slide(
    job: Path, slide_id: str, count: int = 13, seed: int = 0, encoder: str = "uni_v1", **changes: Any
) -> tuple[np.ndarray, np.ndarray]:
    """One slide in TRIDENT's folder; returns features and coordinates."""
    features, coords = bag(count, seed)
    about = about_trident(**changes)
    write(job / TRIDENT / "patches" / f"{slide_id}_patches.h5", {"coords": about}, coords=coords)
    named = {"name": slide_id, "savetodir": "/home/mueller/slides", "encoder": encoder}
    path = job / TRIDENT / f"features_{encoder}" / f"{slide_id}.h5"
    write(path, {"features": named, "coords": about}, features=features, coords=coords)
    return features, coords


def clam_slide(
    folder: Path, slide_id: str, count: int = 13, seed: int = 0, patches: bool = True, **changes: Any
) -> tuple[np.ndarray, np.ndarray]:
    """One slide in CLAM's folder, with its file of patches beside; returns features and coordinates."""
    features, coords = bag(count, seed)
    if patches:
        write(folder / "patches" / f"{slide_id}.h5", {"coords": about_clam(**changes)}, coords=coords)
    write(folder / "h5_files" / f"{slide_id}.h5", features=features, coords=coords.astype(np.int32))
    (folder / "pt_files").mkdir(exist_ok=True)
    torch.save(torch.from_numpy(features), folder / "pt_files" / f"{slide_id}.pt")
    return features, coords


def importing(folder: Path, layout: Layout, out: Path, overwrite: bool = False, **stated: Any) -> dict[str, Outcome]:
    """Import a folder in this process; ``stated`` are settings, and ``patches`` and ``manifest``."""
    places = {name: stated.pop(name, None) for name in ("patches", "manifest")}
    config = ImportConfig(**stated)
    found, _ = find_imports(ImportInputs(layout, folder, config.encoder, **places))
    options = RunOptions(SerialExecutor(), overwrite=overwrite)
    return {outcome.slide_id: outcome for outcome in import_cohort(found, layout, out, config, options)}
