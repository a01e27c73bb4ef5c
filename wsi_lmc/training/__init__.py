"""Latent Manifold Compaction: train an encoder so that every stain appearance of a tile maps to one point.

``config`` says how, ``learner`` does one step (in little memory: ``microbatch``), ``run`` is the resumable loop
around it, ``probe`` asks on the way what the features know.
"""

from wsi_lmc.training.config import TrainConfig
from wsi_lmc.training.run import StepReport, TrainResult, Watch, train

__all__ = ["StepReport", "TrainConfig", "TrainResult", "Watch", "train"]
