"""Images compared byte by byte, and what nobody states of them."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path

from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists.entry import ImageEntry
from wsi_lmc.threads import Threads


def hash_images(entries: Sequence[ImageEntry], threads: Threads) -> list[ImageEntry]:
    """The same, with the SHA-256 of each file that can be read."""

    def work(part: range) -> list[ImageEntry]:
        return [replace(entries[number], sha256=_sha256(entries[number].path)) for number in part]

    return [entry for part in threads.each(work, len(entries)) for entry in part]


def without_repeats(entries: Sequence[ImageEntry]) -> tuple[list[ImageEntry], list[str]]:
    """Images of which no two have the same bytes, and notes on those that were left out.

    Raises:
        UsageError: the same bytes have different sites, labels or stated groups: one of them is wrong, or a split
            would have the image on both sides.
    """
    kept: dict[str, ImageEntry] = {}
    repeats = 0
    for number, entry in enumerate(sorted(entries, key=lambda entry: entry.alone)):  # a stated group counts first
        first = kept.setdefault(entry.sha256 or f"unreadable {number}", entry)
        if first is entry:
            continue
        names = ("site", "label") if entry.alone else ("site", "label", "group")
        pairs = [(name, getattr(first, name), getattr(entry, name)) for name in names]
        differing = [f"{name} {one!r} and {other!r}" for name, one, other in pairs if one != other]
        if differing:
            raise UsageError(
                f"{first.path} and {entry.path} are the same image, with {', '.join(differing)}",
                "one site, label and group an image",
                "Mend the table, or remove one of them.",
            )
        repeats += 1
    left = set(map(id, kept.values()))
    notes = [f"{repeats} images are there twice, byte by byte: each is kept once"] if repeats else []
    return [entry for entry in entries if id(entry) in left], notes


def remarks(entries: Sequence[ImageEntry]) -> list[str]:
    """What nobody states of images, and what that means."""
    alone = sum(entry.alone for entry in entries)
    notes: list[str] = []
    if alone:
        said = "no image has a group" if alone == len(entries) else f"{alone} of {len(entries)} images have no group"
        notes.append(f"{said}: each is a group of its own, and splits and intervals go by group")
    for name in ("site", "label"):
        lacking = sum(not getattr(entry, name) for entry in entries)
        if lacking:
            notes.append(f"{lacking} of {len(entries)} images have no {name}")
    sites: dict[str, set[str]] = {}
    for entry in entries:
        sites.setdefault(entry.group, set()).add(entry.site)
    shared = sorted(group for group, found in sites.items() if len(found) > 1)
    if shared:
        shown = ", ".join(shared[:3])
        notes.append(f"{len(shared)} groups stand at several sites ({shown}): they count as the same patients")
    return notes


def _sha256(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
