"""Other sides to look from: sites, labels and groups taken from any column of a manifest, such as ``scanner``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsi_lmc.cohort import read_manifest, read_rows
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import FeatureSet, SlideFeatures

SITE, LABEL, PATIENT, SLIDE = "site", "label", "patient", "slide"


@dataclass(frozen=True)
class Columns:
    """Which column says what; ``group`` may be ``slide``: then each slide is a group of its own."""

    by: str = SITE
    label: str = LABEL
    group: str = PATIENT

    @property
    def other(self) -> list[str]:
        """Columns that a manifest has to have beyond its own."""
        return [
            name for name, own in ((self.by, (SITE,)), (self.label, (LABEL,)), (self.group, (PATIENT, SLIDE)))
            if name not in own
        ]  # fmt: skip


def regroup(sets: Sequence[FeatureSet], columns: Columns, manifest: Path | None) -> list[FeatureSet]:
    """The sets with sites, labels of slides, and groups as ``columns`` say.

    Labels of another column are those of slides, and go before tables of tiles. Classes are then that column's values,
    or those of the sets where all of these occur in it.

    Raises:
        UsageError: other columns without a manifest, one that lacks them, or that lacks a slide.
    """
    rows = _rows(columns, manifest)
    missing = sorted({slide.slide_id for one in sets for slide in one.slides} - set(rows)) if columns.other else []
    if missing:
        raise UsageError(f"slide {missing[0]} stands not in {manifest}", "a row for each slide", "Add it.")
    classes = sets[0].classes
    if columns.label != LABEL:
        values = sorted({rows[slide.slide_id][columns.label] for one in sets for slide in one.slides} - {""})
        classes = classes if classes and set(classes) <= set(values) else tuple(values)
    return [
        replace(one, classes=classes, slides=tuple(_changed(slide, columns, rows, classes) for slide in one.slides))
        for one in sets
    ]


def _rows(columns: Columns, manifest: Path | None) -> dict[str, dict[str, str]]:
    if not columns.other:
        return {}
    if manifest is None:
        raise UsageError(
            f"the column {columns.other[0]} without a manifest", "a manifest that has it", "Give it with --manifest."
        )
    rows = read_rows(manifest, ("slide", *columns.other), ("slide", *columns.other))
    return {entry.slide_id: row.cells for entry, row in zip(read_manifest(manifest), rows, strict=True)}


def _changed(
    slide: SlideFeatures, columns: Columns, rows: dict[str, dict[str, str]], classes: tuple[str, ...]
) -> SlideFeatures:
    cells = rows.get(slide.slide_id, {})
    site = slide.site if columns.by == SITE else cells[columns.by]
    group = {PATIENT: slide.patient, SLIDE: slide.slide_id}.get(columns.group)
    labels = slide.labels
    if columns.label != LABEL:
        label = cells[columns.label]
        labels = np.full(len(labels), classes.index(label) if label in classes else -1, np.int64)
    patient = cells[columns.group] or slide.slide_id if group is None else group
    return replace(slide, site=site, patient=patient, labels=labels)
