"""An image, and what is stated of it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageEntry:
    """An image and what is stated of it; ``alone`` where no group is, ``sha256`` empty where it cannot be read."""

    path: Path
    site: str = ""
    group: str = ""
    label: str = ""
    mpp: float | None = None
    sha256: str = ""
    alone: bool = False
