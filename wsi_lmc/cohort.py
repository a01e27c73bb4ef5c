"""Which slides: from files, folders, patterns or a manifest to entries with ids that are safe and unique."""

import csv
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_lmc.errors import UsageError
from wsi_lmc.spreadsheets import from_cell, to_csv

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm", ".qptiff"}
)
COLUMNS = ("slide", "mpp", "patient", "site", "label", "slide_id")
HIDDEN = "pseudonym:"
"""Stands before the id, in place of a path, in the manifest of a run whose slides have pseudonyms."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_ID = 100


@dataclass(frozen=True)
class SlideEntry:
    """One slide of a cohort; ``mpp`` is text as given, judged when the slide is opened.

    A ``hidden`` slide has a pseudonym for its id, and nothing that is written names its file.
    """

    path: Path
    slide_id: str
    mpp: str | None = None
    patient: str = ""
    site: str = ""
    label: str = ""
    duplicate_of: str | None = None
    hidden: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table that somebody wrote: cells by column, and the line it ends in."""

    line: int
    cells: dict[str, str]


def find_slides(inputs: Sequence[str]) -> list[SlideEntry]:
    """Slides named by files, folders (searched by suffix, all levels), patterns (``*``) and manifests (``.csv``).

    A file named twice is one slide. Two files whose ids coincide are both kept, marked as duplicates: which one was
    meant is not ours to guess.

    Raises:
        UsageError: nothing found, or a manifest that cannot be read.
    """
    entries: dict[Path, SlideEntry] = {}
    for text in inputs:
        path = Path(text)
        listed = read_manifest(path) if path.suffix.lower() == ".csv" else [_entry(p) for p in _expand(path)]
        if any(entry.hidden for entry in listed):
            raise UsageError(
                f"{path} knows its slides by pseudonyms only",
                "slides, or a manifest that names their files",
                "Name the slides themselves, and give --pseudonyms.",
            )
        for entry in listed:
            entries.setdefault(real_path(entry.path), entry)
    if not entries:
        raise UsageError(
            f"no slides in {', '.join(inputs)}",
            f"files of type {' '.join(sorted(SLIDE_SUFFIXES))}",
            "Name files, a folder, a pattern in quotes, or a manifest.csv with a column slide.",
        )
    return mark_duplicates(list(entries.values()))


def read_manifest(path: Path, own: bool = False) -> list[SlideEntry]:
    """Rows of a manifest: column ``slide`` (relative to the manifest); where given mpp, patient, site, label, slide_id.

    ``own`` says that :func:`write_manifest` wrote it: then names of files need not be UTF-8.

    Raises:
        UsageError: no such file, no column ``slide``, or an empty or repeated cell in it.
    """
    rows = [row.cells for row in read_rows(path, ("slide",), COLUMNS, own)]
    repeated = [slide for slide, count in Counter(row["slide"] for row in rows).items() if count > 1 or not slide]
    if repeated:
        raise UsageError(
            f"{path}: slide {repeated[0][:80]!r} stands in several rows or is empty", "one row a slide", "Mend it."
        )
    if any("\0" in row["slide"] for row in rows):
        raise UsageError(f"{path} holds zero bytes", "a manifest in CSV, UTF-8", "Save it again.")
    return [_manifest_entry(path.parent, row) for row in rows]


def read_rows(path: Path, needed: Sequence[str], known: Sequence[str], own: bool = False) -> list[Row]:
    """Rows of a table in CSV, which may have more columns than those ``needed``; ``own``: such as we write.

    Raises:
        UsageError: no such file, or a column is missing; ``known`` columns are named then.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape" if own else "strict") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = [
                Row(reader.line_num, {key: from_cell((value or "").strip()) for key, value in row.items() if key})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}", "a manifest in CSV, UTF-8", "Check the file.") from error
    missing = [name for name in needed if names.count(name) != 1]
    if missing:
        raise UsageError(
            f"{path} has the columns {', '.join(names)[:200] or 'none'}",
            f"a column {missing[0]}",
            f"Known: {', '.join(known)}.",
        )
    return rows


def write_manifest(path: Path, entries: Iterable[SlideEntry]) -> None:
    """Write entries as a manifest that :func:`read_manifest` reads back, wherever it lies: paths become absolute.

    Of hidden slides the pseudonym alone is written.
    """
    rows = (
        (
            f"{HIDDEN}{entry.slide_id}" if entry.hidden else entry.path.absolute().as_posix(),
            *(entry.mpp or "", entry.patient, entry.site, entry.label, entry.slide_id),
        )
        for entry in entries
    )
    path.write_text(to_csv(COLUMNS, rows), encoding="utf-8", errors="surrogateescape", newline="")


def real_path(path: Path) -> Path:
    """A path without links, as far as they lead anywhere: ``Path.resolve`` raises on links in a circle."""
    return Path(os.path.realpath(path))


def safe_id(name: str) -> str:
    """An id made of ``A-Za-z0-9._-`` that cannot be an option, hidden, or too long; changed names carry a hash.

    >>> safe_id("S-21.0347_A"), safe_id("../naïve name")
    ('S-21.0347_A', '_na_ve_name-e35c9d7c')
    """
    plain = unicodedata.normalize("NFC", name)
    cleaned = _UNSAFE.sub("_", plain).lstrip(".-") or "slide"
    if cleaned == plain and len(plain) <= _LONGEST_ID:
        return cleaned
    tail = f"-{_short_hash(plain)}"
    return cleaned[: _LONGEST_ID - len(tail)] + tail  # of legal length itself: an id read back stays what it is


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SLIDE_SUFFIXES and not _hidden(p, path))
    if any(sign in str(path) for sign in "*?[") and not path.exists():
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        found = anchor.glob(str(path.relative_to(anchor) if path.is_absolute() else path))
        return sorted(p for p in found if path.name.startswith(".") or not p.name.startswith("."))
    return [path]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _entry(path: Path) -> SlideEntry:
    return SlideEntry(path, safe_id(path.stem))


def _manifest_entry(folder: Path, row: dict[str, str]) -> SlideEntry:
    hidden = row["slide"].startswith(HIDDEN)
    path = Path(row["slide"]) if hidden else folder / row["slide"]
    return SlideEntry(
        path=path,
        slide_id=safe_id(row.get("slide_id") or path.stem),
        mpp=row.get("mpp") or None,
        patient=row.get("patient", ""),
        site=row.get("site", ""),
        label=row.get("label", ""),
        hidden=hidden,
    )


def mark_duplicates(entries: list[SlideEntry]) -> list[SlideEntry]:
    """Ids that differ by case only coincide too: macOS and Windows would write one over the other."""
    counts = Counter(entry.slide_id.casefold() for entry in entries)
    marked: list[SlideEntry] = []
    for entry in entries:
        if counts[entry.slide_id.casefold()] == 1:
            marked.append(entry)
            continue
        tail = f"-{_short_hash(entry.path.as_posix())}"
        own = entry.slide_id[: _LONGEST_ID - len(tail)] + tail
        marked.append(replace(entry, slide_id=own, duplicate_of=entry.slide_id))
    return marked


def _short_hash(text: str) -> str:
    """Eight hex digits; names of files that are no valid UTF-8 (lone surrogates in Python) have them, too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
