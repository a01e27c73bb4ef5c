"""What other tools read of our exports, each by its own code: ``python -m tests.consumers RUN COARSE SLIDE OUT``.

A process of its own, in which the tools' packages are found: some bring other versions than ours. It exports a run,
has every tool read its folder, and leaves what they saw in ``OUT/seen.npz`` and ``OUT/seen.json`` for the test. Where
types are checked these packages are not found, hence the silenced imports.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter("ignore")


def main(run: Path, coarse: Path, slide: Path, out: Path) -> None:
    from wsi_lmc.export import export_features
    from wsi_lmc.run import find_features
    from wsi_lmc.runfolder import list_slides

    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    stores, entries = find_features(run), list_slides(run)
    slide_id = stores[0].slide_id
    outlines = {slide_id: run / "contours" / f"{slide_id}.geojson"}
    for to in ("torchmil", "anndata", "spatialdata", "qupath", "parquet"):
        export_features(stores, to, out / to, entries, outlines)
    export_features(stores, "anndata", out / "unknown")  # with no table of slides
    export_features(find_features(coarse), "spatialdata", out / "coarse")
    for look in (see_torchmil, see_anndata, see_wsidata, see_tiatoolbox, see_parquet):
        found, said = look(out, slide_id, slide)
        arrays |= found
        facts |= said
    np.savez(out / "seen.npz", allow_pickle=False, **arrays)
    (out / "seen.json").write_text(json.dumps(facts))


def see_torchmil(out: Path, slide_id: str, slide: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from torchmil.datasets import ProcessedMILDataset  # type: ignore[import-not-found]

    folder = out / "torchmil"
    data = ProcessedMILDataset(
        features_path=str(folder / "features"),
        labels_path=str(folder / "labels"),
        coords_path=str(folder / "coords"),
        bag_keys=["X", "Y", "adj", "coords"],
        verbose=False,
    )
    bag = data[0]
    adjacency = bag["adj"].coalesce()
    return {
        "torchmil_features": bag["X"].numpy(),
        "torchmil_label": bag["Y"].numpy(),
        "torchmil_neighbours": adjacency.indices().numpy(),
    }, {"torchmil_bags": len(data)}


def see_anndata(out: Path, slide_id: str, slide: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import anndata  # type: ignore[import-not-found]

    data = anndata.read_h5ad(out / "anndata" / f"{slide_id}.h5ad")
    unknown = anndata.read_h5ad(out / "unknown" / f"{slide_id}.h5ad")
    return {
        "anndata_features": np.asarray(data.X),
        "anndata_spatial": np.asarray(data.obsm["spatial"]),
        "anndata_xy": data.obs[["x", "y"]].to_numpy(),
        "anndata_tissue_id": data.obs["tissue_id"].to_numpy(),
        "anndata_tissue_fraction": data.obs["tissue_fraction"].to_numpy(),
    }, {
        "anndata_obs": list(data.obs.columns),
        "anndata_obs_of_unknown": list(unknown.obs.columns),
        "anndata_first_and_last": [data.obs_names[0], data.obs_names[-1]],
        "anndata_library": sorted(set(data.obs["library_id"])),
        "anndata_site": sorted(set(data.obs["site"])),
        "anndata_uns": {key: np.asarray(value).tolist() for key, value in data.uns.items()},
    }


def see_wsidata(out: Path, slide_id: str, slide: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import spatialdata  # type: ignore[import-not-found]
    import wsidata  # type: ignore[import-not-found]

    path = out / "spatialdata" / f"{slide_id}.zarr"
    store = spatialdata.read_zarr(path)
    opened = wsidata.open_wsi(str(slide), store=str(path))
    table = next(iter(opened.tables)).removesuffix("_tiles")
    features = opened.fetch.features_anndata(table, "tiles")
    first = next(iter(opened.iter.tile_images("tiles")))
    coarse = wsidata.open_wsi(str(slide), store=str(out / "coarse" / f"{slide_id}.zarr"))
    return {
        "wsidata_first_coarse": np.asarray(next(iter(coarse.iter.tile_images("tiles"))).image),
        "wsidata_features": np.asarray(features.X),
        "wsidata_spatial": np.asarray(features.obsm["spatial"]),
        "wsidata_bounds": store.shapes["tiles"].bounds.to_numpy(),
        "wsidata_first": np.asarray(first.image),
        "wsidata_tissue_id": store.shapes["tiles"]["tissue_id"].to_numpy(),
        "wsidata_tissue_area": store.shapes["tissues"].area.to_numpy(),
    }, {
        "wsidata_tables": list(opened.tables),
        "wsidata_spec": opened.tile_spec("tiles").to_dict(),
        "wsidata_spec_coarse": coarse.tile_spec("tiles").to_dict(),
        "wsidata_region": str(store.tables[f"{table}_tiles"].obs["library_id"].iloc[0]),
    }


def see_tiatoolbox(out: Path, slide_id: str, slide: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from tiatoolbox.annotation.storage import DictionaryStore  # type: ignore[import-not-found]

    store = DictionaryStore.from_geojson(out / "qupath" / f"{slide_id}.geojson")
    objects = list(store.values())
    tiles = [each for each in objects if each.properties["objectType"] == "tile"]
    tissue = [each for each in objects if each.properties["objectType"] == "annotation"]
    return {
        "tiatoolbox_bounds": np.array([each.geometry.bounds for each in tiles]),
        "tiatoolbox_area": np.array([each.geometry.area for each in tissue]),
    }, {"tiatoolbox_measured": sorted(tiles[0].properties["measurements"])}


def see_parquet(out: Path, slide_id: str, slide: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import pandas as pd  # type: ignore[import-not-found]

    tiles = pd.read_parquet(out / "parquet" / "tiles" / f"{slide_id}.parquet")
    slides = pd.read_parquet(out / "parquet" / "slides.parquet")
    return {
        "parquet_features": np.stack(tiles["features"].to_list()),
        "parquet_xy": tiles[["x", "y"]].to_numpy(),
        "parquet_steps": tiles[["column", "row"]].to_numpy(),
        "parquet_mpp": slides[["mpp_x", "mpp_y"]].to_numpy(),
    }, {
        "parquet_columns": list(tiles.columns),
        "parquet_slides": slides.drop(columns=["mpp_x", "mpp_y"]).values.tolist(),
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
