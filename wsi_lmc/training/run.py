"""The resumable training loop and the checkpoint folder it fills.

``encoder/`` and ``provenance.json`` appear at the end; until then the folder holds states, ``metrics.jsonl`` and
TensorBoard events.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from wsi_lmc.batches import (
    Split,
    TileBatch,
    TileBatches,
    TileSampler,
    check_compatible,
    gather,
    in_order,
    split_rows,
)
from wsi_lmc.checkpoint import EVENTS, METRICS, MetricsLog, newest_valid_state, read_metrics, save_state
from wsi_lmc.encoder import ENCODER_FOLDER, EncoderMetadata, resolve_device, save_encoder
from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import created_by, to_json
from wsi_lmc.publish import exclusive, prepare_output, publish_text, publishing
from wsi_lmc.stainstore import fill_untrusted, load_or_estimate
from wsi_lmc.tilestore import TileStore
from wsi_lmc.training.config import MAY_CHANGE, TrainConfig
from wsi_lmc.training.learner import Learner

Start = Literal["new", "resume", "overwrite"]

_log = logging.getLogger(__name__)
_PROVENANCE = "provenance.json"
_BY_OTHERS = frozenset({"run.yaml", "logs"})  # may lie in a checkpoint folder before its training starts
_COLLAPSED_RANK = 1.5


@dataclass(frozen=True)
class StepReport:
    """What a progress display gets after every step: completed steps, of how many, and the step's metrics."""

    step: int
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    ``held_out`` says what was set aside ("slides", "tiles" or "nothing": then the held-out metrics are of training
    tiles); ``damaged`` names the states that were passed over on resuming; ``before`` and ``after`` are the
    rows of metrics.jsonl with held-out metrics of the untrained network (step 0) and of the trained one.
    """

    steps: int
    device: str
    encoder_sha256: str
    held_out: str
    damaged: tuple[str, ...]
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class _Cohort:
    """Stores in the order of their ids, the stain vectors of their tiles, and which rows are for what."""

    stores: list[TileStore]
    stains: list[np.ndarray]
    split: Split

    def held_out(self, batch: int) -> Iterator[TileBatch]:
        """The held-out tiles in a fixed order, at most ``batch`` at a time."""
        indices, rows = in_order(self.split.held_out)
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            yield gather(self.stores, self.stains, indices[part], rows[part])


def train(
    stores: Sequence[TileStore],
    out: Path,
    config: TrainConfig,
    start: Start = "new",
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainResult:
    """Train an encoder on the tiles of one site and write the checkpoint folder ``out``.

    Args:
        stores: tile stores of one tile size and pixel size; their order does not matter.
        out: the checkpoint folder.
        config: how to train.
        start: "new" wants a folder without a training; "resume" goes on from the newest valid state, or begins where
            there is none; "overwrite" removes an earlier training first.
        on_step: called after every step. A KeyboardInterrupt, from there or from a signal, saves a state and goes on
            upwards.

    Raises:
        UsageError: the folder, the cohort or the configuration does not fit; nothing was changed.
        StoreError: a store cannot be read, or every saved state is damaged.
        TrainingError: too few tiles, a non-finite loss or gradient, or too little memory.
    """
    device = resolve_device(config.device)
    ordered = sorted(stores, key=lambda store: store.slide_id)
    check_compatible(ordered)
    prepare_output(out)
    with exclusive(out, "train", wait_s=0.0) as free:
        if not free:
            raise UsageError(f"another training is writing to {out}", "a folder of its own", "Wait, or choose another.")
        _prepare_folder(out, start)
        learner = Learner(config, ordered[0].tile_px, device)
        damaged = _resume(learner, out, ordered)
        cohort = _gather_cohort(ordered, config, device)
        _loop(learner, cohort, out, on_step)
        sha256 = _publish_encoder(learner, cohort, out)
    rows = read_metrics(out)
    return TrainResult(config.steps, str(device), sha256, cohort.split.unit, damaged, rows[0], rows[-1])


def _loop(learner: Learner, cohort: _Cohort, out: Path, on_step: Callable[[StepReport], None] | None) -> None:
    config = learner.config
    sampler = TileSampler(cohort.split.train, config.batch, config.seed, config.tiles_per_slide)
    batches = TileBatches(cohort.stores, cohort.stains, sampler, config.prefetch)
    began, waited, mark = time.monotonic(), 0.0, time.monotonic()
    with (
        closing(MetricsLog(out, learner.step)) as log,
        closing(batches.iterate(learner.step, config.steps)) as reader,
    ):
        if learner.step == 0:
            untrained = learner.evaluate(cohort.held_out(config.batch))
            log.write(0, untrained, {"seconds": time.monotonic() - began, "waiting_for_tiles": 0.0})
        try:
            for batch in reader:
                waited += time.monotonic() - mark
                step = learner.step + 1
                logged = step == 1 or _due(step, config.log_every, config)
                metrics = learner.learn(batch, describe=logged)
                if _due(step, config.evaluate_every, config):
                    metrics |= learner.evaluate(cohort.held_out(config.batch))
                    _warn_of_collapse(step, metrics)
                if logged or "held_out_loss" in metrics:
                    seconds = time.monotonic() - began
                    log.write(step, metrics, {"seconds": seconds, "waiting_for_tiles": waited / seconds})
                if _due(step, config.checkpoint_every, config):
                    _save(learner, cohort.stores, out, log)
                if on_step:
                    on_step(StepReport(step, config.steps, metrics))
                mark = time.monotonic()
        except KeyboardInterrupt:
            if learner.whole:  # otherwise the last saved state is the one to resume from
                _save(learner, cohort.stores, out, log)
            raise


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return step % every == 0 or step == config.steps


def _save(learner: Learner, stores: list[TileStore], out: Path, log: MetricsLog) -> None:
    log.sync()
    state = learner.state() | {"config": to_json(learner.config), "stores": _fingerprints(stores)}
    save_state(out, learner.step, state, learner.config.keep)


def _fingerprints(stores: list[TileStore]) -> dict[str, str]:
    return {store.slide_id: store.fingerprint for store in stores}


def _prepare_folder(out: Path, start: Start) -> None:
    """Refuse to mix two trainings; remove the earlier one where that was asked for."""
    present = sorted(path for path in out.iterdir() if not path.name.startswith(".") and path.name not in _BY_OTHERS)
    if start == "new" and present:
        names = ", ".join(path.name for path in present[:3])
        raise UsageError(
            f"{out} holds {names}", "an empty folder for a new training", "Resume, overwrite, or choose -o."
        )
    if start == "overwrite":
        for path in present:
            if path.name in (ENCODER_FOLDER, EVENTS):
                shutil.rmtree(path)
            elif path.name in (METRICS, _PROVENANCE) or path.name.startswith("state-"):
                path.unlink()


def _resume(learner: Learner, out: Path, stores: list[TileStore]) -> tuple[str, ...]:
    """Restore the newest valid state, if any; returns the names of damaged ones.

    Raises:
        UsageError: it was trained with other settings or other tiles.
    """
    found = newest_valid_state(out)
    if found is None:
        return ()
    for name in found.damaged:
        _log.warning("%s is damaged: going on from the older state of step %d", name, found.step)
    saved, settings = (_flat(cast(dict[str, Any], of)) for of in (found.state["config"], to_json(learner.config)))
    differing = _differences(saved, settings, "setting", MAY_CHANGE)
    differing += _differences(found.state["stores"], _fingerprints(stores), "tiles of slide", frozenset())
    if differing:
        raise UsageError(
            f"{out} was trained otherwise: {'; '.join(differing[:5])}",
            "the same settings and tiles when resuming",
            "Restore them, or train in another folder.",
        )
    learner.restore(found.state)
    return found.damaged


def _flat(settings: Mapping[str, Any]) -> dict[str, object]:
    """Settings by name, those of nested configurations among them."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _differences(
    saved: Mapping[str, object], now: Mapping[str, object], what: str, ignored: frozenset[str]
) -> list[str]:
    names = sorted((saved.keys() | now.keys()) - ignored)
    return [
        f"{what} {name} was {saved.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in names
        if saved.get(name) != now.get(name)
    ]


def _gather_cohort(stores: list[TileStore], config: TrainConfig, device: torch.device) -> _Cohort:
    split = split_rows(stores, config.held_out_share, config.held_out_tiles, config.seed)
    if split.unit != "slides":
        kept = "tiles of slides that are also trained on" if split.unit == "tiles" else "training tiles themselves"
        _log.warning("too few slides to hold one out: held-out metrics are of %s", kept)
    stains = [load_or_estimate(store, config.separation, device) for store in stores]
    return _Cohort(stores, fill_untrusted(stains), split)


def _warn_of_collapse(step: int, metrics: dict[str, float]) -> None:
    rank = metrics["held_out_effective_rank"]
    if rank < _COLLAPSED_RANK:
        _log.warning("step %d: the features have collapsed onto one direction (effective rank %.2f)", step, rank)


def _publish_encoder(learner: Learner, cohort: _Cohort, out: Path) -> str:
    """Write ``provenance.json`` and, last, ``encoder/``; returns the weights' SHA-256."""
    config, stores = learner.config, cohort.stores
    mpp = float(np.mean([store.mpp.mean for store in stores]))
    metadata = EncoderMetadata(config.architecture, config.views.mode, mpp, config.steps)
    with publishing(out, out / ENCODER_FOLDER) as draft:
        sha256 = save_encoder(draft, learner.model, metadata)
        provenance = {
            "schema": "wsi-lmc/checkpoint",
            "schema_version": 1,
            "created_by": created_by(),
            "encoder_sha256": sha256,
            "mode": config.views.mode,
            "augmentation": to_json(config.views),
            "trained_mpp": mpp,
            "tile_px": stores[0].tile_px,
            "steps": config.steps,
            "held_out": cohort.split.unit,
            "slides": [
                {
                    "slide_id": store.slide_id,
                    "tiles": len(store.valid),
                    "trained_on": len(cohort.split.train[index]),
                    "held_out": len(cohort.split.held_out[index]),
                    "fingerprint": store.fingerprint,
                }
                for index, store in enumerate(stores)
            ],
            "config": to_json(config),
        }
        publish_text(out, out / _PROVENANCE, json.dumps(provenance, indent=2, sort_keys=True) + "\n")
    return sha256
