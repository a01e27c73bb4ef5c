"""One slide as calibrated pixels: open it, know its mpp and where that came from, read boxes at a wanted mpp."""

from wsi_lmc.slide.calibration import GivenMpp, agree, calibrate, parse_mpp
from wsi_lmc.slide.decoding import decode_jpeg, encode_jpeg
from wsi_lmc.slide.facts import FileFacts, look_into, openslide_version
from wsi_lmc.slide.geometry import Sampling, SlideGeometry, SlideInfo, choose_sampling
from wsi_lmc.slide.native import NativeTiles
from wsi_lmc.slide.opening import ReaderName, ReadOptions, check_file, open_slide
from wsi_lmc.slide.overviewing import Overview, Region
from wsi_lmc.slide.reader import Boxes, MppStatement, Reader, ReadError
from wsi_lmc.slide.samples import check_picture
from wsi_lmc.slide.slide import ReadPlan, Resample, Slide, Take

__all__ = [
    "Boxes",
    "FileFacts",
    "GivenMpp",
    "MppStatement",
    "NativeTiles",
    "Overview",
    "ReadError",
    "ReadOptions",
    "ReadPlan",
    "Reader",
    "ReaderName",
    "Region",
    "Resample",
    "Sampling",
    "Slide",
    "SlideGeometry",
    "SlideInfo",
    "Take",
    "agree",
    "calibrate",
    "check_file",
    "check_picture",
    "choose_sampling",
    "decode_jpeg",
    "encode_jpeg",
    "look_into",
    "open_slide",
    "openslide_version",
    "parse_mpp",
]
