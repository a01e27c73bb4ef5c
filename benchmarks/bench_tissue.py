"""Which threshold finds the tissue a pathologist outlined? Otsu's on several images of one slide, against a mask.

    python benchmarks/bench_tissue.py SLIDE.tif MASK.png --mask-downsample 4 --mpp 0.25

Counted in tiles, since tiles are what is kept: those that are at least half tissue in each of the two masks, as
intersection over union. One slide chooses nothing; it shows what each rule loses.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from skimage.filters import threshold_otsu

from wsi_lmc.grid import GridConfig, place_tiles
from wsi_lmc.slide import GivenMpp, Overview, Slide, open_slide
from wsi_lmc.tissue import TissueConfig, TissueMask, saturation_of, tissue_of

Rule = Callable[[Overview, float], np.ndarray]


def otsu_of(image: Callable[[np.ndarray], np.ndarray], above: bool) -> Rule:
    """Otsu's threshold on an image made of the overview's pixels, blurred by 4 um, without any limits or repairs."""

    def rule(overview: Overview, um: float) -> np.ndarray:
        smooth = cv2.GaussianBlur(image(overview.pixels).astype(np.float32), (0, 0), 4.0 / um)
        threshold = threshold_otsu(smooth)
        return smooth > threshold if above else smooth < threshold

    return rule


def ours(**changes: float) -> Rule:
    """The package's own detection, some settings changed."""
    return lambda overview, um: tissue_of(overview.pixels, um, replace(TissueConfig(), **changes))[0]


RULES: dict[str, Rule] = {
    "Otsu on grey": otsu_of(lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), above=False),
    "Otsu on saturation": otsu_of(saturation_of, above=True),
    "Otsu on log saturation": otsu_of(lambda pixels: np.log1p(saturation_of(pixels).astype(np.float32)), above=True),
    "wsi-lmc (log, limits, small pieces, holes)": ours(),
    "  sigma 8 um": ours(smooth_um=8.0),
    "  sigma 16 um": ours(smooth_um=16.0),
    "  holes under 20,000 um2 filled": ours(min_hole_um2=20_000.0),
    "  no hole filled": ours(min_hole_um2=0.0),
}


def kept(mask: np.ndarray, downsample: tuple[float, float], slide: Slide, tile_um: float) -> set[tuple[int, int]]:
    """Origins of the tiles of ``tile_um`` microns that are kept."""
    grid = place_tiles(TissueMask(mask, downsample, None), slide.geometry, GridConfig(tile_mpp=tile_um / 256))
    return {(x, y) for x, y in grid.origins.tolist()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("mask", type=Path, help="PNG, tissue not 0.")
    parser.add_argument("--mask-downsample", type=float, required=True, help="Level-0 pixels a pixel of the mask.")
    parser.add_argument("--mpp", type=float, help="Where the file states none.")
    given = parser.parse_args()
    mpp = None if given.mpp is None else GivenMpp(given.mpp, "option --mpp")
    with open_slide(given.slide, given=mpp) as slide:
        overview = slide.overview(TissueConfig().overview_mpp)
        um = overview.downsample[0] * slide.geometry.mpp.mean
        reference = np.asarray(cv2.imread(str(given.mask), cv2.IMREAD_GRAYSCALE)) > 0
        side = (given.mask_downsample, given.mask_downsample)
        print(f"{'':44}{'64 um':>7} {'128 um':>7} {'missed':>7} {'added':>7}   (of tiles of 64 um)")
        for name, rule in RULES.items():
            found = rule(overview, um)
            pairs = [
                (kept(reference, side, slide, tile_um), kept(found, overview.downsample, slide, tile_um))
                for tile_um in (64.0, 128.0)
            ]
            fine, coarse = (len(wanted & got) / len(wanted | got) for wanted, got in pairs)
            wanted, got = pairs[0]
            missed, added = len(wanted - got) / len(wanted), len(got - wanted) / len(wanted)
            print(f"{name:44}{fine:7.3f} {coarse:7.3f} {missed:7.3f} {added:7.3f}")


if __name__ == "__main__":
    main()
