"""SpatialData, laid out as wsidata and LazySlide read it: ``<id>.zarr``.

Shapes ``tissues`` and ``tiles`` in level-0 pixels, the table ``<encoder>_tiles`` of features, and the tiles' geometry
as the attribute ``tile_spec``.
"""

from pathlib import Path
from typing import Any

import anndata  # pyright: ignore[reportMissingImports]  an extra
import geopandas
import numpy as np
import pandas as pd  # pyright: ignore[reportMissingImports]
import shapely
from spatialdata import SpatialData  # pyright: ignore[reportMissingImports]
from spatialdata.models import ShapesModel, TableModel  # pyright: ignore[reportMissingImports]

from wsi_lmc.export.bags import Bag, geometric_mean
from wsi_lmc.export.regions import tissue_ids
from wsi_lmc.publish import publishing

TISSUES, TILES = "tissues", "tiles"


def write_spatialdata(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's store.

    Where the run knows no outline, or no tile was kept, the shapes that would be empty are left out: SpatialData takes
    no empty ones.
    """
    final = out / f"{bag.slide_id}.zarr"
    polygons = [shapely.Polygon(rings[0], rings[1:]) for rings in bag.tissue()]
    shapes: dict[str, Any] = {}
    if polygons:
        frame = geopandas.GeoDataFrame({"tissue_id": np.arange(len(polygons)), "geometry": polygons})
        shapes[TISSUES] = ShapesModel.parse(frame)
    tables: dict[str, Any] = {}
    if len(bag.origins):
        shapes[TILES] = ShapesModel.parse(_tiles(bag))
        tables[f"{bag.encoder}_{TILES}"] = _table(bag)
    store = SpatialData(shapes=shapes, tables=tables, attrs={"tile_spec": {TILES: _specification(bag, bool(polygons))}})
    with publishing(out, final) as draft:
        store.write(draft)
    return [final]


def _tiles(bag: Bag) -> geopandas.GeoDataFrame:
    x, y = bag.origins.T
    width, height = bag.footprint
    columns = {
        "tile_id": np.arange(len(x)),
        "x": x,
        "y": y,
        "tissue_id": tissue_ids(bag.tissue(), bag.origins, bag.footprint),
        "tissue_fraction": bag.tissue_fraction,
        "geometry": shapely.box(x, y, x + width, y + height),
    }
    return geopandas.GeoDataFrame(columns)


def _table(bag: Bag) -> anndata.AnnData:
    numbers = np.arange(len(bag.origins))
    columns = {"tile_id": numbers, "library_id": pd.Categorical([TILES] * len(numbers))}
    table = anndata.AnnData(X=bag.features, obs=pd.DataFrame(columns, index=numbers.astype(str)))
    return TableModel.parse(table, region=TILES, region_key="library_id", instance_key="tile_id")


def _specification(bag: Bag, outlined: bool) -> dict[str, Any]:
    """What wsidata knows of tiles: sizes in target pixels, and what a target pixel is at the level that is read."""
    tile = bag.attributes["tile"]
    downsample = geometric_mean(bag.footprint) / bag.px
    read = tile.get("read_px")  # of imported features nobody knows from which level: then level 0 serves
    return {
        "height": bag.px,
        "width": bag.px,
        "stride_height": int(tile["stride"]),
        "stride_width": int(tile["stride"]),
        "mpp": float(tile["mpp"]),
        "ops_level": int(tile["level"]) if read else 0,
        "ops_downsample": float(read[0]) / bag.px if read else downsample,
        "base_level": 0,
        "base_downsample": downsample,
        "tissue_name": TISSUES if outlined else None,
    }
