"""Which slides an encoder was trained on, by what the folder of its training says of itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsi_lmc.errors import UsageError

PROVENANCE = "provenance.json"
"""What a training that has ended says of itself."""


def tiles_trained_on(provenance: Mapping[str, Any]) -> dict[str, int]:
    """Tiles that an encoder was trained on, by slide; slides that were held out as a whole are not among them."""
    slides = provenance.get("slides")
    told = [each for each in slides if isinstance(each, dict)] if isinstance(slides, list) else []
    found = {str(each.get("slide_id")): each.get("trained_on", 0) for each in told}
    return {slide_id: count for slide_id, count in found.items() if isinstance(count, int) and count}


def slides_trained_on(checkpoints: Sequence[str | Path]) -> tuple[str, ...]:
    """Ids of the slides that any of these checkpoint folders was trained on.

    Raises:
        UsageError: a folder is none of a training that has ended, or does not say what it was trained on.
    """
    found: set[str] = set()
    for folder in checkpoints:
        try:
            provenance = json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))
            own = tiles_trained_on(provenance) if isinstance(provenance, dict) else {}
        except (OSError, ValueError, RecursionError):
            own = {}
        if not own:
            raise UsageError(
                f"{folder} does not say which slides it was trained on",
                f"the folder of a training that has ended, with a {PROVENANCE}",
                "Name the folder that 'wsi-lmc train' got by -o.",
            )
        found |= own.keys()
    return tuple(sorted(found))
