"""One slide as calibrated pixels: open it, know its mpp and where that came from, read boxes at a wanted mpp."""

from wsi_lmc.slide.calibration import GivenMpp, calibrate, parse_mpp
from wsi_lmc.slide.geometry import Sampling, SlideGeometry, SlideInfo, choose_sampling
from wsi_lmc.slide.opening import ReaderName, check_file, open_slide
from wsi_lmc.slide.reader import MppStatement, Reader
from wsi_lmc.slide.slide import Overview, Region, Slide

__all__ = [
    "GivenMpp",
    "MppStatement",
    "Overview",
    "Reader",
    "ReaderName",
    "Region",
    "Sampling",
    "Slide",
    "SlideGeometry",
    "SlideInfo",
    "calibrate",
    "check_file",
    "choose_sampling",
    "open_slide",
    "parse_mpp",
]
