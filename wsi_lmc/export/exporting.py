"""From feature stores to another tool's folder, slide by slide."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import StoreError
from wsi_lmc.export.bags import Exported, ExportResult, Skipped, check_stores, load_bag
from wsi_lmc.export.layouts import Target, find_layout
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.publish import TEMPORARY, prepare_output


def export_features(
    stores: Sequence[FeatureStore],
    to: Target,
    out: Path,
    entries: Iterable[SlideEntry] = (),
    outlines: Mapping[str, Path] | None = None,
) -> ExportResult:
    """Write every slide's features below ``out`` as ``to`` reads them; files that were there are replaced.

    Features become float32 (STAMP's: float16); unreadable tiles are left out; a slide without tiles gets arrays of
    shape (0, D).

    Args:
        stores: of one tiling and one encoder.
        to: whose layout.
        out: folder to write to, created where it is missing.
        entries: patient, site and label of slides, by their ids.
        outlines: GeoJSON of slides' tissue, by their ids.

    Returns:
        What was written, and which slides are missing where: damaged stores everywhere, and slides without a label
        or without tiles in tables to train from.

    Raises:
        UsageError: stores that do not belong together, a folder that cannot be written to, or a missing extra.
    """
    check_stores(stores)
    layout = find_layout(to)
    prepare_output(out)
    known = {entry.slide_id: entry for entry in entries}
    files: list[Path] = []
    skipped: list[Skipped] = []
    slides: list[Exported] = []
    try:
        for store in stores:
            entry = known.get(store.slide_id) or SlideEntry(Path(store.slide_id), store.slide_id)
            try:
                bag = load_bag(store, entry, (outlines or {}).get(store.slide_id))
                files += layout.write(bag, out)
            except StoreError as error:
                skipped.append(Skipped(store.slide_id, str(error)))
                continue
            slides.append(Exported(entry, len(bag.features), bag.dropped, bag.attributes, bag.features.shape[1]))
        if layout.finish is not None:
            tables, unfit = layout.finish(slides, out)
            files += tables
            skipped += unfit
    finally:
        with suppress(OSError):  # another export into the same folder may be at work there
            (out / TEMPORARY).rmdir()
    dropped = {slide.slide_id: slide.dropped for slide in slides if slide.dropped}
    return ExportResult(tuple(files), tuple(skipped), dropped)
