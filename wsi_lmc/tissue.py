"""Where the tissue is: a mask over a small overview, by colour saturation, with pen marks and black edges rejected.

Otsu's threshold is taken on the logarithm of the saturation. On saturation itself it parts strongly stained from
faintly stained tissue and loses submucosa and fat: on a colon polyp it keeps 0.76 of the tiles (IoU) that a QuPath
mask keeps, on the logarithm 0.93 (tiles of 64 um) and 0.94 (128 um).
"""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_doc import Doc
from jaxtyping import Bool, UInt8
from skimage.filters import threshold_otsu

from wsi_lmc.slide import Overview, Slide


@dataclass(frozen=True)
class TissueConfig:
    """How tissue is told from glass."""

    overview_mpp: Annotated[float, Doc("Finest pixel of the overview that the mask is made on, in microns.")] = 8.0
    smooth_um: Annotated[float, Doc("Sigma of the blur before the threshold, in microns.")] = 4.0
    min_object_um2: Annotated[float, Doc("Pieces of tissue smaller than this are dropped, in um2.")] = 20_000.0
    min_hole_um2: Annotated[float, Doc("Holes smaller than this are filled, in um2: lumina are tissue.")] = 80_000.0
    lowest_threshold: Annotated[
        int, Doc("Saturation (0 to 255) that Otsu's threshold is not let under: keeps bare glass out.")
    ] = 6
    highest_threshold: Annotated[
        int, Doc("Saturation that Otsu's threshold is not let over: keeps a slide full of tissue in.")
    ] = 32


@dataclass(frozen=True)
class TissueMask:
    """Tissue on an overview: ``downsample`` level-0 pixels make one mask pixel, along x and y."""

    mask: Bool[np.ndarray, "y x"]
    downsample: tuple[float, float]
    threshold: float | None


def find_tissue(slide: Slide, config: TissueConfig) -> tuple[TissueMask, Overview]:
    """Find tissue on an overview of the slide; also returns the overview, for pictures.

    Otsu's threshold on the logarithm of the blurred saturation, held between two limits: on a slide of bare glass, or
    of nothing but tissue, Otsu splits noise or stain.
    """
    overview = slide.overview(config.overview_mpp)
    um = overview.downsample[0] * slide.geometry.mpp.mean
    mask, threshold = tissue_of(overview.pixels, um, config)
    return TissueMask(mask, overview.downsample, threshold), overview


def tissue_of(
    pixels: UInt8[np.ndarray, "y x 3"], um: float, config: TissueConfig
) -> tuple[Bool[np.ndarray, "y x"], float]:
    """Tissue mask of RGB pixels of ``um`` microns, and the saturation threshold found."""
    foreign = pen_or_black(pixels)
    saturation = saturation_of(pixels).astype(np.float32)
    saturation[foreign] = 0  # before the blur, so that a pen mark does not spread into its surroundings
    smooth = cv2.GaussianBlur(saturation, (0, 0), max(config.smooth_um / um, 0.3))
    candidates = smooth[~foreign]
    flat = candidates.size == 0 or candidates.min() == candidates.max()
    found = 0.0 if flat else float(np.expm1(threshold_otsu(np.log1p(candidates))))
    threshold = float(min(max(found, config.lowest_threshold), config.highest_threshold))
    mask = (smooth > threshold) & ~foreign
    pixel_um2 = um * um
    mask = _without_small(mask, config.min_object_um2 / pixel_um2)
    glass = np.pad(~mask, 1, constant_values=True)  # glass that reaches the slide's edge is no hole
    filled = ~_without_small(glass, config.min_hole_um2 / pixel_um2, outer=True)[1:-1, 1:-1]
    return filled & ~foreign, threshold


def _without_small(mask: Bool[np.ndarray, "y x"], most: float, outer: bool = False) -> Bool[np.ndarray, "y x"]:
    """A mask without its pieces, connected along edges, of ``most`` pixels or fewer.

    With ``outer``, the piece at the corner stays whatever its size: on a small slide all glass is less than a hole.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    large = stats[:, cv2.CC_STAT_AREA] > int(most)
    if outer:
        large[labels[0, 0]] = True
    large[0] = False  # what the mask leaves out
    return large[labels.astype(np.int64, copy=False)]


def saturation_of(pixels: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x"]:
    """HSV saturation, 0 to 255; black has none."""
    return np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1])


def pen_or_black(pixels: UInt8[np.ndarray, "y x 3"]) -> Bool[np.ndarray, "y x"]:
    """Ink and black edges: what no mixture of hematoxylin and eosin looks like.

    Both stains pass blue at least as well as green and red light better than green, so green above both or blue far
    above red is ink; without colour and dark is ink or the edge of the glass.
    """
    red, green, blue = cv2.split(cv2.blur(pixels, (3, 3)))
    dark = cv2.max(cv2.max(red, green), blue) < 70
    greener = cv2.subtract(green, red)  # 0 where it is not
    green_ink = (greener > 12) & (cv2.subtract(blue, green) < 20) & (red < 190)
    blue_ink = (cv2.subtract(blue, red) > 60) & (greener > 5)
    ink = (dark | green_ink | blue_ink).astype(np.uint8)
    ink = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))  # single dark nuclei are no ink
    return cv2.dilate(ink, np.ones((5, 5), np.uint8)).astype(bool)
