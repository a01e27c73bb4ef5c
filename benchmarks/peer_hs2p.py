"""hs2p's own tiling of one slide into a tar of JPEG tiles, for ``bench_tiling.py --hs2p``: prints tiles and seconds.

Run by the Python of an environment of its own (``pip install "hs2p[openslide]"``): it shares nothing with ours. Its
settings: the same mpp and tile size, hsv segmentation, its default filters, JPEG by Pillow at its default quality.
"""

import sys
import time
from pathlib import Path

from hs2p import FilterConfig, SegmentationConfig, SlideSpec, TilingConfig, tile_slides  # pyright: ignore[reportMissingImports]  in its own environment


def main() -> None:
    """Arguments: slide, folder to write to, microns per pixel, worker processes."""
    slide, out, mpp, workers = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    began = time.perf_counter()
    (found,) = tile_slides(
        [SlideSpec(sample_id="slide", image_path=slide, spacing_at_level_0=mpp)],
        tiling=TilingConfig(
            requested_spacing_um=mpp, requested_tile_size_px=256, tolerance=0.05, overlap=0.0,
            backend="openslide", mask_backend="openslide",
        ),
        segmentation=SegmentationConfig(method="hsv"),
        filtering=FilterConfig(),
        output_dir=out,
        num_workers=workers,
        save_tiles=True,
        jpeg_backend="pil",
    )  # fmt: skip
    print(found.num_tiles, time.perf_counter() - began)


if __name__ == "__main__":
    main()
