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
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else (os.pardir,)
    if os.pardir in parts:
        raise UsageError(f"{path} lies outside {folder}", "a place in the output folder", "Choose a safe id or name.")
    place = os.fspath(folder)
    for part in parts:
        place = os.path.join(place, part)  # noqa: PTH118  ten times as fast, for hundreds of thousands of slides
        if os.path.islink(place) or os.path.isjunction(place):  # noqa: PTH114
            raise UsageError(
                f"{place} is a link to {_target(place)}",
                "an output folder without links, which could lead what is written to other files",
                "Remove the link; to write to where it leads, name that folder with -o.",
            )
    return path


def confine(folder: Path, paths: Iterable[Path]) -> None:
    """Check places that will be written to, before any work starts.

    Raises:
        UsageError: one of them is not :func:`confined`.
    """
    for path in paths:
        confined(folder, path)


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115
    except OSError:
        return "another place"
