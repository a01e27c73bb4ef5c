"""The resumable training loop and the checkpoint folder it fills.

``encoder/`` and ``provenance.json`` appear at the end; until then the folder holds states, ``metrics.jsonl`` and
TensorBoard events.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from wsi_lmc.checkpoint import read_metrics
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.encoder import (
    ENCODER_FOLDER,
    EncoderMetadata,
    TrainingFacts,
    save_encoder,
    weights_sha256,
    write_card,
)
from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import created_by, to_json
from wsi_lmc.publish import exclusive, prepare_output, publish_text, publishing
from wsi_lmc.stainstore import fill_untrusted, load_or_estimate
from wsi_lmc.tilestore import TileStore
from wsi_lmc.trainedslides import PROVENANCE
from wsi_lmc.training.config import TrainConfig
from wsi_lmc.training.folder import Journal, Start, prepare_folder, resume
from wsi_lmc.training.group import Group, joined
from wsi_lmc.training.learner import Learner
from wsi_lmc.training.probe import KnnProbe, probe_of
from wsi_lmc.training.signs import warn_of_collapse, warn_of_nominal

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What a progress display gets after every step: completed steps, of how many, and the step's metrics."""

    step: int
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Watch:
    """Who watches a training, which changes nothing in it.

    ``on_step`` is called after every step; a KeyboardInterrupt, from there or from a signal, saves a state and goes on
    upwards. ``slides`` tells labels and patients of slides, for the probe on held-out tiles.
    """

    on_step: Callable[[StepReport], None] | None = None
    slides: Sequence[SlideEntry] = ()


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
    probe: KnnProbe | None

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
    watch: Watch | None = None,
) -> TrainResult:
    """Train an encoder on the tiles of one site and write the checkpoint folder ``out``.

    Args:
        stores: tile stores of one tile size and pixel size; their order does not matter.
        out: the checkpoint folder.
        config: how to train.
        start: "new" wants a folder without a training; "resume" goes on from the newest valid state, or begins where
            there is none; "overwrite" removes an earlier training first.
        watch: who hears of it, and what is known of the slides.

    Raises:
        UsageError: the folder, the cohort or the configuration does not fit; nothing was changed.
        StoreError: a store cannot be read, or every saved state is damaged.
        TrainingError: too few tiles, a non-finite loss or gradient, or too little memory.
    """
    ordered = sorted(stores, key=lambda store: store.slide_id)
    with joined(config.device, config.batch) as group:
        return _train_in(group, ordered, out, config, (start, watch or Watch()))


def _train_in(
    group: Group,
    stores: list[TileStore],
    out: Path,
    config: TrainConfig,
    how: tuple[Start, Watch],
) -> TrainResult:
    """One process's part; a function of its own, so that nothing holds on to the group once it is left."""
    start, watch = how
    check_compatible(stores)
    warn_of_nominal(stores)
    with _claimed(out, start, group):
        learner = Learner(config, stores[0].tile_px, group)
        damaged = resume(learner, out, stores)
        cohort = _gather_cohort(stores, config, group.device, watch.slides)
        _loop(learner, cohort, out, watch.on_step)
        sha256 = _publish_encoder(learner, cohort, out) if group.first else weights_sha256(learner.model)
        group.wait()
    rows = read_metrics(out)
    return TrainResult(config.steps, str(group.device), sha256, cohort.split.unit, damaged, rows[0], rows[-1])


@contextmanager
def _claimed(out: Path, start: Start, group: Group) -> Iterator[None]:
    """Hold the checkpoint folder, readied for this training; the first of several processes does it for all."""
    if not group.first:
        group.wait()
        yield
        return
    prepare_output(out)
    with exclusive(out, "train", wait_s=0.0) as free:
        if not free:
            raise UsageError(f"another training is writing to {out}", "a folder of its own", "Wait, or choose another.")
        prepare_folder(out, start)
        group.wait()
        yield


def _loop(learner: Learner, cohort: _Cohort, out: Path, on_step: Callable[[StepReport], None] | None) -> None:
    config, group = learner.config, learner.group
    sampler = TileSampler(cohort.split.train, config.batch, config.seed, config.tiles_per_slide)
    batches = TileBatches(cohort.stores, cohort.stains, sampler, config.prefetch, group.share(config.batch))
    began, waited, mark = time.monotonic(), 0.0, time.monotonic()
    with (
        closing(Journal(learner, cohort.stores, out)) as journal,
        closing(batches.iterate(learner.step, config.steps)) as reader,
    ):
        if learner.step == 0 and group.first:
            untrained = learner.evaluate(cohort.held_out(config.batch), cohort.probe)
            journal.write(untrained, {"seconds": time.monotonic() - began, "waiting_for_tiles": 0.0})
        try:
            for batch in reader:
                waited += time.monotonic() - mark
                step = learner.step + 1
                logged = step == 1 or _due(step, config.log_every, config)
                metrics = learner.learn(batch, describe=logged)
                if _due(step, config.evaluate_every, config) and group.first:
                    metrics |= learner.evaluate(cohort.held_out(config.batch), cohort.probe)
                    warn_of_collapse(step, metrics)
                if logged or "held_out_loss" in metrics:
                    seconds = time.monotonic() - began
                    journal.write(metrics, {"seconds": seconds, "waiting_for_tiles": waited / seconds})
                if _due(step, config.checkpoint_every, config):
                    journal.save()
                if on_step:
                    on_step(StepReport(step, config.steps, metrics))
                mark = time.monotonic()
        except KeyboardInterrupt:
            if learner.whole:  # otherwise the last saved state is the one to resume from
                journal.save()
            raise


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return step % every == 0 or step == config.steps


def _gather_cohort(
    stores: list[TileStore], config: TrainConfig, device: torch.device, slides: Sequence[SlideEntry]
) -> _Cohort:
    split = split_rows(stores, config.held_out_share, config.held_out_tiles, config.seed)
    if split.unit != "slides":
        kept = "tiles of slides that are also trained on" if split.unit == "tiles" else "training tiles themselves"
        _log.warning("too few slides to hold one out: held-out metrics are of %s", kept)
    stains = [load_or_estimate(store, config.separation, device) for store in stores]
    probe = probe_of(split.held_out, [store.slide_id for store in stores], slides)
    if probe is None and any(entry.label for entry in slides):
        _log.warning("no probe of labels: it needs held-out tiles of two classes, each of two patients")
    return _Cohort(stores, fill_untrusted(stains), split, probe)


def _publish_encoder(learner: Learner, cohort: _Cohort, out: Path) -> str:
    """Write ``provenance.json`` and, last, ``encoder/``; returns the weights' SHA-256."""
    config, stores = learner.config, cohort.stores
    mpp = float(np.mean([store.mpp.mean for store in stores]))
    metadata = EncoderMetadata(config.architecture, config.views.mode, mpp, config.steps)
    with publishing(out, out / ENCODER_FOLDER) as draft:
        sha256 = save_encoder(draft, learner.model, metadata)
        write_card(draft, _facts(config, cohort, out))
        provenance = {
            "schema": "wsi-lmc/checkpoint",
            "schema_version": 1,
            "created_by": created_by(),
            "encoder_sha256": sha256,
            "mode": config.views.mode,
            "augmentation": to_json(config.views),
            "trained_mpp": mpp,
            "nominal_mpp": sum(store.nominal for store in stores),
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
        publish_text(out, out / PROVENANCE, json.dumps(provenance, indent=2, sort_keys=True) + "\n")
    return sha256


def _facts(config: TrainConfig, cohort: _Cohort, out: Path) -> TrainingFacts:
    """What the model card says: counts and metrics, nothing that names a slide."""
    rows, split = read_metrics(out), cohort.split
    trained_on = [len(part) for part in split.train]
    return TrainingFacts(
        views=config.views,
        slides=sum(map(bool, trained_on)),
        tiles=sum(trained_on),
        nominal=any(store.nominal for store in cohort.stores),
        held_out=split.unit,
        held_out_tiles=sum(len(part) for part in split.held_out),
        before=rows[0],
        after=rows[-1],
    )
