"""Tables over all slides of an export: which of them can be trained on, and how their classes are numbered."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from wsi_lmc.export.bags import Exported, Skipped
from wsi_lmc.publish import publish_text
from wsi_lmc.spreadsheets import to_csv


def fit_to_train(slides: Sequence[Exported], table: str) -> tuple[list[Exported], list[Skipped]]:
    """Slides that get a row in ``table``, and why the others do not; none of either where no slide has a label."""
    if not any(slide.entry.label for slide in slides):
        return [], []
    reasons = {slide.slide_id: _unfit(slide, table) for slide in slides}
    fit = [slide for slide in slides if not reasons[slide.slide_id]]
    return fit, [Skipped(slide_id, reason) for slide_id, reason in reasons.items() if reason]


def _unfit(slide: Exported, table: str) -> str:
    if not slide.entry.label:
        return f"no label: features written, no row in {table}"
    return "" if slide.tiles else f"no tiles: empty features written, no row in {table}"


def patient_of(slide: Exported) -> str:
    """Whose slide it is; a slide of an unknown patient is a patient of its own."""
    return slide.entry.patient or slide.slide_id


def class_numbers(slides: Iterable[Exported]) -> dict[str, int]:
    """A number from 0 for each label that occurs, in the labels' order."""
    return {label: number for number, label in enumerate(sorted({slide.entry.label for slide in slides} - {""}))}


def write_classes(out: Path, numbers: dict[str, int]) -> Path:
    """Write which number stands for which label, for files that hold numbers only."""
    return write_rows(out, out / "classes.csv", ("number", "label"), ((value, key) for key, value in numbers.items()))


def write_rows(out: Path, final: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Publish a table as CSV."""
    publish_text(out, final, to_csv(columns, rows))
    return final
