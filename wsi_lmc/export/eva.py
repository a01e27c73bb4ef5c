"""eva's embeddings of slides: ``embeddings/<id>.pt`` and ``manifest.csv``."""

from collections.abc import Sequence
from pathlib import Path

from wsi_lmc.export.arrays import write_tensor
from wsi_lmc.export.bags import Bag, Exported, Skipped
from wsi_lmc.export.tables import class_numbers, fit_to_train, write_classes, write_rows

MANIFEST = "manifest.csv"
_COLUMNS = ("origin", "embeddings", "target", "split", "wsi_id")


def write_eva(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's features as a tensor (tiles, dimensions)."""
    return [write_tensor(out, out / "embeddings" / f"{bag.slide_id}.pt", bag.features)]


def finish_eva(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write the manifest, and which number of ``target`` stands for what.

    Column ``split`` is the user's to fill in: patients and sites must be on one side, which no rule here could know.
    eva reads all rows where its configuration names no split.
    """
    fit, skipped = fit_to_train(slides, MANIFEST)
    if not fit:
        return [], skipped
    numbers = class_numbers(fit)
    rows = (
        (slide.slide_id, f"embeddings/{slide.slide_id}.pt", numbers[slide.entry.label], "", slide.slide_id)
        for slide in fit
    )
    return [write_rows(out, out / MANIFEST, _COLUMNS, rows), write_classes(out, numbers)], skipped
