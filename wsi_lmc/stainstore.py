"""H and E vectors of a slide's tiles, estimated once and kept beside the tile stores.

``stains/<slide_id>.zarr`` next to ``tiles/<slide_id>.zarr`` holds ``vectors`` float32 (N, 2, 3) and ``trusted`` uint8
(N,). A tile that is not trusted has its slide's vectors there, pooled over the trusted tiles (pen marks and folds would
bend them), or over all where none is; where not even those are trusted, :func:`fill_untrusted` puts the whole data
set's in their place: never the identity, which would make pairs of equal views. A published tile store never changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import exclusive, prepare_output, publishing
from wsi_lmc.stain import RUIFROK, SeparationConfig, pool, separate
from wsi_lmc.tilestore import TileStore
from wsi_lmc.zarrio import Attributes, create_group, open_sealed, read_array, seal, write_array

CACHE = "stains"
"""Folder of a run."""
SCHEMA = "wsi-lmc/stains"
SCHEMA_VERSION = 2
_BLOCK = 32
_POOLED_TILES = 256
_POOLED_STRIDE = 8  # every 8th pixel along x and y of at most 256 tiles: 262,144 pixels a slide


@dataclass(frozen=True)
class Stains:
    """Unit optical densities of H and E a tile; ``slide_trusted`` says whether those of the whole slide are."""

    vectors: Float32[np.ndarray, "n 2 3"]
    trusted: Bool[np.ndarray, " n"]
    slide_vectors: Float32[np.ndarray, "2 3"]
    slide_trusted: bool


def load_or_estimate(store: TileStore, config: SeparationConfig, device: torch.device) -> Stains:
    """Stains of a slide from the cache, or estimated and then cached (not so where the folder cannot be written)."""
    run_folder = store.path.parent.parent
    final = run_folder / CACHE / f"{store.slide_id}.zarr"
    identity = {"tile_store": store.fingerprint, "config_fingerprint": fingerprint(config)}
    found = _load(final, identity)
    if found is not None:
        return found
    try:
        prepare_output(run_folder)
    except UsageError:
        return estimate(store, config, device)
    with exclusive(run_folder, f"stains-{store.slide_id}"):
        found = _load(final, identity)
        if found is None:
            found = estimate(store, config, device)
            with publishing(run_folder, final) as draft:
                _write(draft, found, identity)
    return found


def estimate(store: TileStore, config: SeparationConfig, device: torch.device) -> Stains:
    """Stains of every tile; those not trusted get their slide's."""
    vectors = np.empty((len(store), 2, 3), np.float32)
    trusted = np.zeros(len(store), bool)
    for start in range(0, len(store), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(store)))
        part = separate(torch.from_numpy(store.read(rows)).to(device), config)
        vectors[rows], trusted[rows] = part.vectors.cpu().numpy(), part.trusted.cpu().numpy()
    usable = np.flatnonzero(trusted) if trusted.any() else np.arange(len(store))
    slide_vectors, slide_trusted = _of_slide(store, usable, config, device)
    if slide_trusted:
        vectors[~trusted] = slide_vectors
    return Stains(vectors, trusted, slide_vectors, slide_trusted)


def fill_untrusted(stains: Sequence[Stains]) -> list[Float32[np.ndarray, "n 2 3"]]:
    """Vectors of every slide's tiles; where neither tile nor slide is trusted, the mean of the trusted slides'.

    Where no slide of the data set is trusted, Ruifrok's vectors remain.
    """
    reliable = [part.slide_vectors for part in stains if part.slide_trusted]
    common = np.mean(reliable, axis=0) if reliable else np.asarray(RUIFROK)
    common = (common / np.linalg.norm(common, axis=1, keepdims=True)).astype(np.float32)
    filled = []
    for part in stains:
        vectors = part.vectors.copy()
        if not part.slide_trusted:
            vectors[~part.trusted] = common
        filled.append(vectors)
    return filled


def _of_slide(
    store: TileStore, usable: Int64[np.ndarray, " u"], config: SeparationConfig, device: torch.device
) -> tuple[Float32[np.ndarray, "2 3"], bool]:
    if not len(usable):
        return np.asarray(RUIFROK, np.float32), False
    rows = usable[np.unique(np.linspace(0, len(usable) - 1, min(len(usable), _POOLED_TILES)).round().astype(np.int64))]
    parts = []
    for start in range(0, len(rows), _BLOCK):
        parts.append(store.read(rows[start : start + _BLOCK])[:, ::_POOLED_STRIDE, ::_POOLED_STRIDE])
    pooled = pool(torch.from_numpy(np.concatenate(parts)).to(device), config)
    return pooled.vectors[0].cpu().numpy(), bool(pooled.trusted[0])


def _load(path: Path, identity: Attributes) -> Stains | None:
    """What is cached; None where it is of something else, damaged or not there."""
    try:
        group, attributes = open_sealed(path, SCHEMA, SCHEMA_VERSION, ("vectors", "trusted", "slide_vectors"))
        if any(attributes.get(key) != value for key, value in identity.items()):
            return None
        vectors, trusted = read_array(group, "vectors"), read_array(group, "trusted").astype(bool)
        return Stains(vectors, trusted, read_array(group, "slide_vectors"), bool(attributes["slide_trusted"]))
    except StoreError:
        return None


def _write(path: Path, stains: Stains, identity: Attributes) -> None:
    group = create_group(path)
    write_array(group, "vectors", stains.vectors)
    write_array(group, "trusted", stains.trusted.astype(np.uint8))
    write_array(group, "slide_vectors", stains.slide_vectors)
    header = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "slide_trusted": stains.slide_trusted}
    seal(path, {**header, **identity})
