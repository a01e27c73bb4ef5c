"""From feature stores to another tool's folder, slide by slide."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_lmc.errors import StoreError
from wsi_lmc.export.bags import ExportResult, Skipped, check_stores, load_bag
from wsi_lmc.export.clam import DATASET, write_clam, write_dataset
from wsi_lmc.export.trident import write_trident
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.publish import TEMPORARY, prepare_output

Target = Literal["trident", "clam"]
Labels = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class _Written:
    """What is remembered of a slide once its features have left the memory."""

    slide_id: str
    tiles: int
    dropped: int


def export_features(
    stores: Sequence[FeatureStore], to: Target, out: Path, labels: Labels | None = None
) -> ExportResult:
    """Write every slide's features below ``out`` as TRIDENT or CLAM would have; files that were there are replaced.

    Features become float32; unreadable tiles are left out; a slide without tiles gets arrays of shape (0, D).

    Args:
        stores: of one tiling and one encoder.
        to: whose layout.
        out: folder to write to, created where it is missing.
        labels: (patient, label) by slide id, for CLAM's ``dataset.csv``; where no slide has a label there is none.

    Returns:
        What was written, and which slides are missing where: damaged stores everywhere, and slides without a label
        or without tiles in ``dataset.csv`` (CLAM cannot train on either).

    Raises:
        UsageError: stores that do not belong together, or a folder that cannot be written to.
    """
    check_stores(stores)
    prepare_output(out)
    labels = labels or {}
    write = {"trident": write_trident, "clam": write_clam}[to]
    files: list[Path] = []
    skipped: list[Skipped] = []
    bags: list[_Written] = []
    try:
        for store in stores:
            try:
                bag = load_bag(store)
            except StoreError as error:
                skipped.append(Skipped(store.slide_id, str(error)))
                continue
            files += write(bag, out)
            bags.append(_Written(bag.slide_id, len(bag.features), bag.dropped))
        if to == "clam" and any(_label(bag, labels) for bag in bags):
            reasons = {bag.slide_id: _unfit_to_train(bag, labels) for bag in bags}
            skipped += [Skipped(slide_id, reason) for slide_id, reason in reasons.items() if reason]
            files.append(write_dataset([slide_id for slide_id, reason in reasons.items() if not reason], labels, out))
    finally:
        with suppress(OSError):  # another export into the same folder may be at work there
            (out / TEMPORARY).rmdir()
    return ExportResult(tuple(files), tuple(skipped), {bag.slide_id: bag.dropped for bag in bags if bag.dropped})


def _unfit_to_train(bag: _Written, labels: Labels) -> str | None:
    """Why a slide gets no row in ``dataset.csv``; None where it gets one."""
    if not _label(bag, labels):
        return f"no label: features written, no row in {DATASET}"
    if not bag.tiles:
        return f"no tiles: empty features written, no row in {DATASET}"
    return None


def _label(bag: _Written, labels: Labels) -> str:
    return labels.get(bag.slide_id, ("", ""))[1]
