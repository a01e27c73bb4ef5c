"""What a report may not tell: where files lie, on which machine, and whose they are.

Ids and labels are the user's own words and stay. Messages may hold paths; of these the last part is kept, of hidden
slides not even that (see :mod:`wsi_lmc.discretion`).
"""

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.discretion import Discretion

_SIGNS = r",;:'\"()<>\[\]/\\"
_PART = rf"[^{_SIGNS}\n]*[^{_SIGNS}\s]"  # of a path; spaces may be in it, but not at its end
_PATH = re.compile(rf"(?<![\w/\\.])(?:[A-Za-z]:[\\/]|\\\\|~?/)(?:{_PART}[\\/])*([^{_SIGNS}\s]*)")
_RELATIVE = re.compile(rf"(?<![\w/])(?:[^{_SIGNS}\s]+[/\\])+([^{_SIGNS}\s]+)")
_ADDRESS = re.compile(r"\b(?:tcp|tls|ssh|https?)://[^\s,;]+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b[\w.-]+@[\w.-]+\w")
_SHORTEST_HOST = 4
_LONGEST = 600


def without_places(text: str) -> str:
    """``text``, or its beginning, without folders, addresses and this machine's name; of a path its last part stays."""
    found = _ADDRESS.sub("(address)", text[:_LONGEST])
    found = _PATH.sub(lambda match: match[1] or "(folder)", found)
    found = _RELATIVE.sub(lambda match: match[1], found)
    host = socket.gethostname()
    return re.sub(rf"\b{re.escape(host)}\b", "(machine)", found) if len(host) >= _SHORTEST_HOST else found


class Discreet:
    """Messages about slides as they may be told."""

    def __init__(self, run_folder: Path, entries: Mapping[str, SlideEntry]) -> None:
        spellings = {str(run_folder), str(run_folder.absolute()), str(run_folder.resolve())}
        self._folders = sorted((each for each in spellings if len(each) > 1), key=len, reverse=True)
        self._entries = entries

    def __call__(self, text: str, slide_id: str) -> str:
        """``text`` about a slide, without what may not be told."""
        entry = self._entries.get(slide_id)
        if entry is not None:
            text = Discretion(entry)(text)
        for folder in self._folders:
            text = text.replace(f"{folder}/", "")
        return without_places(text)


def told_setting(value: object) -> str:
    """A setting's value; a path only as being given."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    known = text.startswith("hf-hub:")  # a public name, though it has a slash
    return text if known else "(a file)" if isinstance(value, str) and re.search(r"[/\\]", text) else text[:200]
