"""Features that other tools made (TRIDENT, CLAM) into our stores, so that they are measured and classified as our own.

What their files do not tell is asked for or stays unknown: a pixel size is never made of a magnification.
"""

from wsi_lmc.importing.config import ImportConfig
from wsi_lmc.importing.finding import Candidate, ImportInputs, find_imports, hide
from wsi_lmc.importing.foreign import Layout
from wsi_lmc.importing.running import import_cohort, target_mpps

__all__ = [
    "Candidate",
    "ImportConfig",
    "ImportInputs",
    "Layout",
    "find_imports",
    "hide",
    "import_cohort",
    "target_mpps",
]
