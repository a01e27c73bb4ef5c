"""What whoever trains is warned of: signs that an encoder will be of less use than its loss says."""

import logging
from collections.abc import Mapping, Sequence

from wsi_lmc.tilestore import TileStore

_log = logging.getLogger(__name__)
_COLLAPSED_RANK = 1.5
_FAINT_STD = 0.05  # of features, over held-out tiles; an untrained network has some 0.2


def warn_of_nominal(stores: Sequence[TileStore]) -> None:
    """Say where nobody knows the scale that an encoder is trained at."""
    nominal = sum(store.nominal for store in stores)
    if nominal:
        _log.warning(
            "the pixel size of %d of %d slides is nominal: the encoder's scale is as little known, and that of slides "
            "it is used on cannot be checked against it",
            *(nominal, len(stores)),
        )


def warn_of_collapse(step: int, metrics: Mapping[str, float]) -> None:
    """Say where held-out features no longer tell tiles apart."""
    rank = metrics["held_out_effective_rank"]
    if rank < _COLLAPSED_RANK:
        _log.warning("step %d: the features have collapsed onto one direction (effective rank %.2f)", step, rank)
    elif metrics["held_out_std"] < _FAINT_STD:
        _log.warning(
            "step %d: the features are all but constant (standard deviation %.3f over tiles): any shift between sites "
            "is large beside that, and half precision would lose them; --spread-weight 1 keeps them apart",
            *(step, metrics["held_out_std"]),
        )
