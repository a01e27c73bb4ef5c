"""Checkpoints of a large slide's features: a file for each block of its tiles, until the slide is published.

``OUT/.parts/<slide_id>/<identity>-<number>.safetensors`` holds one block's features and validity. The name tells what
they were made of, so a block of other settings or of another version of the slide is never taken for one's own.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wsi_lmc.confinement import confined
from wsi_lmc.publish import publishing

FOLDER = ".parts"

Part = tuple[Float[np.ndarray, "_ d"], UInt8[np.ndarray, " _"]]  # as many of the one as of the other; parts differ


@dataclass(frozen=True)
class Parts:
    """The blocks of ``size`` rows of a slide of ``count`` tiles; ``identity`` is of all that decides its features."""

    out: Path
    slide_id: str
    identity: str
    count: int
    size: int

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def rows(self, number: int) -> range:
        """Rows of a block."""
        return range(number * self.size, min((number + 1) * self.size, self.count))

    def load(self, number: int) -> Part | None:
        """A block's features and validity; None where it is not there, or damaged."""
        try:
            with safe_open(self._path(number), "np") as file:
                features, valid = file.get_tensor("features"), file.get_tensor("valid")
                whole = (file.metadata() or {}).get("sha256") == _sha256(features, valid)
        except (SafetensorError, OSError):
            return None
        return (features, valid) if whole and len(features) == len(self.rows(number)) else None

    def save(self, number: int, features: Float[np.ndarray, "n d"], valid: UInt8[np.ndarray, " n"]) -> None:
        """Publish a block."""
        with publishing(self.out, self._path(number)) as draft:
            save_file({"features": features, "valid": valid}, draft, {"sha256": _sha256(features, valid)})

    def _path(self, number: int) -> Path:
        return self.out / FOLDER / self.slide_id / f"{self.identity[:16]}-{number:06d}.safetensors"


def remove_parts(out: Path, slide_id: str) -> None:
    """Remove a slide's blocks, those of other settings, too: it is published."""
    shutil.rmtree(confined(out, out / FOLDER / slide_id), ignore_errors=True)


def _sha256(features: np.ndarray, valid: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(features).data)
    digest.update(np.ascontiguousarray(valid).data)
    return digest.hexdigest()
