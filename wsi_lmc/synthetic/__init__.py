"""Synthetic H&E slides with known truth: real pyramidal files, drawn by the Beer-Lambert law.

Two sites stain and scan differently; two kinds of tissue differ in morphology only. For demonstrations and tests, not
for science: what works here need not work on tissue.
"""

from wsi_lmc.synthetic.cohort import SlideTruth, load_truth, tile_classes, write_cohort, write_slide
from wsi_lmc.synthetic.drawing import CLASSES, NO_CLASS, Drawing, SlideSpec, draw
from wsi_lmc.synthetic.sites import NORTH, SITES, SOUTH, Site, Staining, expose, stain_slide

__all__ = [
    "CLASSES",
    "NORTH",
    "NO_CLASS",
    "SITES",
    "SOUTH",
    "Drawing",
    "Site",
    "SlideSpec",
    "SlideTruth",
    "Staining",
    "draw",
    "expose",
    "load_truth",
    "stain_slide",
    "tile_classes",
    "write_cohort",
    "write_slide",
]
