"""What LMC is held against: the same network, steps and tiles, with stain met otherwise.

The encoders learn from views that differ by flips and rotations alone. ``geometry`` is no more than that. With
``macenko-target`` the same encoder is shown the other sites' tiles as Macenko's method brings them to the look of a
typical tile of the source, which is how the paper compares. For ``macenko``, the stronger form, all tiles are brought
there, in training and afterwards. All of them see the same slides as LMC does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.normalisers import load_normaliser, normaliser_fingerprint
from wsi_lmc.run import CHECKPOINT, EmbedInputs, RunOptions, embed_cohort, open_stores, train_cohort
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.study.comparators import PLAIN
from wsi_lmc.study.data import normalise_run, write_typical_tile
from wsi_lmc.training import TrainConfig

_GEOMETRY, _TARGET, _MACENKO = "geometry", "macenko-target", "macenko"
RIVALS: Mapping[str, str] = MappingProxyType(
    {_GEOMETRY: "no normalisation", _TARGET: "Macenko at the other site", _MACENKO: "Macenko on all tiles"}
)
"""Folders below the run's, and what they are called."""


@dataclass(frozen=True)
class Material:
    """Tile stores of all slides, those of the source site, and which of these encoders are trained on (by id)."""

    run_folder: Path
    stores: Mapping[str, Path]
    source: frozenset[str]
    seen: Sequence[str]


def embed_rivals(material: Material, training: TrainConfig, options: RunOptions) -> list[Outcome]:
    """Normalise, train and embed into the folders of `RIVALS`; ``training`` is LMC's, of which the views change.

    Raises:
        UsageError: the source has no tile that Macenko's method can be fitted on.
    """
    normalised, raw = _normalise(material, training.seed), material.stores
    shown = {slide_id: (raw if slide_id in material.source else normalised)[slide_id] for slide_id in raw}
    folder, settings = material.run_folder, replace(training, views=PLAIN)
    plain = _train([raw[slide_id] for slide_id in material.seen], folder / _GEOMETRY, settings)
    outcomes = _embed(raw, plain, folder / _GEOMETRY, options)
    outcomes += _embed(shown, plain, folder / _TARGET, options)
    everywhere = _train([normalised[slide_id] for slide_id in material.seen], folder / _MACENKO, settings)
    return outcomes + _embed(normalised, everywhere, folder / _MACENKO, options)


def _normalise(material: Material, seed: int) -> dict[str, Path]:
    """Stores of all slides in the look of the source."""
    folder = material.run_folder / _MACENKO
    reference = folder / "reference.png"
    write_typical_tile(open_stores([material.stores[slide_id] for slide_id in material.seen]), reference, seed)
    cpu = torch.device("cpu")
    look = load_normaliser("macenko", str(reference), None, cpu)
    assert look is not None  # noqa: S101  it is not "none"
    made_by = normaliser_fingerprint("macenko", str(reference), None)
    made = normalise_run(material.run_folder, folder, look, made_by, cpu)
    return {store.slide_id: store.path for store in made if store.slide_id in material.stores}


def _train(stores: Sequence[Path], folder: Path, settings: TrainConfig) -> str:
    """Train below ``folder``; where the encoder is."""
    checkpoint = folder / CHECKPOINT
    train_cohort(stores, checkpoint, settings, SerialExecutor(), ("overwrite", lambda _: None))
    return str(checkpoint.resolve())


def _embed(stores: Mapping[str, Path], checkpoint: str, folder: Path, options: RunOptions) -> list[Outcome]:
    return embed_cohort(EmbedInputs(stores=list(stores.values())), checkpoint, folder, EmbedConfig(), options)
