"""Layouts on made-up slides with what real ones rarely show: bounds, oblong pixels, several labels, no tiles."""

import csv
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tests.test_export import known, make_store
from tests.test_export_consumers import check_qupath
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.contours import to_geojson
from wsi_lmc.errors import UsageError
from wsi_lmc.export import Target, export_features
from wsi_lmc.export.bags import Bag, load_bag
from wsi_lmc.export.layouts import find_layout
from wsi_lmc.export.regions import tissue_ids
from wsi_lmc.export.stamp import write_stamp
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.tilestore import Validity
from wsi_lmc.units import SlidePoint

OWN = ("trident", "clam", "transmil", "stamp", "torchmil", "slideflow", "eva", "qupath", "npz")
BOUNDS = [1003, 70_001, 60_000, 9_000]


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    return folder


def bounded(stores: Path, slide_id: str = "bounded", count: int = 9, **changes: Any) -> FeatureStore:
    """A slide whose scanned area begins at ``BOUNDS``; its tiles' origins lie within."""
    slide = {"bounds": BOUNDS} | changes.pop("slide", {})
    return make_store(stores, slide_id, count, slide=slide, **changes)


def bag_of(store: FeatureStore) -> Bag:
    return load_bag(store, SlideEntry(Path("x"), store.slide_id))


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_qupath_begins_at_the_scanned_area(stores: Path, tmp_path: Path) -> None:
    """QuPath crops to openslide.bounds: tiles and tissue are told from there, and the file's outline is, already."""
    store = bounded(stores)
    outline = tmp_path / "outline.geojson"
    square = [[[2000.0, 70_500.0], [5000.0, 70_500.0], [5000.0, 70_900.0], [2000.0, 70_500.0]]]
    outline.write_text(to_geojson("bounded", [square], SlidePoint(*BOUNDS[:2])))
    export_features([store], "qupath", tmp_path / "out", (), {"bounded": outline})
    document = json.loads((tmp_path / "out" / "bounded.geojson").read_text())
    check_qupath(document)
    tissue, *tiles = document["features"]
    assert tissue["geometry"]["coordinates"] == [[[997, 499], [3997, 499], [3997, 899], [997, 499]]]
    x, y = store.origins[4].tolist()
    corner = [x - 1003, y - 70_001]
    ring = tiles[4]["geometry"]["coordinates"][0]
    assert ring[0] == corner
    assert ring[2] == [corner[0] + 512, corner[1] + 512]


def test_components_have_unit_deviation_and_a_stated_sign(stores: Path, tmp_path: Path) -> None:
    export_features([bounded(stores, count=40)], "qupath", tmp_path / "out")
    tiles = json.loads((tmp_path / "out" / "bounded.geojson").read_text())["features"]
    features = bag_of(bounded(stores, count=40)).features.astype(np.float64)
    _, _, vectors = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    for number in range(3):
        values = np.array(
            [t["properties"]["measurements"][f"Feature component {number + 1} (of this slide)"] for t in tiles]
        )
        assert values.std() == pytest.approx(1, abs=1e-4)
        direction = vectors[number] * np.sign(vectors[number][np.abs(vectors[number]).argmax()])
        expected = (features - features.mean(axis=0)) @ direction
        np.testing.assert_allclose(values, expected / expected.std(), atol=1e-4)


def test_steps_are_neighbours_whatever_the_pixels(stores: Path) -> None:
    """Oblong pixels, a stride of half a tile, a grid that begins at the bounds: columns and rows still count by one."""
    slide = {"bounds": BOUNDS, "mpp": [0.2, 0.3]}
    tile = {"footprint": [640.0, 426.667], "stride": 128, "effective_mpp": [0.5, 0.5]}
    store = make_store(stores, "odd", 6, slide=slide, tile=tile)
    columns, lines = np.array([0, 1, 2, 0, 5, 1]), np.array([0, 0, 1, 3, 3, 4])
    origins = np.stack([np.rint(1003 + columns * 320.0), np.rint(70_001 + lines * 213.3335)], axis=1).astype(np.int32)
    bag = replace(bag_of(store), origins=origins)
    np.testing.assert_array_equal(bag.steps, np.stack([columns, lines], axis=1))
    np.testing.assert_allclose(bag.microns, origins * np.array([0.2, 0.3]))
    np.testing.assert_allclose(bag.centres, origins + np.array([320.0, 213.3335]))


def test_a_patient_with_two_labels_is_left_out_of_stamps_tables(stores: Path, tmp_path: Path) -> None:
    cohort = [make_store(stores, name, 3) for name in ("a", "b", "c")]
    entries = known(a=("p1", "x"), b=("p1", "y"), c=("p2", "x"))
    result = export_features(cohort, "stamp", tmp_path / "out", entries)
    assert {skip.slide_id for skip in result.skipped} == {"a", "b"}
    assert all("several labels" in skip.reason for skip in result.skipped)
    assert rows(tmp_path / "out" / "clini.csv") == [["PATIENT", "label"], ["p2", "x"]]
    assert rows(tmp_path / "out" / "slide.csv") == [["PATIENT", "FILENAME"], ["p2", "c.h5"]]


def test_microns_are_along_each_axis(stores: Path, tmp_path: Path) -> None:
    slide, tile = {"mpp": [0.2, 0.3]}, {"effective_mpp": [0.4, 0.6]}
    export_features([make_store(stores, "odd", 4, slide=slide, tile=tile)], "stamp", tmp_path / "out")
    with h5py.File(tmp_path / "out" / "odd.h5") as file:
        coords: Any = file["coords"]
        np.testing.assert_allclose(coords[2], [1027 * 0.2, 70_001 * 0.3], rtol=1e-6)
        assert file.attrs["tile_size_um"] == pytest.approx(256 * (0.4 * 0.6) ** 0.5)


@pytest.mark.parametrize(("factor", "kind"), [(1.0, "float16"), (1e6, "float32")])
def test_stamp_gets_no_infinite_features(factor: float, kind: str, stores: Path, tmp_path: Path) -> None:
    store = make_store(stores, "large", 5)
    bag = replace(bag_of(store), features=store.features * np.float32(factor))
    write_stamp(bag, tmp_path / "out")
    with h5py.File(tmp_path / "out" / "large.h5") as file:
        features = np.asarray(file["feats"])
    assert features.dtype.name == kind
    np.testing.assert_allclose(features, bag.features, rtol=1e-3)


def test_slideflow_is_told_the_tiles_true_size(stores: Path, tmp_path: Path) -> None:
    tile = {"effective_mpp": [0.48, 0.54]}
    export_features([make_store(stores, "odd", 4, tile=tile)], "slideflow", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "bags_config.json").read_text())
    assert (about["tile_px"], about["num_features"]) == (256, 7)
    assert about["tile_um"] == pytest.approx(256 * (0.48 * 0.54) ** 0.5)


def test_classes_are_numbered_by_name(stores: Path, tmp_path: Path) -> None:
    cohort = [make_store(stores, name, 3) for name in ("a", "b", "c", "d", "e", "f", "g")]
    found = {"a": "tumour", "b": "benign", "c": "tumour", "d": "", "e": "stroma", "f": "mucosa", "g": "debris"}
    entries = known(**{name: ("", label) for name, label in found.items()})
    result = export_features(cohort, "torchmil", tmp_path / "out", entries)
    labels = {path.stem: np.load(path).tolist() for path in (tmp_path / "out" / "labels").iterdir()}
    assert labels == {"a": [4], "b": [0], "c": [4], "e": [3], "f": [2], "g": [1]}
    assert [skip.slide_id for skip in result.skipped] == ["d"]
    named = [[str(number), name] for number, name in enumerate(("benign", "debris", "mucosa", "stroma", "tumour"))]
    assert rows(tmp_path / "out" / "classes.csv") == [["number", "label"], *named]


@pytest.mark.parametrize("to", OWN)
def test_unreadable_tiles_are_left_out_everywhere(to: Target, stores: Path, tmp_path: Path) -> None:
    """Whatever a layout writes of a slide counts the same tiles."""
    store = make_store(stores, "bad", 12, bad=(0, 7, 11))
    result = export_features([store], to, tmp_path / "out", known(bad=("p", "x")))
    assert result.dropped == {"bad": 3}
    usable = store.features[store.valid != Validity.UNREADABLE]
    assert len(usable) == 9
    counted = [count for path in result.files for count in lengths(path)]
    assert counted
    assert set(counted) == {9}


def lengths(path: Path) -> list[int]:
    """Lengths of all arrays in a slide's file that have a row a tile."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return [len(np.asarray(file[name])) for name in file]
    if path.suffix == ".pt":
        return [len(torch.load(path, weights_only=True))]
    if path.suffix == ".npy":
        return [len(np.load(path))] if path.parent.name != "labels" else []
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return [len(arrays[name]) for name in arrays if arrays[name].ndim and name not in ("footprint", "mpp")]
    if path.suffix == ".geojson":
        return [len(json.loads(path.read_text())["features"])]
    return []


@pytest.mark.parametrize("to", OWN)
def test_a_slide_without_tiles_and_a_second_export(to: Target, stores: Path, tmp_path: Path) -> None:
    """Nothing breaks, the bytes are the same again, and nothing of this machine is in them."""
    cohort = [make_store(stores, "a", 6), make_store(stores, "none", 0)]
    entries = known(a=("p", "x"), none=("q", "y"))
    first = export_features(cohort, to, tmp_path / "out", entries)
    before = {path: path.read_bytes() for path in first.files}
    assert export_features(cohort, to, tmp_path / "out", entries) == first
    assert {path: path.read_bytes() for path in first.files} == before
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(first.files)
    assert not [path for path, content in before.items() if str(tmp_path).encode() in content]


@pytest.mark.parametrize("to", OWN)
def test_imported_features_are_exported_too(to: Target, stores: Path, tmp_path: Path) -> None:
    """Of these nobody knows how much tissue is in a tile, which is NaN in the store, and no number in JSON."""
    result = export_features([make_store(stores, "a", 6, tissue=np.nan)], to, tmp_path / "out", known(a=("p", "x")))
    assert result.skipped == ()
    if to == "qupath":
        tiles = json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]
        assert "Tissue fraction" not in tiles[0]["properties"]["measurements"]


def test_the_smaller_piece_counts_and_tiles_off_all_have_none() -> None:
    ring = lambda x, y, w, h: [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]  # noqa: E731
    polygons = [
        [ring(1000.0, 0.0, 300.0, 200.0)],
        [ring(0.0, 0.0, 2000.0, 1000.0)],
        [ring(5000.0, 3000.0, 900.0, 400.0)],
    ]
    origins = np.array([[1000, 0], [200, 500], [5100, 2900], [3000, 0]], np.int32)
    np.testing.assert_array_equal(tissue_ids(polygons, origins, (256.0, 200.0)), [0, 1, 2, -1])
    np.testing.assert_array_equal(tissue_ids([], origins, (256.0, 200.0)), [-1] * 4)


def test_tiles_far_apart_take_no_more_memory() -> None:
    """Ten million pixels from one tile to the other: the map of the tissue grows coarser, not larger."""
    polygons = [[[[9e6, -100.0], [1.1e7, -100.0], [1.1e7, 900.0], [9e6, 900.0], [9e6, -100.0]]]]
    origins = np.array([[0, 0], [10_000_000, 0]], np.int32)
    tracemalloc.start()
    np.testing.assert_array_equal(tissue_ids(polygons, origins, (256.0, 256.0)), [-1, 0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(("to", "extra"), [("anndata", "scverse"), ("spatialdata", "scverse"), ("parquet", "parquet")])
def test_a_missing_package_is_named_with_its_extra(to: Target, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("anndata", "spatialdata", "geopandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"pip install 'wsi-lmc\[{extra}\]'"):
        find_layout(to)
