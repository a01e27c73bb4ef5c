"""What is written into an output folder stays in it: links that somebody put there lead nowhere.

The folder itself may be reached through links, for whoever names it knows where it lies. Below it there must be none:
on a shared disk they would let others choose which of the user's files are overwritten.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from wsi_lmc.errors import UsageError


def confined(folder: Path, path: Path) -> Path:
    """``path``, once nothing on the way to it from ``folder`` leads out of the folder; it need not exist.

    Raises:
        UsageError: it lies elsewhere, or it or a folder on the way is a link.
    """
    _refuse_links(folder, path, set())
    return path


def confine(folder: Path, paths: Iterable[Path]) -> None:
    """Check places that will be written to, before any work starts.

    Raises:
        UsageError: one of them is not :func:`confined`.
    """
    known: set[str] = set()
    for path in paths:
        _refuse_links(folder, path, known)


def _refuse_links(folder: Path, path: Path, known: set[str]) -> None:
    """Go down from the folder to a place; folders that are ``known`` already are not looked at again.

    Text, not paths, which take twenty times as long: there may be a hundred thousand slides.
    """
    place = os.fspath(folder)
    *folders, last = _below(place, os.fspath(path))
    for part in folders:
        place = part if place == os.curdir else f"{place}{os.sep}{part}"
        if place not in known:
            _refuse_link(place)
            known.add(place)
    if last:
        _refuse_link(f"{place}{os.sep}{last}")


def _below(folder: str, path: str) -> list[str]:
    """Names on the way from a folder to a path, at least one, which is empty for the folder itself.

    Raises:
        UsageError: the path does not lie in the folder.
    """
    base = "" if folder == os.curdir else folder.rstrip(os.sep) + os.sep
    inside = path == folder or (path.startswith(base) and not (base == "" and path.startswith(os.sep)))
    parts = path[len(base) :].split(os.sep)  # noqa: PTH206
    if not inside or os.pardir in parts:
        raise UsageError(f"{path} lies outside {folder}", "a place in the output folder", "Choose a safe id or name.")
    return [""] if path == folder else parts


def _refuse_link(place: str) -> None:
    if os.path.islink(place) or os.path.isjunction(place):  # noqa: PTH114
        raise UsageError(
            f"{place} is a link to {_target(place)}",
            "an output folder without links, which could lead what is written to other files",
            "Remove the link; to write to where it leads, name that folder with -o.",
        )


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115
    except OSError:
        return "another place"
