"""What LMC is held against: the same network, steps and tiles, but stain met by Macenko's normalisation.

All tiles are normalised to a typical tile of the source, in training and afterwards. The encoder learns from views that
differ by flips and rotations alone. So both ways see the same slides, and only how they meet stain differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.normalisers import load_normaliser, normaliser_fingerprint
from wsi_lmc.run import CHECKPOINT, EmbedInputs, RunOptions, embed_cohort, open_stores, train_cohort
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.study.comparators import COMPARATORS
from wsi_lmc.study.data import normalise_run, write_typical_tile
from wsi_lmc.training import TrainConfig

MACENKO = "macenko"
_COMPARATOR = COMPARATORS["geometry-macenko"]


@dataclass(frozen=True)
class Material:
    """Tile stores of all slides, and which of them (by id) encoders are trained on."""

    run_folder: Path
    stores: Sequence[Path]
    seen: Sequence[str]


def embed_normalised(material: Material, training: TrainConfig, options: RunOptions) -> list[Outcome]:
    """Normalise, train and embed into the folder ``macenko`` of a run; ``training`` is LMC's, of which views change.

    Raises:
        UsageError: the source has no tile that Macenko's method can be fitted on.
    """
    folder = material.run_folder / MACENKO
    reference = folder / "reference.png"
    by_id = {store.name.removesuffix(".zarr"): store for store in material.stores}
    write_typical_tile(open_stores([by_id[slide_id] for slide_id in material.seen]), reference, training.seed)
    look = load_normaliser(_COMPARATOR.normalise, str(reference), None, torch.device("cpu"))
    assert look is not None  # noqa: S101  the comparator has one
    made_by = normaliser_fingerprint(_COMPARATOR.normalise, str(reference), None)
    made = normalise_run(material.run_folder, folder, look, made_by, torch.device("cpu"))
    stores = {store.slide_id: store.path for store in made if store.slide_id in by_id}
    settings = replace(training, views=_COMPARATOR.views)
    own = [stores[slide_id] for slide_id in material.seen]
    train_cohort(own, folder / CHECKPOINT, settings, SerialExecutor(), ("overwrite", lambda _: None))
    checkpoint = str((folder / CHECKPOINT).resolve())
    return embed_cohort(EmbedInputs(stores=list(stores.values())), checkpoint, folder, EmbedConfig(), options)
