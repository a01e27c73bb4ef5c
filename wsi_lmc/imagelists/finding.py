"""Images of folders and tables, with the site, group and label that each is stated to have."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from wsi_lmc.cohort import Row, read_rows, real_path
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists.entry import ImageEntry
from wsi_lmc.slide import parse_mpp

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
COLUMNS = ("file", "site", "label", "group", "mpp")


@dataclass(frozen=True)
class ImageInputs:
    """Where images are named, and who says what of them.

    ``columns`` are the table's own names of :data:`COLUMNS`. ``site`` is that of images whose row states none;
    ``group_pattern`` finds the group (its first bracket) in a path relative to the image's folder, or to the table's.
    """

    folders: Sequence[Path] = ()
    manifest: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    labels_from: Literal["nothing", "folder"] = "nothing"
    group_pattern: str | None = None
    site: str | None = None


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Names of columns from ``site=domain`` or several such with commas between.

    Raises:
        UsageError: no such form, or a column that is not known.
    """
    found: dict[str, str] = {}
    for text in (part for each in texts for part in each.split(",")):
        name, _, own = text.partition("=")
        if name not in COLUMNS or not own or name in found:
            known = ", ".join(COLUMNS)
            raise UsageError(f"--columns {text!r}", f"NAME=COLUMN, NAME one of {known}, each once", "Correct it.")
        found[name] = own
    return found


def find_images(inputs: ImageInputs) -> tuple[list[ImageEntry], list[str]]:
    """Images of the folders (all levels), of the table, or of the table's rows that lie in the folders; and notes.

    Raises:
        UsageError: nothing found, or a statement that cannot be taken as it stands.
    """
    names = Counter(folder.resolve().name for folder in inputs.folders)
    twice = [name for name, count in names.items() if count > 1]
    if twice and inputs.site is None:
        raise UsageError(f"several folders called {twice[0]}", "a site each", "Give --site, or rename them.")
    missing = [folder for folder in inputs.folders if not folder.is_dir()]
    if missing or not (inputs.folders or inputs.manifest):
        said = f"no folder {missing[0]}" if missing else "neither a folder nor a table of images"
        raise UsageError(said, "folders of images, --manifest, or both", "Check the paths.")
    pattern = _compiled(inputs.group_pattern)
    listed, notes = _of_table(inputs) if inputs.manifest else (list(_of_folders(inputs)), [])
    found: dict[Path, ImageEntry] = {}
    for entry, relative in listed:
        own = replace(entry, group=entry.group or _group_by(pattern, relative))
        known = found.setdefault(real_path(entry.path), own)
        if (known.site, known.label, known.group) != (own.site, own.label, own.group):
            said = f"{entry.path} is named twice, with different sites, labels or groups"
            raise UsageError(said, "every image once", "Name it once.")
    if not found:
        where = ", ".join(map(str, inputs.folders)) or str(inputs.manifest)
        raise UsageError(f"no images in {where}", f"files of type {' '.join(sorted(IMAGE_SUFFIXES))}", "Check it.")
    relatives = {real_path(entry.path): relative for entry, relative in listed}
    return _with_own_groups(found, relatives), notes


def _of_folders(inputs: ImageInputs) -> Iterator[tuple[ImageEntry, str]]:
    for folder in inputs.folders:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in relative.parts)
            if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and not path.is_dir():
                label = path.absolute().parent.name if inputs.labels_from == "folder" else ""
                yield ImageEntry(path, _site_of(folder, inputs), label=label), relative.as_posix()


def _of_table(inputs: ImageInputs) -> tuple[list[tuple[ImageEntry, str]], list[str]]:
    manifest = inputs.manifest or Path()
    names = {name: inputs.columns.get(name, name) for name in COLUMNS}
    needed = (names["file"], *(own for name, own in inputs.columns.items() if name != "file"))
    rows = read_rows(manifest, needed, tuple(names.values()))
    in_folders = {real_path(entry.path): (entry, relative) for entry, relative in _of_folders(inputs)}
    found: list[tuple[ImageEntry, str]] = []
    seen: set[Path] = set()
    for row in rows:
        entry = _of_row(manifest, row, names, inputs)
        own = real_path(entry.path)
        if inputs.folders and own not in in_folders and not _lies_in(own, inputs.folders):
            continue
        at = f"{manifest}, line {row.line}"
        if own in seen:
            raise UsageError(f"{at}: {entry.path.name} again", "one row an image", "Mend the table.")
        if entry.path.suffix.lower() not in IMAGE_SUFFIXES:
            if inputs.folders:
                continue  # such as the tables of a data set that stand in its own manifest
            raise UsageError(f"{at}: {entry.path.name} is no image", "images", "Name the folders of those you mean.")
        seen.add(own)
        folder = in_folders.get(own)
        found.append((replace(entry, site=entry.site or (folder[0].site if folder else inputs.site or "")),
                      folder[1] if folder else row.cells[names["file"]]))  # fmt: skip
    unlisted = len(in_folders.keys() - seen)
    notes = [f"{unlisted} images of the folders have no row in {manifest.name}, and are left out"] if unlisted else []
    return found, notes


def _of_row(manifest: Path, row: Row, names: Mapping[str, str], inputs: ImageInputs) -> ImageEntry:
    cells = {name: row.cells.get(own, "") for name, own in names.items()}
    if not cells["file"] or "\0" in cells["file"]:
        raise UsageError(f"{manifest}, line {row.line}: no file", "one in each row", "Mend the table.")
    path = manifest.parent / cells["file"]
    mpp = parse_mpp(cells["mpp"]) if cells["mpp"] else None
    if cells["mpp"] and mpp is None:
        said = f"{manifest}, line {row.line}: mpp {cells['mpp'][:20]!r}"
        raise UsageError(said, "microns per pixel, 0.05 to 10, or nothing", "Mend the table.")
    label = cells["label"] or (path.absolute().parent.name if inputs.labels_from == "folder" else "")
    return ImageEntry(path, cells["site"], cells["group"], label, mpp)


def _lies_in(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a file (that may be missing) was to lie in one of the folders."""
    return any(path.is_relative_to(real_path(folder)) for folder in folders)


def _site_of(folder: Path, inputs: ImageInputs) -> str:
    if inputs.site is not None:
        return inputs.site
    return folder.resolve().name if len(inputs.folders) > 1 else ""


def _compiled(text: str | None) -> Callable[[str], str] | None:
    """What finds a group in a path, or raises UsageError where it cannot."""
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"--group-pattern {text!r} ({error})", "a regular expression", "Correct it.") from error
    if not pattern.groups:
        raise UsageError(f"--group-pattern {text!r}", "one with a bracket: (.+)_[0-9]+", "Put the group in brackets.")

    def group(relative: str) -> str:
        found = pattern.search(relative)
        if found is None or not found[1]:
            raise UsageError(
                f"no group in {relative!r} by {text!r}", "one in each image's path", "Correct the pattern."
            )
        return found[1]

    return group


def _group_by(pattern: Callable[[str], str] | None, relative: str) -> str:
    return pattern(relative) if pattern is not None else ""


def _with_own_groups(found: Mapping[Path, ImageEntry], relatives: Mapping[Path, str]) -> list[ImageEntry]:
    """Images that are in no group become groups of their own, called after their files."""
    stated = {(entry.site, entry.group) for entry in found.values()}
    names = Counter((entry.site, relatives[own]) for own, entry in found.items() if not entry.group)
    entries: list[ImageEntry] = []
    for own, entry in found.items():
        if entry.group:
            entries.append(entry)
            continue
        name = (entry.site, relatives[own])
        unique = names[name] == 1 and name not in stated
        entries.append(replace(entry, group=name[1] if unique else own.as_posix(), alone=True))
    return entries
