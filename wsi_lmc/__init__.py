"""wsi-lmc: stain-invariant features for whole-slide images.

``tile`` cuts slides into calibrated tiles, ``train`` fits an encoder to one site's unlabelled tiles by Latent
Manifold Compaction, ``embed`` turns every tile into features. What the command line does, :data:`__all__` does from
Python, see docs/api.md. Importing this package loads neither torch nor dask: a name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_lmc.api.learning import embed, evaluate, train
    from wsi_lmc.api.slides import cut_tiles, find_tissue, open_slide, place_tiles
    from wsi_lmc.bagdata import Bag, BagBatch, BagDataset, collate_bags
    from wsi_lmc.encoder import Encoder
    from wsi_lmc.errors import SlideError, StoreError, TrainingError, UsageError, WsiLmcError
    from wsi_lmc.evaluation import Evaluation
    from wsi_lmc.featurestore import FeatureStore
    from wsi_lmc.grid import TileGrid
    from wsi_lmc.slide import Slide
    from wsi_lmc.tilestore import TileStore, Validity
    from wsi_lmc.tissue import TissueMask
    from wsi_lmc.training import TrainResult

__version__ = "0.1.0"  # the one place that says so: the build reads it here, and a release's tag must agree

__all__ = [
    "Bag",
    "BagBatch",
    "BagDataset",
    "Encoder",
    "Evaluation",
    "FeatureStore",
    "Slide",
    "SlideError",
    "StoreError",
    "TileGrid",
    "TileStore",
    "TissueMask",
    "TrainResult",
    "TrainingError",
    "UsageError",
    "Validity",
    "WsiLmcError",
    "collate_bags",
    "cut_tiles",
    "embed",
    "evaluate",
    "find_tissue",
    "open_slide",
    "place_tiles",
    "train",
]

_HOMES = {
    "api.learning": ("embed", "evaluate", "train"),
    "api.slides": ("cut_tiles", "find_tissue", "open_slide", "place_tiles"),
    "bagdata": ("Bag", "BagBatch", "BagDataset", "collate_bags"),
    "encoder": ("Encoder",),
    "errors": ("SlideError", "StoreError", "TrainingError", "UsageError", "WsiLmcError"),
    "evaluation": ("Evaluation",),
    "featurestore": ("FeatureStore",),
    "grid": ("TileGrid",),
    "slide": ("Slide",),
    "tilestore": ("TileStore", "Validity"),
    "tissue": ("TissueMask",),
    "training": ("TrainResult",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import an exported name when it is first asked for, and keep it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
