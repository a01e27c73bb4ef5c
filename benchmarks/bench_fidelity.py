"""What do DCT reduction and the jpeg codec change in the embeddings? Against area means, stored lossless.

    python benchmarks/bench_fidelity.py KANG.tif --mpp 0.25 --tile-mpp 0.5 --ckpt CKPT

Prints grey levels and cosines; the last row, tiles one target pixel aside, says how much a change that nobody would
mind makes.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.contours import mask_to_polygons, to_geojson
from wsi_lmc.encoder import Encoder, load_encoder, resolve_device
from wsi_lmc.grid import GridConfig
from wsi_lmc.steps.tile import TileConfig, TileTask, open_task_slide, plan_tiles, tile_slide
from wsi_lmc.tilestore import TileStore


def tiles_of(task: TileTask) -> np.ndarray:
    """The tiles that a task cuts."""
    tile_slide(task)
    store = TileStore.open(task.out / "tiles" / "slide.zarr")
    print(f"  {store.attributes['tile']['resampled']}, {store.attributes['codec']}, {len(store)} tiles")
    return store.read(np.arange(len(store)))


def shifted(task: TileTask) -> np.ndarray:
    """The same tiles, one target pixel to the right."""
    with open_task_slide(task) as slide:
        grid, _, _ = plan_tiles(task, slide)
        right = round(task.config.grid.tile_mpp / slide.geometry.mpp.mean)
        plan = slide.plan(grid.origins + np.asarray([right, 0], np.int32), grid.sampling)
        out = np.empty((len(grid), grid.sampling.tile.height, grid.sampling.tile.width, 3), np.uint8)
        slide.read_tiles(plan, 0, out)
    return out


def embed(encoder: Encoder, tiles: np.ndarray) -> np.ndarray:
    """Unit features."""
    blocks = [torch.from_numpy(tiles[start : start + 32]) for start in range(0, len(tiles), 32)]
    features = np.concatenate([encoder.embed(block).cpu().numpy() for block in blocks])
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def outline_of(task: TileTask) -> Path:
    """The tissue's outline as a file, so that every variant cuts the same tiles."""
    with open_task_slide(task) as slide:
        _, mask, _ = plan_tiles(task, slide)
        polygons = mask_to_polygons(mask.mask, mask.downsample)
        path = task.out / "slide.geojson"
        path.write_text(to_geojson("slide", polygons, slide.geometry.bounds.origin))
    return path


def compare(encoder: Encoder, variants: dict[str, np.ndarray]) -> None:
    """Print what each variant changes against the first."""
    (_, base), *others = variants.items()
    reference = embed(encoder, base)
    spread = np.linalg.norm(reference - reference.mean(axis=0), axis=1).mean()
    print(f"{'against area, lossless':26}{'grey levels':>12}{'cosine: median':>16}{'worst':>10}{'of spread':>11}")
    for what, tiles in others:
        grey = np.abs(tiles.astype(np.int16) - base).mean()
        found = embed(encoder, tiles)
        cosine = (found * reference).sum(axis=1)
        moved = np.linalg.norm(found - reference, axis=1).mean() / spread
        print(f"{what:26}{grey:12.2f}{np.median(cosine):16.5f}{cosine.min():10.5f}{moved:11.3f}")


def main() -> None:
    """Compare on one slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--tile-mpp", type=float, default=0.5)
    parser.add_argument("--ckpt", required=True, help="Checkpoint, or an encoder as `embed --encoder` takes it.")
    given = parser.parse_args()
    entry = SlideEntry(given.slide, "slide")
    area = TileConfig(GridConfig(tile_mpp=given.tile_mpp), mpp=given.mpp, resample="area", codec="lossless")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        task = TileTask(entry, out / "area", area, outline_of(TileTask(entry, out, area)))
        variants = {
            "area": tiles_of(task),
            "dct": tiles_of(replace(task, out=out / "dct", config=replace(area, resample="dct"))),
            "jpeg quality 95": tiles_of(replace(task, out=out / "jpeg", config=replace(area, codec="jpeg"))),
            "one target pixel aside": shifted(task),
        }
    compare(load_encoder(given.ckpt, resolve_device("cpu")), variants)


if __name__ == "__main__":
    main()
