"""Exports read back as TRIDENT's and CLAM's own readers do: plain h5py, csv and torch, value against value."""

import csv
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import UsageError
from wsi_lmc.export import export_features
from wsi_lmc.export.trident import magnification
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.spreadsheets import to_cell
from wsi_lmc.tilestore import TileRows, Validity

DIM = 7


def make_store(folder: Path, slide_id: str, count: int, **changes: Any) -> FeatureStore:
    """Real features of a 0.25-um slide wider than high, tiled at 0.5 um with x and y steps that cannot be swapped.

    ``changes``: columns, dtype, bad (unreadable rows), tissue (fraction), and values that replace those of ``slide``,
    ``tile`` and ``encoder``.
    """
    rng = np.random.default_rng(sum(slide_id.encode()))
    features = rng.normal(size=(count, changes.get("columns", DIM))).astype(changes.get("dtype", np.float32))
    origins = np.stack([np.arange(count) * 512 + 3, np.arange(count) // 4 * 384 + 70_001], axis=1).astype(np.int32)
    valid = np.zeros(count, np.uint8)
    valid[1::5], valid[2::5] = Validity.PADDED, Validity.COMPOSITED
    valid[list(changes.get("bad", ()))] = Validity.UNREADABLE
    slide = {"id": slide_id, "width": 90_001, "height": 81_234, "mpp": [0.25, 0.25], "mpp_source": "aperio"}
    tile = {
        "px": 256,
        "mpp": 0.5,
        "level_mpp": [0.5, 0.5],
        "effective_mpp": [0.5, 0.5],
        "footprint": [512.0, 512.0],
        "stride": 256,
        "level": 1,
        "read_px": [256, 256],
        "resampled": "no",
    }
    encoder = {"name": "lmc-lmc-0a1b2c3d", "architecture": "resnet50", "sha256": "ab" * 32, "mode": "lmc"}
    attributes = {
        "slide": slide | changes.get("slide", {}),
        "tile": tile | changes.get("tile", {}),
        "encoder": encoder | {"trained_mpp": 0.5, "dtype": str(features.dtype)} | changes.get("encoder", {}),
    }
    path = folder / f"{len(list(folder.iterdir()))}.zarr"
    tissue = np.full(count, changes.get("tissue", 1.0), np.float32)
    write_features(path, features, TileRows(origins, tissue, valid), attributes)
    return FeatureStore.open(path)


def known(**slides: tuple[str, str]) -> list[SlideEntry]:
    """Entries of slides: patient and label by id."""
    return [SlideEntry(Path(name), name, patient=patient, label=label) for name, (patient, label) in slides.items()]


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    return folder


def read_dataset(path: Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """An array and its attributes, by nothing but h5py."""
    with h5py.File(path) as file:
        assert not file.attrs, "readers look at the attributes of the data sets"
        dataset = file[name]
        assert isinstance(dataset, h5py.Dataset)
        return np.asarray(dataset[:]), dict(dataset.attrs)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_trident_reads_what_is_written(stores: Path, tmp_path: Path) -> None:
    store = make_store(stores, "TCGA-01", 11)
    result = export_features([store], "trident", tmp_path / "out")
    patching = tmp_path / "out" / "20x_256px_0px_overlap"
    assert result.files == (
        patching / "patches" / "TCGA-01_patches.h5",
        patching / "features_lmc-lmc-0a1b2c3d" / "TCGA-01.h5",
    )
    assert (result.skipped, result.dropped) == ((), {})
    expected = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": "TCGA-01",
        "savetodir": "",
        "level0_width": 90_001,
        "level0_height": 81_234,
        "mpp": 0.5,
    }
    for path in result.files:
        coords, attributes = read_dataset(path, "coords")
        assert coords.dtype == np.int64
        np.testing.assert_array_equal(coords, store.origins)
        assert attributes == expected
        for name in ("patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap"):
            assert np.asarray(attributes[name]).dtype == np.int64, name
    features, about = read_dataset(result.files[1], "features")
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, store.features)
    assert about == {"name": "TCGA-01", "savetodir": "", "encoder": "lmc-lmc-0a1b2c3d"}


def test_trident_states_the_true_footprint_of_an_odd_slide(stores: Path, tmp_path: Path) -> None:
    """0.265 um: TRIDENT's own 40x would make of 256 px at 20x a footprint of 512; the truth is 483."""
    slide = {"mpp": [0.264, 0.266]}
    tile = {"footprint": [485.0, 481.0], "effective_mpp": [0.512, 0.508], "stride": 192}
    store = make_store(stores, "odd", 5, slide=slide, tile=tile)
    result = export_features([store], "trident", tmp_path / "out")
    assert result.files[0].parent.parent.name == "20x_256px_64px_overlap"
    _, attributes = read_dataset(result.files[0], "coords")
    assert attributes["patch_size_level0"] == 483
    assert attributes["level0_magnification"] == 38
    assert attributes["overlap"] == 64
    assert attributes["mpp"] == pytest.approx((0.512 * 0.508) ** 0.5, abs=1e-6)


def test_tiles_that_lie_apart_overlap_by_nothing(stores: Path, tmp_path: Path) -> None:
    result = export_features([make_store(stores, "apart", 4, tile={"stride": 300})], "trident", tmp_path / "out")
    assert result.files[0].parent.parent.name == "20x_256px_0px_overlap"


@pytest.mark.parametrize(
    ("mpp", "expected"),
    [
        (0.25, 40),
        (0.2525, 40),
        (0.2457, 40),
        (0.2265, 44),
        (0.265, 38),
        (0.5, 20),
        (0.4942, 20),
        (1.0, 10),
        (0.7, 14),
        (2.0, 5),
        (4.0, 2.5),
        (8.0, 1.25),
        (9.9, 1),
        (50.0, 1),
    ],
)
def test_magnification(mpp: float, expected: float) -> None:
    assert magnification(mpp) == expected


def test_folder_of_a_fractional_magnification_is_named_as_trident_does(stores: Path, tmp_path: Path) -> None:
    tile = {"mpp": 4.0, "effective_mpp": [4.0, 4.0], "footprint": [4096.0, 4096.0]}
    result = export_features([make_store(stores, "low", 2, tile=tile)], "trident", tmp_path / "out")
    assert result.files[0].parent.parent.name == "2.5x_256px_0px_overlap"


def test_clam_reads_what_is_written(stores: Path, tmp_path: Path) -> None:
    both = [make_store(stores, "a", 6), make_store(stores, "b", 9)]
    out = tmp_path / "out"
    labels = known(b=("patient 2", "tumor, high"), a=("patient 1", "normal"), elsewhere=("p", "normal"))
    result = export_features(both, "clam", out, labels)
    assert {path.relative_to(out).as_posix() for path in result.files} == {
        *("h5_files/a.h5", "h5_files/b.h5", "pt_files/a.pt", "pt_files/b.pt", "dataset.csv")
    }
    for store in both:
        path = out / "h5_files" / f"{store.slide_id}.h5"
        (features, _), (coords, _) = read_dataset(path, "features"), read_dataset(path, "coords")
        assert (features.dtype, coords.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(features, store.features)
        np.testing.assert_array_equal(coords, store.origins)
        tensor = torch.load(out / "pt_files" / f"{store.slide_id}.pt", weights_only=True)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), store.features)
    with (out / "dataset.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["case_id", "slide_id", "label"],
            ["patient 1", "a", "normal"],
            ["patient 2", "b", "tumor, high"],
        ]


def test_peer_file_of_clam_has_the_same_frame(test_data: Path, stores: Path, tmp_path: Path) -> None:
    """A file written by CLAM holds ``coords`` as whole numbers (N, 2), as x, y within the slide's width and height."""
    peers = sorted((test_data / "peer_outputs" / "clam").glob("*.h5"))
    assert peers
    export_features([make_store(stores, "ours", 9)], "clam", tmp_path / "out")
    for path in (*peers, tmp_path / "out" / "h5_files" / "ours.h5"):
        coords, attributes = read_dataset(path, "coords")
        size = attributes.get("level_dim", np.array([90_001, 81_234]))
        assert coords.dtype.kind == "i"
        assert coords.shape[1:] == (2,)
        assert (coords.max(axis=0) < size).all()


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_float16_features_become_the_same_values_in_float32(to: Any, stores: Path, tmp_path: Path) -> None:
    store = make_store(stores, "half", 6, dtype=np.float16)
    result = export_features([store], to, tmp_path / "out")
    path = next(path for path in result.files if path.name == "half.h5")
    features, _ = read_dataset(path, "features")
    assert store.features.dtype == np.float16
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, store.features.astype(np.float32))


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_unreadable_tiles_are_left_out_and_counted(to: Any, stores: Path, tmp_path: Path) -> None:
    """Padded and composited tiles stay; coordinates and features stay row for row together."""
    store = make_store(stores, "bad", 12, bad=(0, 7, 11))
    result = export_features([store, make_store(stores, "good", 3)], to, tmp_path / "out")
    assert result.dropped == {"bad": 3}
    kept = [1, 2, 3, 4, 5, 6, 8, 9, 10]
    path = next(path for path in result.files if path.name == "bad.h5")
    np.testing.assert_array_equal(read_dataset(path, "features")[0], store.features[kept])
    np.testing.assert_array_equal(read_dataset(path, "coords")[0], store.origins[kept])


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_a_slide_without_tiles_gets_empty_arrays(to: Any, stores: Path, tmp_path: Path) -> None:
    result = export_features([make_store(stores, "none", 0)], to, tmp_path / "out")
    assert result.skipped == ()
    for path in result.files:
        if path.suffix == ".pt":
            assert torch.load(path, weights_only=True).shape == (0, DIM)
            continue
        assert read_dataset(path, "coords")[0].shape == (0, 2)
        if path.name == "none.h5":
            assert read_dataset(path, "features")[0].shape == (0, DIM)


def test_slides_clam_cannot_train_on_have_no_row(stores: Path, tmp_path: Path) -> None:
    cohort = [make_store(stores, name, count) for name, count in (("ok", 3), ("empty", 0), ("new", 4), ("blank", 2))]
    labels = known(ok=("", "tumor"), empty=("p", "tumor"), blank=("p", ""))
    result = export_features(cohort, "clam", tmp_path / "out", labels)
    assert {skip.slide_id: skip.reason.split(":")[0] for skip in result.skipped} == {
        **{"empty": "no tiles", "new": "no label", "blank": "no label"}
    }
    assert (tmp_path / "out" / "dataset.csv").read_text() == "case_id,slide_id,label\nok,ok,tumor\n"
    assert (tmp_path / "out" / "pt_files" / "new.pt").is_file()


def test_no_data_set_without_labels_and_none_for_trident(stores: Path, tmp_path: Path) -> None:
    store = make_store(stores, "a", 2)
    export_features([store], "clam", tmp_path / "clam")
    result = export_features([store], "clam", tmp_path / "clam", known(a=("p", ""), elsewhere=("p", "tumor")))
    assert result.skipped == ()
    export_features([store], "trident", tmp_path / "trident", known(a=("p", "tumor")))
    assert not [name for name in files_below(tmp_path / "clam") if name.endswith(".csv")]
    assert not [name for name in files_below(tmp_path / "trident") if name.endswith(".csv")]


def test_cells_cannot_run_as_formulas(stores: Path, tmp_path: Path) -> None:
    labels = known(a=("=HYPERLINK(1)", "+1"), b=("@x", "-"))
    export_features([make_store(stores, "a", 2), make_store(stores, "b", 2)], "clam", tmp_path / "out", labels)
    with (tmp_path / "out" / "dataset.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["'=HYPERLINK(1)", "a", "+1"], ["'@x", "b", "'-"]]
    assert to_cell("HER2+") == "HER2+"


@pytest.mark.parametrize("to", ["trident", "clam"])
@pytest.mark.parametrize("array", ["features", "origins", "tissue_fraction", "valid"])
def test_a_damaged_store_is_skipped_with_its_reason_and_the_others_go_on(
    array: str, to: Any, stores: Path, tmp_path: Path
) -> None:
    """A chunk that is gone would be read as zeros, and the zeros exported."""
    lost, whole = make_store(stores, "lost", 8), make_store(stores, "whole", 3)
    (chunk,) = (lost.path / array).glob("c.*")
    chunk.unlink()
    result = export_features([lost, whole], to, tmp_path / "out", known(lost=("p", "x"), whole=("q", "y")))
    assert [skip.slide_id for skip in result.skipped] == ["lost"]
    assert array in result.skipped[0].reason
    assert not [name for name in files_below(tmp_path / "out") if "lost" in name]
    assert len([path for path in result.files if path.name.startswith("whole")]) == 2


@pytest.mark.parametrize("array", ["features", "origins"])
def test_a_chunk_of_another_slide_is_damage_though_it_can_be_read(array: str, stores: Path, tmp_path: Path) -> None:
    """Its own checksum holds; only the store's seal says that it does not belong there."""
    mixed, other = make_store(stores, "mixed", 8), make_store(stores, "other", 8)
    (chunk,) = (mixed.path / array).glob("c.*")
    rows = TileRows(other.origins + 512, other.tissue_fraction, other.valid)
    write_features(tmp_path / "moved.zarr", other.features, rows, other.attributes)
    shutil.copyfile(tmp_path / "moved.zarr" / array / chunk.name, chunk)
    result = export_features([FeatureStore.open(mixed.path), other], "clam", tmp_path / "out")
    assert [skip.slide_id for skip in result.skipped] == ["mixed"]
    assert array in result.skipped[0].reason


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_a_second_export_gives_the_same_bytes_and_leaves_nothing_behind(to: Any, stores: Path, tmp_path: Path) -> None:
    cohort = [make_store(stores, "a", 6), make_store(stores, "b", 0)]
    labels = known(a=("p", "x"), b=("q", "y"))
    out = tmp_path / "out"
    first = export_features(cohort, to, out, labels)
    before = {path: path.read_bytes() for path in first.files}
    again = export_features(cohort, to, out, labels)
    assert again == first
    assert {path: path.read_bytes() for path in again.files} == before
    assert {path for path in out.rglob("*") if path.is_file()} == set(first.files)
    assert not (out / ".tmp").exists()


def test_no_path_of_this_machine_is_written(stores: Path, tmp_path: Path) -> None:
    store = make_store(stores, "a", 6)
    for to in ("trident", "clam"):
        result = export_features([store], to, tmp_path / "out")
        for path in result.files:
            assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tile": {"px": 224}}, "tile px is 224"),
        ({"tile": {"mpp": 0.25}}, "tile mpp is 0.25"),
        ({"tile": {"stride": 128}}, "stride is 128"),
        ({"encoder": {"name": "other"}}, "encoder is other"),
        ({"encoder": {"sha256": "cd" * 32}}, "encoder sha256 is cdcd"),
    ],
)
def test_stores_of_two_kinds_are_refused_before_anything_is_written(
    changes: dict[str, Any], named: str, stores: Path, tmp_path: Path
) -> None:
    cohort = [make_store(stores, "a", 3), make_store(stores, "b", 3, **changes)]
    with pytest.raises(UsageError, match=named):
        export_features(cohort, "clam", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_of_two_widths_are_refused(stores: Path, tmp_path: Path) -> None:
    """The same encoder's, as its name and weights say: one store may hold class tokens, another pooled ones."""
    narrow = make_store(stores, "b", 3, columns=DIM - 1)
    with pytest.raises(UsageError, match=f"width is {DIM - 1} for slide b and {DIM} for a"):
        export_features([make_store(stores, "a", 3), narrow], "clam", tmp_path / "out")


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("Slide", "slide")])
def test_ids_that_would_overwrite_each_other_are_refused(first: str, second: str, stores: Path, tmp_path: Path) -> None:
    cohort = [make_store(stores, first, 3), make_store(stores, second, 3)]
    with pytest.raises(UsageError, match="2 times"):
        export_features(cohort, "trident", tmp_path / "out")


@pytest.mark.parametrize("slide_id", ["../../escaped", "/absolute", "-rf", ".hidden"])
def test_an_id_that_leads_out_of_the_folder_is_refused(slide_id: str, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="slide id"):
        export_features([make_store(stores, slide_id, 3)], "clam", tmp_path / "out")


def test_nothing_to_export_and_nowhere_to_write_are_usage_errors(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no feature store"):
        export_features([], "clam", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        export_features([make_store(stores, "a", 2)], "clam", tmp_path / "file" / "out")


def test_an_encoder_name_cannot_lead_out_of_the_folder(stores: Path, tmp_path: Path) -> None:
    store = make_store(stores, "a", 2, encoder={"name": "../../hub/name"})
    out = (tmp_path / "out").resolve()
    result = export_features([store], "trident", out)
    assert all(path.resolve().is_relative_to(out) for path in result.files)
    assert result.files[1].parent.name.startswith("features__.._hub_name-")


def test_memory_of_a_slide_is_given_back(stores: Path, tmp_path: Path) -> None:
    """The stores handed in must not keep what was read of them: a cohort has thousands."""
    store = make_store(stores, "a", 6)
    export_features([store], "clam", tmp_path / "out")
    assert not {"features", "origins", "valid"} & set(vars(store))
