"""Images of one site and group, which become one store, and their list in the run folder: ``images/<slide_id>.csv``.

A list has the columns ``file,label,mpp,sha256``, an image a row, in the order of the store. It stands for the slide: in
the run's manifest it is the file that the tiles are from.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_lmc.cohort import SlideEntry, read_rows, safe_id
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists.entry import ImageEntry
from wsi_lmc.publish import publishing
from wsi_lmc.slide import parse_mpp
from wsi_lmc.spreadsheets import to_csv

LISTS = "images"
_COLUMNS = ("file", "label", "mpp", "sha256")
_TAIL = 9  # of an id: a hyphen and eight digits
_LONGEST_ID = 100


@dataclass(frozen=True)
class ImageGroup:
    """Images that become one store."""

    slide_id: str
    site: str
    group: str
    images: tuple[ImageEntry, ...]

    def entry(self, out: Path) -> SlideEntry:
        """The group as a slide of the run ``out``; its label is that of all its images, where they have one."""
        labels = {image.label for image in self.images}
        label = labels.pop() if len(labels) == 1 else ""
        return SlideEntry(list_path(out, self.slide_id), self.slide_id, None, self.group, self.site, label)


def group_images(entries: Iterable[ImageEntry], known: Sequence[SlideEntry]) -> list[ImageGroup]:
    """Groups in the order of their first image, with ids that are safe and unique, also among ``known`` slides.

    A group that the run folder has already keeps its id. Ids that coincide (also by case alone) are told apart by a
    hash of site and group.
    """
    images: dict[tuple[str, str], list[ImageEntry]] = {}
    for entry in entries:
        images.setdefault((entry.site, entry.group), []).append(entry)
    before = {(entry.site, entry.patient): entry.slide_id for entry in known if is_list(entry.path)}
    wanted = {of: safe_id("-".join(filter(None, of))) for of in images}
    counts = Counter(slide_id.casefold() for slide_id in wanted.values())
    taken = {entry.slide_id.casefold() for entry in known}
    found: list[ImageGroup] = []
    for of, own in images.items():
        slide_id = wanted[of]
        if counts[slide_id.casefold()] > 1 or slide_id.casefold() in taken:
            slide_id = f"{slide_id[: _LONGEST_ID - _TAIL]}-{_hash(of)}"
        found.append(ImageGroup(before.get(of, slide_id), *of, tuple(own)))
    return found


def list_path(out: Path, slide_id: str) -> Path:
    """Where a group's list lies."""
    return out / LISTS / f"{slide_id}.csv"


def is_list(path: Path) -> bool:
    """Whether a file that a manifest names as a slide is the list of a group's images."""
    return path.parent.name == LISTS and path.suffix == ".csv"


def write_list(out: Path, group: ImageGroup) -> None:
    """Publish a group's list, unless it is there as it is."""
    rows = [(image.path.absolute().as_posix(), image.label, _text(image.mpp), image.sha256) for image in group.images]
    text = to_csv(_COLUMNS, rows).encode("utf-8", "surrogateescape")  # names of files need not be UTF-8
    path = list_path(out, group.slide_id)
    if not path.is_file() or path.read_bytes() != text:
        with publishing(out, path) as draft:
            draft.write_bytes(text)


def read_list(path: Path) -> tuple[ImageEntry, ...]:
    """The images of a list; site and group are the manifest's to tell.

    Raises:
        UsageError: it is missing or damaged.
    """
    found: list[ImageEntry] = []
    for row in read_rows(path, _COLUMNS, _COLUMNS, own=True):
        cells = row.cells
        mpp = parse_mpp(cells["mpp"]) if cells["mpp"] else None
        if not cells["file"] or (cells["mpp"] and mpp is None):
            raise UsageError(f"{path}, line {row.line}", "a file, and a pixel size or nothing", "Run pack again.")
        found.append(ImageEntry(Path(cells["file"]), label=cells["label"], mpp=mpp, sha256=cells["sha256"]))
    return tuple(found)


def are_at_hand(path: Path) -> bool:
    """Whether all images of a list are where they were."""
    try:
        return all(image.path.is_file() for image in read_list(path))
    except UsageError:
        return False


def groups_of(out: Path, entries: Mapping[str, SlideEntry], slide_ids: Iterable[str]) -> list[ImageGroup]:
    """Groups of a run by their ids, as their lists say.

    Raises:
        UsageError: a list is missing or damaged.
    """
    found: list[ImageGroup] = []
    for slide_id in slide_ids:
        entry = entries[slide_id]
        images = tuple(
            replace(image, site=entry.site, group=entry.patient) for image in read_list(list_path(out, slide_id))
        )
        found.append(ImageGroup(slide_id, entry.site, entry.patient, images))
    return found


def _text(mpp: float | None) -> str:
    return "" if mpp is None else repr(mpp)


def _hash(of: tuple[str, str]) -> str:
    return hashlib.sha256("\0".join(of).encode("utf-8", "surrogatepass")).hexdigest()[:8]
