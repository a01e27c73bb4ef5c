"""Slides under ids of a map that stays with whoever made it, so that no output tells whose they are.

The map is a CSV with the columns ``slide`` (a file's name; where several slides have it, their paths, relative to the
map) and ``slide_id``, and ``patient`` where the slides' manifest has patients. It may name more slides than are used.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wsi_lmc.cohort import Row, SlideEntry, find_slides, read_rows, real_path, safe_id
from wsi_lmc.errors import UsageError

COLUMNS = ("slide", "slide_id", "patient")
_SHOWN = 3


def find_named_slides(inputs: Sequence[str], pseudonyms: Path | None, out: Path) -> list[SlideEntry]:
    """Slides as :func:`wsi_lmc.cohort.find_slides` finds them, hidden where there is a map; ``out`` is written to.

    Raises:
        UsageError: as `find_slides` and `give_pseudonyms` do, or the map lies in ``out``, where others would find it.
    """
    entries = find_slides(inputs)
    if pseudonyms is None:
        return entries
    check_map_place(pseudonyms, out)
    return give_pseudonyms(entries, pseudonyms)


def check_map_place(pseudonyms: Path, out: Path) -> None:
    """Raise UsageError where a map lies in the output, in which others would find it."""
    if pseudonyms.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"{pseudonyms} lies in the output {out}", "a map that stays with you", "Keep it in another folder."
        )


def give_pseudonyms(entries: Sequence[SlideEntry], path: Path) -> list[SlideEntry]:
    """The same slides, hidden behind the ids (and patients) that a map gives them.

    Raises:
        UsageError: a slide that is not in the map, or for which it has two ids; a map with an id that is not safe or
            given twice; patients without pseudonyms.
    """
    rows = _read_map(path)
    ids = _Ids(rows, path.parent)
    found = [(entry, ids.of(entry)) for entry in entries]
    missing = [entry.path.name for entry, row in found if row is None]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UsageError(
            f"{path} has no row for {', '.join(map(repr, missing[:_SHOWN]))}{more}",
            "a pseudonym for every slide",
            "Add rows, with the file's name in column slide, or leave these slides out.",
        )
    if any(entry.patient for entry in entries) and rows and "patient" not in rows[0].cells:
        raise UsageError(
            f"the manifest names patients, and {path} has no column patient",
            "pseudonyms for patients, too",
            "Add the column, or leave patients out of the manifest.",
        )
    _refuse_shared([row.line for _, row in found if row is not None], rows, path)
    return [_hide(entry, row) for entry, row in found if row is not None]


def _read_map(path: Path) -> list[Row]:
    rows = read_rows(path, COLUMNS[:2], COLUMNS)
    for row in rows:
        for name in COLUMNS[:2]:
            if not row.cells[name]:
                raise UsageError(f"{path}, line {row.line}: {name} is empty", "a slide and its id", "Complete it.")
        slide_id = row.cells["slide_id"]
        if safe_id(slide_id) != slide_id:
            raise UsageError(
                f"{path}, line {row.line}: slide_id {slide_id!r}",
                "letters, digits, '.', '_' and '-', at most 100, no '.' or '-' in front",
                f"Write {safe_id(slide_id)!r}, for example.",
            )
    _refuse_repeated([(row.line, _plain(row.cells["slide"])) for row in rows], path)
    _refuse_repeated([(row.line, row.cells["slide_id"].casefold()) for row in rows], path)  # as file systems may see it
    return rows


def _refuse_repeated(cells: Iterable[tuple[int, str]], path: Path) -> None:
    first: dict[str, int] = {}
    for line, text in cells:
        if text in first:
            found = f"{path}: {text!r} stands in lines {first[text]} and {line}"
            raise UsageError(found, "one row a slide, one slide an id", "Mend the map.")
        first[text] = line


def _refuse_shared(lines: Sequence[int], rows: Sequence[Row], path: Path) -> None:
    """Refuse a row that fits several slides, which a name alone may do."""
    shared = {line for line, count in Counter(lines).items() if count > 1}
    for row in rows:
        if row.line in shared:
            raise UsageError(
                f"{path}, line {row.line}: several slides are called {row.cells['slide']!r}",
                "a row for each, with its path relative to the map in column slide",
                "Give their paths.",
            )


class _Ids:
    """Rows of a map by what they name slides by."""

    def __init__(self, rows: Sequence[Row], folder: Path) -> None:
        self._by_name: Mapping[str, Row] = {_plain(row.cells["slide"]): row for row in rows}
        paths = [row for row in rows if len(Path(row.cells["slide"]).parts) > 1]
        self._by_path: Mapping[Path, Row] = {real_path(folder / row.cells["slide"]): row for row in paths}

    def of(self, entry: SlideEntry) -> Row | None:
        """A slide's row; None where it has none.

        Raises:
            UsageError: two rows fit.
        """
        by_path, by_name = self._by_path.get(real_path(entry.path)), self._by_name.get(_plain(entry.path.name))
        if by_path is not None and by_name is not None:
            raise UsageError(
                f"lines {by_path.line} and {by_name.line} of the pseudonyms both fit {entry.path.name!r}",
                "one row a slide",
                "Remove one of them.",
            )
        return by_path or by_name


def _hide(entry: SlideEntry, row: Row) -> SlideEntry:
    patient = row.cells.get("patient", "")
    return replace(entry, slide_id=row.cells["slide_id"], patient=patient, duplicate_of=None, hidden=True)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
