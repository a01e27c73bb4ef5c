"""Features of TRIDENT and CLAM in our stores: the same numbers at the same places, and nothing that nobody stated."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.foreign import (
    DIM,
    HEIGHT,
    TRIDENT,
    WIDTH,
    about_clam,
    about_trident,
    bag,
    clam_slide,
    importing,
    stored,
    trident_slide,
    write,
)
from tests.test_export import make_store
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import UsageError
from wsi_lmc.export import export_features
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.importing import ImportConfig, ImportInputs, find_imports
from wsi_lmc.importing.foreign import Patches
from wsi_lmc.importing.geometry import measured_stride
from wsi_lmc.runfolder import add_slides, list_slides, prepare_run
from wsi_lmc.tilestore import Validity
from wsi_lmc.verify import verify


def opened(out: Path, slide_id: str) -> FeatureStore:
    return FeatureStore.open(out / "features" / f"{slide_id}.zarr")


def words_of(out: Path) -> bytes:
    """Everything that was written, but for the manifest, which names the files that were imported."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "manifest.csv"]
    return b"\n".join(path.read_bytes() for path in files)


def test_trident_slide(tmp_path: Path) -> None:
    features, coords = trident_slide(tmp_path / "job", "S 1", mpp=None)
    outcomes = importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.2465)
    (slide_id,) = outcomes
    assert (outcomes[slide_id].state, outcomes[slide_id].tiles, outcomes[slide_id].mpp_source) == (
        "done", 13, "option --mpp",
    )  # fmt: skip
    store = opened(tmp_path / "out", slide_id)
    np.testing.assert_array_equal(store.features, features)
    np.testing.assert_array_equal(store.origins, coords)
    assert np.isnan(store.tissue_fraction).all(), "nobody knows"
    assert not store.valid.any()
    slide, tile, encoder = (store.attributes[name] for name in ("slide", "tile", "encoder"))
    assert slide == {
        "id": slide_id, "mpp": [0.2465, 0.2465], "mpp_source": "option --mpp", "width": WIDTH, "height": HEIGHT,
    }  # fmt: skip
    assert tile["px"] == 256
    assert tile["footprint"] == [512.0, 512.0]
    assert tile["stride"] == 256
    assert tile["effective_mpp"] == pytest.approx([0.493, 0.493]), "not the 0.5 that 20x is taken for"
    assert tile["mpp"] == pytest.approx(0.493)
    assert (encoder["name"], encoder["sha256"], encoder["dtype"]) == ("uni_v1", None, "float32")
    assert store.attributes["imported"] == "trident"


def test_nothing_of_names_and_folders_in_the_files_is_written(tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "S1")
    clam_slide(tmp_path / "clam", "S2")
    importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)
    importing(tmp_path / "clam", "clam", tmp_path / "out", mpp=0.25, encoder="uni_v1")
    assert len(list((tmp_path / "out" / "features").iterdir())) == 2
    assert b"ueller" not in words_of(tmp_path / "out")
    assert str(tmp_path).encode() not in words_of(tmp_path / "out")


def test_trident_states_the_pixel_size_only_in_our_own_exports(tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "ours", mpp=0.5)
    outcomes = importing(tmp_path / "job", "trident", tmp_path / "out")
    assert (outcomes["ours"].mpp, outcomes["ours"].mpp_source) == (pytest.approx(0.25), "trident (mpp)")
    trident_slide(tmp_path / "other", "theirs")
    outcome = importing(tmp_path / "other", "trident", tmp_path / "out")["theirs"]
    assert (outcome.state, outcome.code) == ("failed", "mpp_missing")
    assert "--mpp" in outcome.remedy


def test_overlap_is_trident_s_own_and_clam_s_is_measured(tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "S1", overlap=64)
    importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)
    assert opened(tmp_path / "out", "S1").attributes["tile"]["stride"] == 192
    patches = Patches(256, (512.0, 512.0))
    coords = np.array([[0, 0], [384, 0], [768, 0], [2000, 0], [0, 384], [384, 384]], np.int32)
    assert measured_stride(coords, patches) == 192
    assert measured_stride(coords[[0, 3]], patches) == 256, "apart: no overlap, whatever the step was"
    assert measured_stride(coords[:0], patches) == 256


@pytest.mark.parametrize("layout", ["batched", "float16", "float64", "older", "pt", "legacy"])
def test_other_versions_of_trident(layout: str, tmp_path: Path) -> None:
    features, coords = bag(9)
    about: dict[str, Any] = about_trident()
    kept: np.ndarray = features
    if layout == "batched":
        kept = features[None]
    elif layout in ("float16", "float64"):
        kept = features.astype(layout)
    elif layout == "older":
        about = about_trident(level0_width=None, level0_height=None, overlap=None)
    elif layout == "legacy":
        about = {"patch_size": 512, "patch_level": 0}
    folder = tmp_path / "job" / TRIDENT
    if layout == "pt":
        write(folder / "patches" / "S1_patches.h5", {"coords": about}, coords=coords)
        (folder / "features_uni_v1").mkdir()
        torch.save(torch.from_numpy(features), folder / "features_uni_v1" / "S1.pt")
    else:
        write(folder / "features_uni_v1" / "S1.h5", {"coords": about}, features=kept, coords=coords)
    for number, named in enumerate((tmp_path / "job", folder, folder / "features_uni_v1")):
        out = tmp_path / f"out{number}"
        assert importing(named, "trident", out, mpp=0.25)["S1"].state == "done"
        store = opened(out, "S1")
        half = layout == "float16"
        np.testing.assert_array_equal(store.features, features.astype(np.float16 if half else np.float32))
        assert store.attributes["encoder"]["dtype"] == ("float16" if half else "float32")
        np.testing.assert_array_equal(store.origins, coords)
        assert ("width" in store.attributes["slide"]) == (layout not in ("older", "legacy"))
        assert store.attributes["tile"]["footprint"] == [512.0, 512.0]


def test_a_slide_without_patches_is_empty(tmp_path: Path) -> None:
    about = {"coords": about_trident()}
    path = tmp_path / "job" / TRIDENT / "features_uni_v1" / "S1.h5"
    write(path, about, features=np.empty((0, DIM), np.float32), coords=np.empty(0, np.float64))
    assert importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)["S1"].state == "empty"
    assert opened(tmp_path / "out", "S1").features.shape == (0, DIM)
    assert verify(tmp_path / "out").findings == ()


def test_clam_slide(tmp_path: Path) -> None:
    features, coords = clam_slide(tmp_path / "clam", "S1", downsample=(2.0, 2.0001))
    outcome = importing(tmp_path / "clam", "clam", tmp_path / "out", mpp=0.25, encoder="uni_v1")["S1"]
    assert (outcome.state, outcome.tiles) == ("done", 13)
    store = opened(tmp_path / "out", "S1")
    np.testing.assert_array_equal(store.features, features)
    np.testing.assert_array_equal(store.origins, coords)
    tile, slide = store.attributes["tile"], store.attributes["slide"]
    assert tile["footprint"] == pytest.approx([512.0, 512.0256])
    assert (tile["px"], tile["stride"], tile["level"]) == (256, 256, 1)
    assert tile["effective_mpp"] == pytest.approx([0.5, 0.500025])
    assert (slide["width"], slide["height"]) == (WIDTH // 2 * 2, round(HEIGHT // 2 * 2.0001))


def test_clam_s_tensors_take_coordinates_from_the_patches(tmp_path: Path) -> None:
    features, coords = clam_slide(tmp_path / "clam", "S1")
    clam_slide(tmp_path / "clam", "S2", patches=False)
    for name in ("S1", "S2"):
        (tmp_path / "clam" / "h5_files" / f"{name}.h5").unlink()
    outcomes = importing(tmp_path / "clam", "clam", tmp_path / "out", mpp=0.25, encoder="uni_v1")
    assert outcomes["S1"].state == "done"
    np.testing.assert_array_equal(opened(tmp_path / "out", "S1").features, features)
    np.testing.assert_array_equal(opened(tmp_path / "out", "S1").origins, coords)
    assert outcomes["S2"].code == "unsupported"
    assert "without coordinates" in outcomes["S2"].reason
    assert "--patches" in outcomes["S2"].remedy


def test_patches_may_lie_elsewhere_or_be_stated(tmp_path: Path) -> None:
    clam_slide(tmp_path / "clam", "S1")
    (tmp_path / "clam" / "patches").rename(tmp_path / "elsewhere")
    stated = {"mpp": 0.25, "encoder": "uni_v1"}
    outcome = importing(tmp_path / "clam", "clam", tmp_path / "out", **stated)["S1"]
    assert (outcome.code, "how large" in outcome.reason) == ("unsupported", True)
    found = importing(tmp_path / "clam", "clam", tmp_path / "a", patches=tmp_path / "elsewhere", **stated)
    assert found["S1"].state == "done"
    found = importing(tmp_path / "clam", "clam", tmp_path / "b", patch_size=256, downsample=2.0, **stated)
    assert found["S1"].state == "done"
    tiles = [opened(tmp_path / name, "S1").attributes["tile"] for name in ("a", "b")]
    assert tiles[0].pop("level") == 1
    assert tiles[0] == tiles[1]
    found = importing(
        tmp_path / "clam", "clam", tmp_path / "c", patch_size=256, downsample=1.0, patches=tmp_path / "elsewhere",
        **stated,
    )  # fmt: skip
    assert found["S1"].code == "mpp_conflict"
    with pytest.raises(UsageError, match="--patch-size alone"):
        ImportConfig(patch_size=256)
    with pytest.raises(UsageError, match="--downsample without"):
        ImportConfig(downsample=1.0)
    with pytest.raises(UsageError, match="patch_size = 0"):
        ImportConfig(patch_size=0, downsample=1.0)


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_what_is_exported_comes_back(to: Any, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    store = make_store(tmp_path / "features", "TCGA-01", 23, bad=(4,))
    export_features([store], to, tmp_path / "there")
    stated = {} if to == "trident" else {"mpp": 0.25, "patch_size": 256, "downsample": 2.0}
    found = importing(tmp_path / "there", to, tmp_path / "out", encoder="lmc-lmc-0a1b2c3d", **stated)
    assert found["TCGA-01"].state == "done"
    back = opened(tmp_path / "out", "TCGA-01")
    usable = store.valid != Validity.UNREADABLE
    np.testing.assert_array_equal(back.features, store.features[usable])
    np.testing.assert_array_equal(back.origins, store.origins[usable])
    for name in ("px", "mpp", "effective_mpp", "footprint", "stride"):
        assert back.attributes["tile"][name] == store.attributes["tile"][name], name
    sizes = ("mpp", "width", "height") if to == "trident" else ("mpp",)
    for name in sizes:
        assert back.attributes["slide"][name] == store.attributes["slide"][name], name
    assert back.attributes["encoder"]["name"] == store.attributes["encoder"]["name"]
    export_features([back], "trident", tmp_path / "again")
    (first,) = (tmp_path / "again").rglob("features_*/TCGA-01.h5")
    np.testing.assert_array_equal(stored(first, "features")[0], store.features[usable])
    about = stored(first, "coords")[1]
    assert ("level0_width" in about) == (to == "trident")
    assert about["mpp"] == 0.5


@pytest.mark.real
def test_clam_s_own_files_of_patches(test_data: Path, tmp_path: Path) -> None:
    """Coordinates that CLAM itself wrote, with features of as many patches beside."""
    found = sorted((test_data / "peer_outputs" / "clam").glob("*.h5"))
    (tmp_path / "clam" / "patches").mkdir(parents=True)
    (tmp_path / "clam" / "pt_files").mkdir()
    sizes = {"TCGA-2V": (39_839, 45_988, 1481), "TCGA-DD": (101_592, 48_664, 1502)}
    for path in found:
        slide_id = path.stem.split("__")[1]
        (tmp_path / "clam" / "patches" / f"{slide_id}.h5").write_bytes(path.read_bytes())
        count = sizes[slide_id[:7]][2]
        torch.save(torch.arange(count * 3.0).reshape(count, 3), tmp_path / "clam" / "pt_files" / f"{slide_id}.pt")
    outcomes = importing(tmp_path / "clam", "clam", tmp_path / "out", mpp=0.2525, encoder="resnet50_trunc")
    assert [outcome.state for outcome in outcomes.values()] == ["done", "done"]
    for slide_id, outcome in outcomes.items():
        width, height, count = sizes[slide_id[:7]]
        store = opened(tmp_path / "out", slide_id)
        coords, _ = stored(tmp_path / "clam" / "patches" / f"{slide_id}.h5", "coords")
        np.testing.assert_array_equal(store.origins, coords)
        assert outcome.tiles == len(store) == count
        assert (store.attributes["slide"]["width"], store.attributes["slide"]["height"]) == (width, height)
        tile = store.attributes["tile"]
        assert (tile["px"], tile["footprint"], tile["level"]) == (512, [512.0, 512.0], 0)
        assert tile["stride"] == 512
        assert tile["effective_mpp"] == [0.2525, 0.2525]
    assert b"visiopharm" not in words_of(tmp_path / "out")
    assert verify(tmp_path / "out").findings == ()


def test_patches_beyond_the_slide_and_numbers_that_are_none_are_marked(tmp_path: Path) -> None:
    features, coords = bag(40)
    coords[3] = WIDTH - 511, 2_000
    coords[4], coords[5] = (2_000, HEIGHT - 511), (WIDTH - 512, HEIGHT - 512)
    features[7, 2] = np.nan
    path = tmp_path / "job" / TRIDENT / "features_uni_v1" / "S1.h5"
    write(path, {"coords": about_trident()}, features=features, coords=coords)
    assert importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)["S1"].state == "done"
    store = opened(tmp_path / "out", "S1")
    assert store.valid[3] == store.valid[4] == Validity.PADDED
    assert store.valid[7] == Validity.UNREADABLE
    assert np.count_nonzero(store.valid) == 3
    assert np.isfinite(store.features).all()
    assert verify(tmp_path / "out").findings == ()
    features[:4] = np.inf
    write(path, {"coords": about_trident()}, features=features, coords=coords)
    outcome = importing(tmp_path / "job", "trident", tmp_path / "other", mpp=0.25)["S1"]
    assert (outcome.code, "5 of 40 rows" in outcome.reason) == ("unreadable_tiles", True)


def manifest(path: Path, *rows: tuple[str, ...]) -> Path:
    path.write_text("\n".join(",".join(row) for row in (("slide", "mpp", "site", "label", "slide_id"), *rows)) + "\n")
    return path


def test_a_manifest_gives_pixel_sizes_sites_and_ids(tmp_path: Path) -> None:
    for name in ("S1", "S2", "S3.ome", "S4", "S5"):
        trident_slide(tmp_path / "job", name, mpp=0.5 if name == "S4" else None)
    rows = manifest(
        tmp_path / "slides.csv",
        ("raw/S1.svs", "0.5", "north", "tumour", ""), ("S2.ndpi", "0.5", "south", "normal", "second"),
        ("S3.ome.tif", "half", "south", "", ""), ("S4.svs", "0.26", "", "", ""), ("S9.svs", "0.5", "", "", ""),
        ("S5.ome.tif", "0.5", "east", "", ""),
    )  # fmt: skip
    found, notes = find_imports(ImportInputs("trident", tmp_path / "job", None, None, rows))
    assert notes == ["1 slides of the manifest have no features"]
    assert [candidate.entry.site for candidate in found] == ["north", "south", "", "east", "south"]
    outcomes = importing(tmp_path / "job", "trident", tmp_path / "out", manifest=rows, mpp=0.3)
    assert {name: (each.state, each.code, each.mpp) for name, each in outcomes.items()} == {
        "S1": ("done", "", 0.5),
        "second": ("done", "", 0.5),
        "S3.ome": ("failed", "mpp_invalid", None),
        "S4": ("failed", "mpp_conflict", None),
        "S5.ome": ("done", "", 0.5),
    }
    assert "0.25 um/px at level 0, but manifest says 0.26" in outcomes["S4"].reason
    assert outcomes["S1"].mpp_source == "manifest"
    entries = {entry.slide_id: (entry.site, entry.label, entry.mpp) for entry in list_slides(tmp_path / "out")}
    assert entries["second"] == ("south", "normal", "0.5")
    with (tmp_path / "out" / "slides.csv").open() as file:
        assert {row["slide_id"]: row["code"] for row in csv.DictReader(file)}["S4"] == "mpp_conflict"


def test_the_option_must_not_contradict_the_file(tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "S1", mpp=0.5)
    outcome = importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.5)["S1"]
    assert (outcome.code, "option --mpp says 0.5" in outcome.reason) == ("mpp_conflict", True)
    agreeing = importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.252)["S1"]
    assert (agreeing.state, agreeing.mpp, agreeing.mpp_source) == ("done", 0.25, "trident (mpp)")
    outcome = importing(tmp_path / "job", "trident", tmp_path / "other", mpp=25.0)["S1"]
    assert outcome.code in ("mpp_conflict", "mpp_invalid")


def test_again_does_only_what_is_missing(tmp_path: Path) -> None:
    job, out = tmp_path / "job", tmp_path / "out"
    trident_slide(job, "S1", 10)
    trident_slide(job, "S2", 11, patch_size=0)
    first = importing(job, "trident", out, mpp=0.25)
    assert (first["S1"].state, first["S1"].fresh, first["S2"].code) == ("done", True, "damaged")
    trident_slide(job, "S2", 11)
    again = importing(job, "trident", out, mpp=0.25)
    assert {name: (each.state, each.fresh) for name, each in again.items()} == {
        "S1": ("done", False), "S2": ("done", True),
    }  # fmt: skip
    trident_slide(job, "S1", 10, seed=5)
    changed = importing(job, "trident", out, mpp=0.25)
    assert changed["S1"].code == "slide_changed"
    assert importing(job, "trident", out, mpp=0.26)["S2"].code == "other_configuration"
    assert importing(job, "trident", out, mpp=0.25, overwrite=True)["S1"].fresh
    np.testing.assert_array_equal(opened(out, "S1").features, bag(10, 5)[0])
    assert verify(out).findings == ()
    (chunk,) = (out / "features" / "S2.zarr" / "features").glob("c.*")
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert not importing(job, "trident", out, mpp=0.25)["S2"].fresh
    assert importing(job, "trident", out, mpp=0.25, overwrite=True)["S2"].fresh, "a damaged store is made anew"
    assert verify(out).findings == ()


def test_other_coordinates_of_the_same_features_are_noticed(tmp_path: Path) -> None:
    """Where they lie in a file of their own, the features' file does not change with them."""
    features, coords = clam_slide(tmp_path / "clam", "S1")
    (tmp_path / "clam" / "h5_files" / "S1.h5").unlink()
    assert importing(tmp_path / "clam", "clam", tmp_path / "out", encoder="uni", mpp=0.25)["S1"].fresh
    path = tmp_path / "clam" / "patches" / "S1.h5"
    write(path, {"coords": about_clam()}, coords=coords + 7)
    changed = importing(tmp_path / "clam", "clam", tmp_path / "out", encoder="uni", mpp=0.25)["S1"]
    assert changed.code == "other_configuration"
    assert importing(tmp_path / "clam", "clam", tmp_path / "out", True, encoder="uni", mpp=0.25)["S1"].fresh
    np.testing.assert_array_equal(opened(tmp_path / "out", "S1").origins, coords + 7)
    np.testing.assert_array_equal(opened(tmp_path / "out", "S1").features, features)


def test_a_slide_that_was_tiled_here_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    prepare_run(tmp_path / "out")
    slide = tmp_path / "S1.svs"
    slide.write_bytes(b"not looked at")
    add_slides(tmp_path / "out", [SlideEntry(slide, "S1", "0.25", "p1", "north", "tumour")])
    trident_slide(tmp_path / "job", "S1")
    assert importing(tmp_path / "job", "trident", tmp_path / "out")["S1"].mpp_source == "manifest"
    (entry,) = list_slides(tmp_path / "out")
    assert (entry.path, entry.patient, entry.site, entry.label) == (slide, "p1", "north", "tumour")
    found = verify(tmp_path / "out")
    assert found.findings == ()
    assert any("could not be compared" in note for note in found.notes), "features are not of the slide's bytes"
    rows = manifest(tmp_path / "slides.csv", ("elsewhere/S1.svs", "0.25", "south", "normal", ""))
    assert importing(tmp_path / "job", "trident", tmp_path / "out", manifest=rows)["S1"].state == "done"
    (entry,) = list_slides(tmp_path / "out")
    assert (entry.path, entry.site, entry.label) == (slide, "south", "normal"), "what was tiled is where it was"


def test_what_a_run_folder_says_of_an_import(tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "S1")
    importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)
    (planned,) = (tmp_path / "out" / "records" / "planned").glob("embed-*.json")
    assert json.loads(planned.read_text())["imported"] == "trident"
    (entry,) = list_slides(tmp_path / "out")
    assert entry.path.name == "S1.h5"
    (tmp_path / "job" / TRIDENT / "features_uni_v1" / "S1.h5").write_bytes(b"another file")
    assert any("another version" in str(finding) for finding in verify(tmp_path / "out").findings)
