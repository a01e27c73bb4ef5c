"""Exports of a real 40x slide tiled at 20x, read by the tools they are meant for, or as the layout says."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from wsi_lmc.contours import read_geojson
from wsi_lmc.export import Target, export_features
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.run import find_features
from wsi_lmc.runfolder import Request, list_slides, plan
from wsi_lmc.tilestore import TileStore
from wsi_lmc.units import SlidePoint

ROOT = Path(__file__).parent.parent
PLACES = [Path(sys.prefix) / name for name in ("consumers", "umap")]
SLIDE_ID = "P2_0039"


@pytest.fixture(scope="module")
def slide(real_slides: Path) -> Path:
    """A real slide at 0.25 um; the pixel size, which its file does not state, is given as the data set's."""
    return real_slides / "kang_P2_0039" / "P2_0039_section3_lower.tif"


@pytest.fixture(scope="module")
def run(slide: Path, tmp_path_factory: pytest.TempPathFactory, program: Any) -> Path:
    """The slide tiled at 0.5 um and embedded by an untrained network."""
    return _embedded(slide, tmp_path_factory.mktemp("real"), program, 0.5)


@pytest.fixture(scope="module")
def coarse(slide: Path, tmp_path_factory: pytest.TempPathFactory, program: Any) -> Path:
    """The same at 1 um, which is the slide's second level."""
    return _embedded(slide, tmp_path_factory.mktemp("coarse"), program, 1.0)


def _embedded(slide: Path, folder: Path, program: Any, tile_mpp: float) -> Path:
    out, manifest = folder / "run", folder / "manifest.csv"
    manifest.write_text(f"slide,mpp,patient,site,label,slide_id\n{slide},0.25,P2,kang,cancer,{SLIDE_ID}\n")
    tile = ["tile", str(manifest), "--tile-mpp", str(tile_mpp)]
    for words in (tile, ["embed", str(out), "--encoder", "untrained:vit-demo@1"]):
        result = program(*words, "--workers", 0, "-o", out)
        assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def store(run: Path) -> FeatureStore:
    found = find_features(run)[0]
    assert len(found) > 200
    assert found.attributes["tile"]["footprint"] == [512.0, 512.0]
    return found


@pytest.fixture(scope="module")
def seen(run: Path, coarse: Path, slide: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """What torchmil, anndata, wsidata (LazySlide's store), TIAToolbox and pandas read, in a process of their own."""
    if not all(place.is_dir() for place in PLACES):
        message = "the tools that read exports are not there: 'make places' puts them beside the environment"
        if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    out = tmp_path_factory.mktemp("consumers")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*PLACES, ROOT)))}
    command = [sys.executable, "-m", "tests.consumers", *map(str, (run, coarse, slide, out))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(out / "seen.npz"), json.loads((out / "seen.json").read_text())


def export(run: Path, to: Target, out: Path) -> Path:
    outlines = {SLIDE_ID: run / "contours" / f"{SLIDE_ID}.geojson"}
    result = export_features(find_features(run), to, out, list_slides(run), outlines)
    assert result.skipped == ()
    assert all(path.exists() for path in result.files)
    return out


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_torchmil_joins_neighbours(store: FeatureStore, seen: Any) -> None:
    """A 40x slide tiled at 20x: tiles lie 512 level-0 pixels apart, and torchmil joins what is within 1.5."""
    arrays, facts = seen
    assert facts["torchmil_bags"] == 1
    np.testing.assert_array_equal(arrays["torchmil_features"], store.features)
    np.testing.assert_array_equal(arrays["torchmil_label"], [0])
    apart = np.linalg.norm((store.origins[:, None] - store.origins[None]).astype(float), axis=2)
    expected = {(i, j) for i, j in np.argwhere(apart <= 512 * 1.5).tolist() if i != j}
    joined = {(i, j) for i, j in arrays["torchmil_neighbours"].T.tolist() if i != j}
    assert joined == expected
    assert len(joined) > 2 * len(store)


def test_anndata_reads_it(run: Path, store: FeatureStore, seen: Any) -> None:
    arrays, facts = seen
    np.testing.assert_array_equal(arrays["anndata_features"], store.features)
    np.testing.assert_array_equal(arrays["anndata_xy"], store.origins)
    np.testing.assert_array_equal(arrays["anndata_spatial"], store.origins + 256.0)
    np.testing.assert_array_equal(arrays["anndata_tissue_fraction"], store.tissue_fraction)
    columns = ["tile_id", "library_id", "x", "y", "tissue_id", "tissue_fraction", "patient", "site", "label"]
    assert facts["anndata_obs"] == columns
    assert facts["anndata_obs_of_unknown"] == columns[:-3]
    assert facts["anndata_first_and_last"] == [f"{SLIDE_ID}-0", f"{SLIDE_ID}-{len(store) - 1}"]
    assert (facts["anndata_library"], facts["anndata_site"]) == ([SLIDE_ID], ["kang"])
    assert facts["anndata_uns"] == {"encoder": "untrained-vit-demo-1"} | {
        "mpp": 0.5, "tile_px": 256, "slide_mpp": [0.25, 0.25],
    }  # fmt: skip
    pieces = read_geojson(run / "contours" / f"{SLIDE_ID}.geojson", SlidePoint(0, 0))
    assert set(arrays["anndata_tissue_id"]) <= set(range(len(pieces)))


def test_wsidata_reads_it_and_cuts_the_same_tile(run: Path, store: FeatureStore, seen: Any) -> None:
    """LazySlide's store: features in the tiles' order, and pixels read with our tile_spec are the tile's own."""
    arrays, facts = seen
    assert facts["wsidata_tables"] == ["untrained-vit-demo-1_tiles"]
    assert facts["wsidata_region"] == "tiles"
    np.testing.assert_array_equal(arrays["wsidata_features"], store.features)
    np.testing.assert_array_equal(arrays["wsidata_spatial"], store.origins)
    np.testing.assert_array_equal(arrays["wsidata_bounds"], np.hstack([store.origins, store.origins + 512]))
    np.testing.assert_array_equal(arrays["wsidata_tissue_id"], arrays["anndata_tissue_id"])
    spec = facts["wsidata_spec"]
    assert (spec["width"], spec["height"], spec["mpp"], spec["base_downsample"]) == (256, 256, 0.5, 2.0)
    tile = TileStore.open(run / "tiles" / f"{SLIDE_ID}.zarr").read(np.array([0]))[0].astype(int)
    picture = arrays["wsidata_first"].astype(int)
    assert picture.shape == tile.shape
    assert np.abs(picture - tile).mean() < 6  # reduced by another method
    assert np.abs(np.roll(picture, 8, axis=1) - tile).mean() > 2 * np.abs(picture - tile).mean()


def test_wsidata_reads_the_level_that_was_read(coarse: Path, seen: Any) -> None:
    arrays, facts = seen
    spec = facts["wsidata_spec_coarse"]
    assert (spec["mpp"], spec["base_downsample"], spec["ops_level"], spec["ops_downsample"]) == (1.0, 4.0, 1, 1.0)
    tile = TileStore.open(coarse / "tiles" / f"{SLIDE_ID}.zarr").read(np.array([0]))[0]
    np.testing.assert_array_equal(arrays["wsidata_first_coarse"], tile)


def test_tiatoolbox_reads_what_is_for_qupath(run: Path, store: FeatureStore, seen: Any) -> None:
    arrays, facts = seen
    np.testing.assert_array_equal(arrays["tiatoolbox_bounds"], np.hstack([store.origins, store.origins + 512]))
    np.testing.assert_allclose(np.sort(arrays["tiatoolbox_area"]), np.sort(arrays["wsidata_tissue_area"]), rtol=1e-6)
    components = [f"Feature component {number} (of this slide)" for number in (1, 2, 3)]
    assert facts["tiatoolbox_measured"] == [*components, "Tissue fraction"]


def test_pandas_reads_parquet(store: FeatureStore, seen: Any) -> None:
    arrays, facts = seen
    np.testing.assert_array_equal(arrays["parquet_features"], store.features)
    np.testing.assert_array_equal(arrays["parquet_xy"], store.origins)
    np.testing.assert_array_equal(arrays["parquet_steps"], store.origins // 512)
    np.testing.assert_allclose(arrays["parquet_mpp"], [store.attributes["slide"]["mpp"]])
    assert facts["parquet_columns"] == ["slide_id", "x", "y", "column", "row", "tissue_fraction", "features"]
    assert facts["parquet_slides"] == [[SLIDE_ID, "P2", "kang", "cancer", len(store)]]


def test_trident_and_clam_as_their_layouts_say(run: Path, store: FeatureStore, tmp_path: Path) -> None:
    patching = export(run, "trident", tmp_path / "trident") / "20x_256px_0px_overlap"
    with h5py.File(patching / "features_untrained-vit-demo-1" / f"{SLIDE_ID}.h5") as file:
        coords: Any = file["coords"]
        assert (coords.attrs["patch_size_level0"], coords.attrs["level0_magnification"]) == (512, 40)
        np.testing.assert_array_equal(coords[:], store.origins)
        np.testing.assert_array_equal(np.asarray(file["features"]), store.features)
    clam = export(run, "clam", tmp_path / "clam")
    np.testing.assert_array_equal(torch.load(clam / "pt_files" / f"{SLIDE_ID}.pt", weights_only=True), store.features)
    assert table(clam / "dataset.csv")[1] == ["P2", SLIDE_ID, "cancer"]


def test_stamp_reads_microns(run: Path, store: FeatureStore, tmp_path: Path) -> None:
    """As STAMP's get_coords: microns are taken as they are where tile_size_um is there; the tables by their columns."""
    out = export(run, "stamp", tmp_path)
    assert table(out / "clini.csv") == [["PATIENT", "label"], ["P2", "cancer"]]
    assert table(out / "slide.csv") == [["PATIENT", "FILENAME"], ["P2", f"{SLIDE_ID}.h5"]]
    with h5py.File(out / table(out / "slide.csv")[1][1]) as file:
        about = dict(file.attrs)
        features, coords = np.asarray(file["feats"]), np.asarray(file["coords"])
    assert about.pop("code_hash") == store.attributes["encoder"]["sha256"][:8]
    assert about == {
        "stamp_version": "2.1.0", "extractor": "untrained-vit-demo-1", "unit": "um", "tile_size_um": 128.0,
        "tile_size_px": 256, "feat_type": "tile",
    }  # fmt: skip
    assert (features.dtype, coords.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(features, store.features, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(coords, store.origins * 0.25)


def test_transmil_slideflow_eva_and_npz_as_their_layouts_say(run: Path, store: FeatureStore, tmp_path: Path) -> None:
    bare = torch.load(export(run, "transmil", tmp_path / "transmil") / f"{SLIDE_ID}.pt", weights_only=True)
    np.testing.assert_array_equal(bare, store.features)
    bags = export(run, "slideflow", tmp_path / "slideflow")
    np.testing.assert_array_equal(torch.load(bags / f"{SLIDE_ID}.pt", weights_only=True), store.features)
    with np.load(bags / f"{SLIDE_ID}.index.npz") as index:
        np.testing.assert_array_equal(index["arr_0"], store.origins + 256)
    about = json.loads((bags / "bags_config.json").read_text())
    assert about == {
        "extractor": {"class": "untrained-vit-demo-1", "kwargs": {}}, "normalizer": None,
        "num_features": store.features.shape[1], "tile_px": 256, "tile_um": 128.0,
    }  # fmt: skip
    eva = export(run, "eva", tmp_path / "eva")
    header, row = table(eva / "manifest.csv")
    assert header == ["origin", "embeddings", "target", "split", "wsi_id"]
    assert row == [SLIDE_ID, f"embeddings/{SLIDE_ID}.pt", "0", "", SLIDE_ID]
    np.testing.assert_array_equal(torch.load(eva / row[1], weights_only=True), store.features)
    assert table(eva / "classes.csv") == [["number", "label"], ["0", "cancer"]]
    with np.load(export(run, "npz", tmp_path / "npz") / f"{SLIDE_ID}.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["features"], store.features)
        np.testing.assert_array_equal(arrays["origins"], store.origins)
        assert (arrays["footprint"].tolist(), float(arrays["tile_mpp"])) == ([512.0, 512.0], 0.5)
    for to in ("transmil", "npz"):
        known = [["slide_id", "patient", "site", "label", "tiles"], [SLIDE_ID, "P2", "kang", "cancer", str(len(store))]]
        assert table(tmp_path / to / "slides.csv") == known


def test_qupath_gets_what_its_rules_ask_for(run: Path, store: FeatureStore, tmp_path: Path) -> None:
    document = json.loads((export(run, "qupath", tmp_path) / f"{SLIDE_ID}.geojson").read_text())
    check_qupath(document)
    kinds = [each["properties"]["objectType"] for each in document["features"]]
    assert kinds.count("tile") == len(store)
    assert kinds.count("annotation") >= 1


def check_qupath(document: dict[str, Any]) -> None:
    """What QuPath's reader of GeoJSON asks of a file, beyond being JSON."""
    assert document["type"] == "FeatureCollection"
    ids = [uuid.UUID(each["id"]) for each in document["features"]]
    assert len(set(ids)) == len(ids)
    for each in document["features"]:
        assert each["type"] == "Feature"
        assert each["geometry"]["type"] == "Polygon"
        for ring in each["geometry"]["coordinates"]:
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
            assert all(len(point) == 2 and all(map(math.isfinite, point)) for point in ring)
        properties = each["properties"]
        assert properties["objectType"] in ("annotation", "tile")
        if isinstance(properties.get("classification"), dict):  # without a colour QuPath throws
            colour = properties["classification"]["color"]
            assert len(colour) == 3
            assert all(isinstance(value, int) and 0 <= value <= 255 for value in colour)
        values = properties.get("measurements", {}).values()
        assert all(isinstance(value, float | int) and math.isfinite(value) for value in values)


def test_patients_and_outlines_are_found_where_the_tiles_are(run: Path, tmp_path: Path, program: Any) -> None:
    """Features in a folder of their own: its export knows what the manifest beside the tiles says."""
    apart = tmp_path / "apart"
    shutil.copytree(run / "features", apart / "features")
    plan(apart, "embed", Request((SLIDE_ID,), stores={SLIDE_ID: str(run / "tiles" / f"{SLIDE_ID}.zarr")}))
    for to in ("clam", "qupath"):
        result = program("export", apart, "--to", to, "-o", tmp_path / to)
        assert result.returncode == 0, result.stderr
    assert table(tmp_path / "clam" / "dataset.csv")[1] == ["P2", SLIDE_ID, "cancer"]
    document = json.loads((tmp_path / "qupath" / f"{SLIDE_ID}.geojson").read_text())
    assert document["features"][0]["properties"]["objectType"] == "annotation"
