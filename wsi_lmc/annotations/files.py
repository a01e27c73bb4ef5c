"""Files of annotations, read with a limit: they come from the net, and none of them is large."""

import json
from pathlib import Path
from typing import Any

from wsi_lmc.errors import UsageError

MOST_BYTES = 256 * 2**20
"""A hundred times MIDOG++, the largest published file that is read here."""


def read_limited(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All bytes of a file.

    Raises:
        UsageError: it cannot be read, or is larger than ``most_bytes``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        said = f"cannot read {path} ({error.strerror})"
        raise UsageError(said, "a file of annotations", "Check the path and the download.") from error
    if len(content) > most_bytes:
        found = f"{path} has more than {most_bytes} bytes"
        raise UsageError(found, "a file of annotations", "See whether it is the right file.")
    return content


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """A JSON object; ``expected`` names the format, for the message.

    Raises:
        UsageError: it cannot be read, or holds no JSON object.
    """
    content = read_limited(path)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise not_of(path, expected, f"no JSON ({str(error)[:100]})") from error
    if not isinstance(document, dict):
        raise not_of(path, expected, f"a JSON {type(document).__name__}, no object")
    return document


def not_of(path: Path, expected: str, found: str) -> UsageError:
    """The error for a file that is not of the format it should be of."""
    return UsageError(f"{path}: {found}", expected, "Download it again, or name the right file.")
