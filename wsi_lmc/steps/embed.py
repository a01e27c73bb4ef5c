"""One slide into its feature store, from its tile store or straight from the slide."""

import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from wsi_lmc.backends import accelerated, used_by
from wsi_lmc.embedding import EmbedConfig, check_mpp, embed_blocks, store_blocks
from wsi_lmc.encoder import Encoder, load_encoder
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.normalisers import Normaliser, load_normaliser, normaliser_fingerprint
from wsi_lmc.pooling import pooled
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import exclusive, publishing
from wsi_lmc.slide import check_file
from wsi_lmc.steps.outcome import Outcome, Stage, still_valid, succeeded
from wsi_lmc.steps.tile import TileTask, open_task_slide, plan_tiles, refuse_duplicate, tile_identity
from wsi_lmc.threads import Threads, threads_of_process
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tiling import TILES_PER_BLOCK, describe_tiles, read_blocks
from wsi_lmc.zarrio import Attributes

FROM_SLIDE = "from slide"


@dataclass(frozen=True)
class EmbedTask:
    """Embed one slide into the run folder ``out``.

    ``source`` is a tile store, or a task whose tiles are read straight from the slide. ``encoder`` is a spec as
    :func:`wsi_lmc.encoder.load_encoder` takes it, ``encoder_sha256`` the weights it must stand for: a worker that
    lives long must not go on with weights it loaded before they were replaced.
    """

    slide_id: str
    source: Path | TileTask
    out: Path
    encoder: str
    encoder_sha256: str
    config: EmbedConfig
    overwrite: bool = False

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to."""
        return "embed"


def embed_slide(task: EmbedTask) -> Outcome:
    """Embed one slide; from its tile store and straight from the slide the pixels, and so the features, are the same.

    Raises:
        SlideError: the slide cannot be processed, for the reason its code names.
        StoreError: the tile store cannot be read.
        UsageError: the encoder is not what it was when the task was made.
    """
    began = time.monotonic()
    final = task.out / "features" / f"{task.slide_id}.zarr"
    with exclusive(task.out, f"embed-{task.slide_id}"):
        identity = _identity(task)
        finished = _finished(final, identity, task.overwrite)
        if finished is not None:
            outcome = succeeded(task.slide_id, "embed", finished.attributes["slide"], len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        network = _Network(*_load(task.encoder, task.encoder_sha256, task.config))
        embed = _embed_store if isinstance(task.source, Path) else _embed_from_slide
        features, rows, described = embed(cast(Any, task.source), network, task.config)
        encoder = network.encoder
        attributes = described | identity | _describe_encoder(encoder, task)
        with publishing(task.out, final) as draft:
            write_features(draft, features, rows, attributes)
    outcome = succeeded(task.slide_id, "embed", attributes["slide"], len(features))
    return replace(outcome, seconds=time.monotonic() - began)


class _Network(NamedTuple):
    """What tiles go through."""

    encoder: Encoder
    normalise: Normaliser | None


def _embed_store(path: Path, network: _Network, config: EmbedConfig) -> tuple[np.ndarray, TileRows, Attributes]:
    store = TileStore.open(path)
    check_mpp(network.encoder, store.mpp.mean, config)
    with Threads(threads_of_process()) as threads:
        blocks = store_blocks(store, threads)
        features, valid = embed_blocks(network.encoder, blocks, len(store), config, network.normalise)
    described = {"slide": store.attributes["slide"], "tile": store.attributes["tile"]}
    return features, TileRows(store.origins, store.tissue_fraction, valid), described


def _embed_from_slide(
    tiles: TileTask, network: _Network, config: EmbedConfig
) -> tuple[np.ndarray, TileRows, Attributes]:
    with open_task_slide(tiles) as slide:
        grid, _, _ = plan_tiles(tiles, slide)
        check_mpp(network.encoder, grid.sampling.effective_mpp.mean, config)
        blocks = read_blocks(slide, grid, TILES_PER_BLOCK)
        features, valid = embed_blocks(network.encoder, blocks, len(grid), config, network.normalise)
        described = {"slide": asdict(slide.info), "tile": describe_tiles(slide, grid)}
    return features, TileRows(grid.origins, grid.tissue_fraction, valid), described


def _identity(task: EmbedTask) -> Attributes:
    """Fingerprints of everything that decides a slide's features; the device is left out, its precision is in."""
    settings: dict[str, Any] = {
        "encoder": task.encoder_sha256,
        "batch": task.config.batch,
        "dtype": task.config.dtype,
        "precision": task.config.precision_on(task.config.device_here()),
        "backend": task.config.backend,
        "pooling": task.config.pooling,
        "normaliser": normaliser_fingerprint(task.config.normalise, task.config.reference, task.config.weights),
    }
    if isinstance(task.source, Path):
        store = TileStore.open(task.source)
        slide, tiles = store.attributes["slide_fingerprint"], store.fingerprint
    else:
        refuse_duplicate(task.source.entry)
        check_file(task.source.entry.path)
        of_tiles = tile_identity(task.source)
        slide, tiles = of_tiles["slide_fingerprint"], FROM_SLIDE
        settings["tile"] = {key: value for key, value in of_tiles.items() if key != "slide_fingerprint"}
    return {"slide_fingerprint": slide, "tile_store": tiles, "config_fingerprint": fingerprint(settings)}


def _finished(final: Path, identity: Attributes, overwrite: bool) -> FeatureStore | None:
    """The published features, where they are what would be made now; a store that does not open is made anew."""
    try:
        store = FeatureStore.open(final)
    except StoreError:
        return None
    return store if still_valid(f"features/{final.name}", store.attributes, identity, overwrite) else None


def _describe_encoder(encoder: Encoder, task: EmbedTask) -> Attributes:
    described = {
        "name": encoder.name,
        "architecture": encoder.architecture,
        "sha256": encoder.sha256,
        "mode": encoder.mode,
        "trained_mpp": encoder.trained_mpp,
        "dtype": task.config.dtype,
        "precision": encoder.precision,
        "backend": used_by(encoder),
        "normalised": task.config.normalise,
    }
    return {"encoder": described, "batch_size": task.config.batch}


@lru_cache(maxsize=1)
def _load(spec: str, sha256: str, config: EmbedConfig) -> tuple[Encoder, Normaliser | None]:
    """One encoder, and one normaliser, a process, loaded once however many slides it embeds."""
    device = config.device_here()
    encoder = load_encoder(spec, device, config.precision_on(device))
    if encoder.sha256 != sha256:
        raise UsageError(
            f"the encoder's weights have SHA-256 {encoder.sha256[:16]}",
            f"{sha256[:16]}, as when this run began",
            "Do not replace a checkpoint while it is in use; start again.",
        )
    normalise = load_normaliser(config.normalise, config.reference, config.weights, device)
    return accelerated(pooled(encoder, config.pooling), config.backend), normalise
