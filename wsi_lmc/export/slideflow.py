"""slideflow's bags: ``<id>.pt``, ``<id>.index.npz`` and ``bags_config.json``."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_lmc.cohort import safe_id
from wsi_lmc.export.arrays import write_npz, write_tensor
from wsi_lmc.export.bags import Bag, Exported, Skipped, geometric_mean
from wsi_lmc.export.tables import fit_to_train, patient_of, write_rows
from wsi_lmc.publish import publish_text

CONFIG, ANNOTATIONS = "bags_config.json", "annotations.csv"


def write_slideflow(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's features, and its tiles' centres in level-0 pixels, which slideflow calls their locations."""
    centres = np.rint(bag.centres).astype(np.int64)
    return [
        write_tensor(out, out / f"{bag.slide_id}.pt", bag.features),
        write_npz(out, out / f"{bag.slide_id}.index.npz", {"arr_0": centres}),
    ]


def finish_slideflow(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write what the bags were made with, and slideflow's table ``patient,slide,category`` where there are labels."""
    files = [_write_config(slides[0], out)] if slides else []
    fit, skipped = fit_to_train(slides, ANNOTATIONS)
    if fit:
        rows = ((patient_of(slide), slide.slide_id, slide.entry.label) for slide in fit)
        files.append(write_rows(out, out / ANNOTATIONS, ("patient", "slide", "category"), rows))
    return files, skipped


def _write_config(slide: Exported, out: Path) -> Path:
    tile, encoder = slide.attributes["tile"], slide.attributes["encoder"]
    about = {
        "extractor": {"class": safe_id(str(encoder["name"])), "kwargs": {}},
        "normalizer": None,
        "num_features": slide.dim,
        "tile_px": int(tile["px"]),
        "tile_um": int(tile["px"]) * geometric_mean(tile["effective_mpp"]),
    }
    publish_text(out, out / CONFIG, json.dumps(about, indent=2) + "\n")
    return out / CONFIG
