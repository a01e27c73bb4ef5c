"""Latent Manifold Compaction: train an encoder so that every stain appearance of a tile maps to one point.

``config`` says how, ``learner`` does one step, ``run`` is the resumable loop around it.
"""

from wsi_lmc.training.config import TrainConfig
from wsi_lmc.training.run import StepReport, TrainResult, train

__all__ = ["StepReport", "TrainConfig", "TrainResult", "train"]
