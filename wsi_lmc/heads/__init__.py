"""Heads on frozen features: tile classifiers and slide models, trained and chosen on one site, applied to others.

``examples`` is what they learn from, ``folds`` how a source is split, ``tiles`` and ``slides`` the heads, ``model`` how
they are kept, ``scoring`` how they did, ``maps`` where they looked. Only ``networks`` and ``bagtraining`` need torch.
"""

from wsi_lmc.heads.examples import Bags, Case, Examples
from wsi_lmc.heads.tiles import TileHead, fit

__all__ = ["Bags", "Case", "Examples", "TileHead", "fit"]
