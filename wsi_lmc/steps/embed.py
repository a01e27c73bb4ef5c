"""One slide into its feature store, from its tile store or straight from the slide; a large one in parts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np

from wsi_lmc.backends import accelerated, lanes_of, used_by
from wsi_lmc.embedding import EmbedConfig, check_mpp
from wsi_lmc.encoder import load_encoder
from wsi_lmc.engine import Engine
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.memory import give_back
from wsi_lmc.normalisers import load_normaliser, normaliser_fingerprint
from wsi_lmc.pooling import pooled
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import publishing, working
from wsi_lmc.steps.outcome import Outcome, Split, Stage, still_valid, succeeded
from wsi_lmc.steps.parts import Part, Parts, remove_parts
from wsi_lmc.steps.sources import Source, open_source, source_identity
from wsi_lmc.steps.tile import TileTask
from wsi_lmc.tilestore import TileRows, Validity
from wsi_lmc.tiling import check_readable
from wsi_lmc.zarrio import Attributes


@dataclass(frozen=True)
class EmbedTask:
    """Embed one slide into the run folder ``out``, or ``part`` of it, a number of a block of ``config.block`` tiles.

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
    part: int | None = None

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to."""
        return "embed"

    @property
    def result(self) -> Path:
        """The feature store that is written."""
        return self.out / "features" / f"{self.slide_id}.zarr"


def embed_slide(task: EmbedTask) -> Outcome | Split[EmbedTask]:
    """Embed one slide; from its tile store and straight from the slide the pixels, and so the features, are the same.

    A slide of more than one block is not embedded at once: its parts that are not there yet come back. When they are,
    the same task publishes the slide.

    Raises:
        SlideError: the slide cannot be processed, for the reason its code names.
        StoreError: the tile store cannot be read.
        UsageError: the encoder is not what it was when the task was made.
    """
    if task.part is not None:
        return _embed_part(task, task.part)
    began = time.monotonic()
    final = task.result
    with working(task.out, f"embed-{task.slide_id}"):
        identity = _identity(task)
        finished = _finished(final, identity, task.overwrite)
        if finished is not None:
            remove_parts(task.out, task.slide_id)  # in case that who published it was killed right after
            outcome = succeeded(task.slide_id, "embed", finished.attributes["slide"], len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        engine = _engine(task)
        with open_source(task.source) as source:
            check_mpp(engine.encoder, source.tile_mpp, task.config)
            parts = _parts(task, identity, source)
            found = [_embed(engine, source, parts.rows(0), task.config)] if len(parts) == 1 else _collect(parts)
            missing = [number for number, part in enumerate(found) if part is None]
            if missing:
                return Split(tuple(replace(task, part=number) for number in missing))
            features, rows = _joined(cast(list[Part], found), source, engine.encoder.dim, task.config)
        attributes = source.described | identity | _describe_encoder(engine, task)
        with publishing(task.out, final) as draft:
            write_features(draft, features, rows, attributes)
        remove_parts(task.out, task.slide_id)
    give_back()
    outcome = succeeded(task.slide_id, "embed", attributes["slide"], len(features))
    return replace(outcome, seconds=time.monotonic() - began)


def _embed_part(task: EmbedTask, number: int) -> Outcome:
    """Embed one block of a slide into its checkpoint, unless it is there."""
    began = time.monotonic()
    with working(task.out, f"embed-{task.slide_id}.{number}"), open_source(task.source) as source:
        parts = _parts(task, _identity(task), source)
        rows = parts.rows(number)
        if parts.load(number) is None:
            parts.save(number, *_embed(_engine(task), source, rows, task.config))
    return Outcome(task.slide_id, "embed", "done", tiles=len(rows), seconds=time.monotonic() - began)


def _embed(engine: Engine, source: Source, rows: range, config: EmbedConfig) -> Part:
    features = np.empty((len(rows), engine.encoder.dim), np.dtype(config.dtype))
    return features, engine.embed(source.blocks(rows), features)


def _parts(task: EmbedTask, identity: Attributes, source: Source) -> Parts:
    return Parts(task.out, task.slide_id, fingerprint(identity), len(source), task.config.block)


def _collect(parts: Parts) -> list[Part | None]:
    return [parts.load(number) for number in range(len(parts))]


def _joined(found: Sequence[Part], source: Source, dim: int, config: EmbedConfig) -> tuple[np.ndarray, TileRows]:
    """All of a slide's features, and its rows as they turned out to be."""
    nothing = np.empty((0, dim), np.dtype(config.dtype)), np.empty(0, np.uint8)
    features, valid = (np.concatenate(column) for column in zip(nothing, *found, strict=True))
    check_readable(int((valid == Validity.UNREADABLE).sum()), len(valid))
    return features, replace(source.rows, valid=valid)


def _identity(task: EmbedTask) -> Attributes:
    """Fingerprints of everything that decides a slide's features.

    The device and the batch are left out on purpose: they change no more than the last bits.
    """
    of_source = source_identity(task.source)
    settings: dict[str, Any] = {
        "encoder": task.encoder_sha256,
        "dtype": task.config.dtype,
        "precision": task.config.precision_on(task.config.device_here()),
        "backend": task.config.backend,
        "pooling": task.config.pooling,
        "normaliser": normaliser_fingerprint(task.config.normalise, task.config.reference, task.config.weights),
        "tile": of_source.pop("tile", None),
    }
    return of_source | {"config_fingerprint": fingerprint(settings)}


def _finished(final: Path, identity: Attributes, overwrite: bool) -> FeatureStore | None:
    """The published features, where they are what would be made now; a store that does not open is made anew."""
    try:
        store = FeatureStore.open(final)
    except StoreError:
        return None
    return store if still_valid(f"features/{final.name}", store.attributes, identity, overwrite) else None


def _describe_encoder(engine: Engine, task: EmbedTask) -> Attributes:
    encoder = engine.encoder
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
    return {"encoder": described, "batch_size": engine.at_once}


_engines: dict[tuple[str, str, EmbedConfig], Engine] = {}
_engines_lock = Lock()


def _engine(task: EmbedTask) -> Engine:
    """One engine a process, loaded once however many slides it embeds, and shared by the threads that read them."""
    key = (task.encoder, task.encoder_sha256, task.config)
    with _engines_lock:
        if key not in _engines:
            _engines.clear()  # whoever still uses another holds on to it
            _engines[key] = _load(*key)
        return _engines[key]


def _load(spec: str, sha256: str, config: EmbedConfig) -> Engine:
    device = config.device_here()
    encoder = load_encoder(spec, device, config.precision_on(device))
    if encoder.sha256 != sha256:
        raise UsageError(
            f"the encoder's weights have SHA-256 {encoder.sha256[:16]}",
            f"{sha256[:16]}, as when this run began",
            "Do not replace a checkpoint while it is in use; start again.",
        )
    normalise = load_normaliser(config.normalise, config.reference, config.weights, device)
    encoder = accelerated(pooled(encoder, config.pooling), config.backend)
    return Engine(encoder, normalise, config.batch_on(device), lanes_of(encoder))
