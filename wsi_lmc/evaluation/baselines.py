"""What a score has to be compared with: how far plain colour gets."""

import numpy as np
from jaxtyping import Float32, UInt8


def colour_features(tiles: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n 6"]:
    """Mean and standard deviation of red, green and blue of each tile."""
    values = tiles.reshape(len(tiles), -1, 3)
    mean, deviation = values.mean(axis=1, dtype=np.float32), values.std(axis=1, dtype=np.float32)
    return np.concatenate([mean, deviation], axis=1)
