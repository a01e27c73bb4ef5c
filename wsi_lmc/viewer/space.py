"""What features look like over the whole cohort: their principal components and clusters, of a stated sample of tiles.

The same components and clusters serve every slide, so a colour means the same on all of them. All is decided by a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from wsi_lmc.errors import StoreError
from wsi_lmc.featurestore import ROWS_PER_CHUNK
from wsi_lmc.tilestore import Validity
from wsi_lmc.viewer.blocks import FeatureBlocks

TILES, SLIDES = 20_000, 200
"""Of a sample, at the most."""
CLUSTERS = 8  # as many as there are colours that everybody can tell apart
_COMPONENTS, _SHOWN = 32, 3
_ENDS = (2.0, 98.0)  # percentiles of a component that get the ends of its colours


@dataclass(frozen=True)
class Space:
    """Components and clusters of features.

    ``mean`` and ``axes`` make components of features, ``low`` and ``high`` are the ends of the first three's colours,
    ``shares`` of the variance; ``centres`` of the clusters are in components, those with most of the sample first.
    ``tiles`` and ``slides`` are how many the sample had.
    """

    mean: Float64[np.ndarray, " d"]
    axes: Float64[np.ndarray, "c d"]
    low: Float64[np.ndarray, " shown"]
    high: Float64[np.ndarray, " shown"]
    shares: tuple[float, ...]
    centres: Float64[np.ndarray, "k c"]
    tiles: int
    slides: int
    encoder: str

    def components(self, features: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        """Principal components of features."""
        return (features - self.mean) @ self.axes.T

    def coloured(self, components: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n 3"]:
        """The first three components from 0 to 1; 0.5 where there are fewer."""
        found = np.full((len(components), _SHOWN), 0.5)
        shown = len(self.low)
        found[:, :shown] = (components[:, :shown] - self.low) / np.maximum(self.high - self.low, 1e-12)
        return np.clip(found, 0.0, 1.0)

    def clusters(self, components: Float64[np.ndarray, "n c"]) -> Int64[np.ndarray, " n"]:
        """The number of the nearest cluster."""
        distances = (self.centres**2).sum(axis=1) - 2 * components @ self.centres.T
        return distances.argmin(axis=1).astype(np.int64)


def fit_space(blocks: FeatureBlocks, paths: Sequence[Path], seed: int = 0) -> Space:
    """Fit a space to a sample of the tiles of some slides (stores of features), of the first readable one's encoder.

    Raises:
        StoreError: no tile of theirs can be read.
    """
    rng = np.random.default_rng(seed)
    chosen = list(paths)
    if len(chosen) > SLIDES:
        chosen = [chosen[int(each)] for each in np.sort(rng.choice(len(chosen), SLIDES, replace=False))]
    share, encoder = max(1, TILES // max(1, len(chosen))), ""
    drawn: list[Float32[np.ndarray, "m d"]] = []
    for path in chosen:
        try:
            encoder = encoder or blocks.head(path).encoder
            found = _drawn(blocks, path, share, rng) if blocks.head(path).encoder == encoder else None
        except StoreError:
            continue
        if found is not None and len(found):
            drawn.append(found)
    if not drawn:
        raise StoreError("no features that can be read", "features of one slide at least", "Run 'wsi-lmc verify'.")
    sample = np.concatenate(drawn).astype(np.float64)
    return _fitted(sample, len(drawn), encoder, seed)


def _drawn(blocks: FeatureBlocks, path: Path, share: int, rng: np.random.Generator) -> Float32[np.ndarray, "m d"]:
    """Some readable tiles of a slide, of one block of it drawn at random: a large slide is not read for a sample."""
    head = blocks.head(path)
    starts = range(0, head.rows, ROWS_PER_CHUNK)
    if not starts:
        return np.empty((0, 1), np.float32)
    start = starts[int(rng.integers(len(starts)))]
    block = blocks.block(path, start)
    usable = head.valid[start : start + len(block)] != Validity.UNREADABLE
    rows = np.nonzero(usable & np.isfinite(block).all(axis=1))[0]
    return block[np.sort(rng.permutation(rows)[:share])]


def _fitted(sample: Float64[np.ndarray, "n d"], slides: int, encoder: str, seed: int) -> Space:
    count = max(1, min(_COMPONENTS, *sample.shape, max(1, len(sample) - 1)))
    solver = "randomized" if min(sample.shape) > 4 * count else "full"
    found = PCA(count, svd_solver=solver, random_state=seed)
    with np.errstate(divide="ignore", invalid="ignore"):  # of tiles that are all the same
        components = found.fit_transform(sample)
        shares = np.nan_to_num(found.explained_variance_ratio_)
    low, high = np.percentile(components[:, :_SHOWN], _ENDS, axis=0)
    distinct = len(np.unique(components.round(6), axis=0))
    means = MiniBatchKMeans(min(CLUSTERS, distinct), random_state=seed, batch_size=2048).fit(components)
    sizes = np.bincount(np.asarray(means.labels_), minlength=len(means.cluster_centers_))
    centres = np.asarray(means.cluster_centers_, np.float64)[np.argsort(-sizes, kind="stable")]
    return Space(
        *(np.asarray(found.mean_, np.float64), np.asarray(found.components_, np.float64)),
        *(low, high, tuple(float(share) for share in shares[:_SHOWN]), centres, len(sample), slides, encoder),
    )
