"""Single arrays as files, published whole."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from wsi_lmc.publish import publishing


def write_tensor(out: Path, final: Path, values: np.ndarray) -> Path:
    """Write ``values`` as a bare tensor that ``torch.load(weights_only=True)`` reads."""
    with publishing(out, final) as draft:
        torch.save(torch.from_numpy(values), draft)
    return final


def write_npy(out: Path, final: Path, values: np.ndarray) -> Path:
    """Write one array as NumPy's own file; never objects, which only a pickle could hold."""
    with publishing(out, final) as draft, draft.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    return final


def write_npz(out: Path, final: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write named arrays as one uncompressed archive."""
    with publishing(out, final) as draft, draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return final
