"""Studies: many ways to meet a batch effect, made alike on one source site and compared at others."""

from wsi_lmc.study.comparators import COMPARATORS, Comparator
from wsi_lmc.study.config import Study, StudyConfig
from wsi_lmc.study.run import make_features, open_workshop

__all__ = ["COMPARATORS", "Comparator", "Study", "StudyConfig", "make_features", "open_workshop"]
