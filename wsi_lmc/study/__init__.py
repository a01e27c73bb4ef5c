"""Studies: many ways to meet a batch effect, made alike on one source site and compared at others."""

from wsi_lmc.study.comparators import COMPARATORS, Comparator
from wsi_lmc.study.comparing import StudyResult, compare_all, run_study
from wsi_lmc.study.config import Study, StudyConfig
from wsi_lmc.study.run import make_features, open_workshop

__all__ = [
    "COMPARATORS",
    "Comparator",
    "Study",
    "StudyConfig",
    "StudyResult",
    "compare_all",
    "make_features",
    "open_workshop",
    "run_study",
]
