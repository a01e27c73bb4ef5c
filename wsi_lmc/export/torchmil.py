"""torchmil's folders ``features/``, ``coords/`` and ``labels/``, each with ``<id>.npy``.

``coords`` are columns and rows of the grid, so that neighbours lie 1 apart: torchmil's ``ProcessedMILDataset`` joins
tiles within 1.5 of each other by default, and would find none among level-0 or target pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_lmc.export.arrays import write_npy
from wsi_lmc.export.bags import Bag, Exported, Skipped
from wsi_lmc.export.tables import class_numbers, fit_to_train, write_classes


def write_torchmil(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's features (float32) and its tiles' columns and rows (int64)."""
    name = f"{bag.slide_id}.npy"
    return [
        write_npy(out, out / "features" / name, bag.features),
        write_npy(out, out / "coords" / name, bag.steps),
    ]


def finish_torchmil(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write each slide's label as a number, and which number stands for what into ``classes.csv``."""
    fit, skipped = fit_to_train(slides, "labels/")
    numbers = class_numbers(fit)
    files = [
        write_npy(out, out / "labels" / f"{slide.slide_id}.npy", np.array([numbers[slide.entry.label]], np.int64))
        for slide in fit
    ]
    return [*files, write_classes(out, numbers)] if fit else [], skipped
