"""AnnData, as scanpy and squidpy read it: ``<id>.h5ad``."""

from pathlib import Path

import anndata  # pyright: ignore[reportMissingImports]  an extra
import numpy as np
import pandas as pd  # pyright: ignore[reportMissingImports]

from wsi_lmc.export.bags import Bag
from wsi_lmc.export.regions import tissue_ids
from wsi_lmc.publish import publishing


def write_anndata(bag: Bag, out: Path) -> list[Path]:
    """Write a slide's features as X, its tiles as observations, their centres (level-0 px) as ``obsm['spatial']``."""
    final = out / f"{bag.slide_id}.h5ad"
    with publishing(out, final) as draft:
        to_anndata(bag).write_h5ad(draft)
    return [final]


def to_anndata(bag: Bag) -> anndata.AnnData:
    """The slide as AnnData; x and y of ``obs`` are the tiles' top-left corners in level-0 pixels."""
    count = len(bag.origins)
    known = {"patient": bag.entry.patient, "site": bag.entry.site, "label": bag.entry.label}
    columns = {
        "tile_id": np.arange(count),
        "library_id": pd.Categorical([bag.slide_id] * count),
        "x": bag.origins[:, 0],
        "y": bag.origins[:, 1],
        "tissue_id": tissue_ids(bag.tissue(), bag.origins, bag.footprint),
        "tissue_fraction": bag.tissue_fraction,
    } | {name: pd.Categorical([value] * count) for name, value in known.items() if value}
    names = [f"{bag.slide_id}-{number}" for number in range(count)]  # unique over slides, so that they can be joined
    return anndata.AnnData(
        X=bag.features,
        obs=pd.DataFrame(columns, index=pd.Index(names, dtype=str)),
        var=pd.DataFrame(index=pd.Index([f"{bag.encoder}_{number}" for number in range(bag.features.shape[1])])),
        obsm={"spatial": bag.centres},
        uns={
            "encoder": bag.encoder,
            "mpp": float(bag.attributes["tile"]["mpp"]),
            "tile_px": bag.px,
            "slide_mpp": np.asarray(bag.attributes["slide"]["mpp"], np.float64),
        },
    )
