"""Features as they are compared: with site, patient and labels from whichever manifest knows them."""

from pathlib import Path

import numpy as np
import pytest

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featuresets import Reading, load_feature_sets
from wsi_lmc.featurestore import write_features
from wsi_lmc.labels import NO_CLASS, write_labels
from wsi_lmc.runfolder import Request, add_slides, plan, prepare_run
from wsi_lmc.tilestore import TileRows, Validity


def add(run: Path, slide_id: str, count: int = 40, bad: tuple[int, ...] = (), **encoder: str) -> np.ndarray:
    """A feature store whose feature is its tile's x; returns the origins."""
    valid = np.zeros(count, np.uint8)
    valid[list(bad)] = Validity.UNREADABLE
    origins = np.stack([np.arange(count) * 256, np.arange(count) // 7 * 256], 1).astype(np.int32)
    features = np.stack([origins[:, 0], np.ones(count)], 1).astype(np.float32)
    attributes = {
        "slide": {"id": slide_id, "mpp": [0.5, 0.5]},
        "encoder": {"name": "demo", "sha256": "a", "normalised": "none", "dtype": "float32", **encoder},
    }
    path = run / "features" / f"{slide_id}.zarr"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, features, TileRows(origins, np.ones(count, np.float32), valid), attributes)
    return origins


def entries(run: Path, **of: tuple[str, str, str]) -> None:
    """Slides with site, patient and label in the manifest of a run."""
    prepare_run(run)
    found = [
        SlideEntry(run / f"{name}.svs", name, None, patient, site, label) for name, (site, patient, label) in of.items()
    ]
    add_slides(run, found)


def test_site_patient_and_label_come_from_the_manifest(tmp_path: Path) -> None:
    add(tmp_path, "a", 5, bad=(2,))
    add(tmp_path, "b", 3)
    entries(tmp_path, a=("north", "p1", "tumour"), b=("south", "", "normal"), c=("south", "p3", "x"))
    (found,) = load_feature_sets([str(tmp_path)], Reading())
    assert (found.name, found.classes, found.sites, found.tiles) == (
        "demo",
        ("normal", "tumour"),
        ("north", "south"),
        7,
    )
    first, second = found.slides
    assert (first.slide_id, first.patient, first.site) == ("a", "p1", "north")
    assert first.features[:, 0].tolist() == [0, 256, 768, 1024], "what could not be read is left out"
    assert first.labels.tolist() == [1] * 4
    assert (second.patient, second.labels.tolist()) == ("b", [0] * 3), "a slide without a patient is one of its own"
    (chosen,) = load_feature_sets([str(tmp_path)], Reading(classes=("tumour",)))
    assert chosen.slides[1].labels.tolist() == [NO_CLASS] * 3


def test_labels_of_tiles_go_before_the_slides(tmp_path: Path) -> None:
    origins = add(tmp_path, "a", 4)
    entries(tmp_path, a=("north", "p", "whole"))
    write_labels(tmp_path, "a", origins[::-1], ["stroma", "", "tumour", "stroma"])
    (found,) = load_feature_sets([f"X={tmp_path}"], Reading())
    assert found.classes == ("stroma", "tumour")
    assert found.slides[0].labels.tolist() == [0, 1, NO_CLASS, 0]


def test_what_the_folder_of_the_tiles_knows(tmp_path: Path) -> None:
    tiled, run, other = tmp_path / "tiled", tmp_path / "run", tmp_path / "other"
    origins = add(run, "a", 3)
    entries(tiled, a=("north", "p1", ""))
    write_labels(tiled, "a", origins, ["x", "y", "x"])
    prepare_run(run)
    with pytest.raises(UsageError, match=r"slide a of .* stands in no manifest"):
        load_feature_sets([str(run)], Reading())
    plan(run, "embed", Request(("a",), encoder="e", stores={"a": str(tiled / "tiles/a.zarr")}))
    (found,) = load_feature_sets([str(run)], Reading())
    assert (found.slides[0].site, found.slides[0].labels.tolist()) == ("north", [0, 1, 0])
    entries(other, a=("east", "p9", ""))
    (found,) = load_feature_sets([str(run)], Reading(manifest=other / "manifest.csv"))
    assert (found.slides[0].site, found.slides[0].patient) == ("east", "p9"), "the one that is given goes first"


def test_sets_by_name(tmp_path: Path) -> None:
    for name, slide in (("one=1", "a"), ("two", "b")):
        add(tmp_path / name, slide)
        entries(tmp_path / name, **{slide: ("s", "p", "")})
    both = [str(tmp_path / "one=1"), str(tmp_path / "two")]
    (joined,) = load_feature_sets(both, Reading())
    assert [slide.slide_id for slide in joined.slides] == ["a", "b"]
    apart = load_feature_sets([f"A={both[0]}", f"B={both[1]}"], Reading())
    assert [(each.name, len(each.slides)) for each in apart] == [("A", 1), ("B", 1)]
    with pytest.raises(UsageError, match="slide a twice"):
        load_feature_sets([both[0], both[0]], Reading())
    with pytest.raises(UsageError, match="no features in"):
        load_feature_sets([f"A={tmp_path}/none"], Reading())


@pytest.mark.parametrize("other", [{"sha256": "b"}, {"normalised": "macenko"}])
def test_a_set_has_one_encoder(tmp_path: Path, other: dict[str, str]) -> None:
    add(tmp_path, "a")
    add(tmp_path, "b", 40, (), **other)
    entries(tmp_path, a=("s", "p", ""), b=("s", "q", ""))
    with pytest.raises(UsageError, match=f"{next(iter(other))} of the encoder"):
        load_feature_sets([str(tmp_path)], Reading())


def test_the_same_sample_in_every_set(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for run, bad in ((one, ()), (two, (0,))):
        add(run, "a", 400, bad)
        add(run, "b", 5)
        entries(run, a=("s", "p", ""), b=("s", "q", ""))
    reading = Reading(tiles_per_slide=50, seed=3)
    first, second = load_feature_sets([f"A={one}", f"B={two}"], reading)
    assert (first.tiles, second.tiles) == (405, 404)
    drawn, others = (set(each.slides[0].features[:, 0].tolist()) for each in (first, second))
    assert len(drawn) == len(others) == 50
    assert len(drawn & others) >= 49, "a tile less is no reason to draw others"
    assert len(first.slides[1].features) == 5
    (again,) = load_feature_sets([f"A={one}"], Reading(tiles_per_slide=50, seed=4))
    assert len(drawn & set(again.slides[0].features[:, 0].tolist())) < 25
    xs = np.array(sorted(drawn)) / (400 * 256)
    assert 0.35 < xs.mean() < 0.65
    assert np.abs(np.sort(xs) - (np.arange(50) + 0.5) / 50).max() < 0.2, "evenly from all of the slide"


def test_a_slide_without_tiles_and_a_damaged_store(tmp_path: Path) -> None:
    add(tmp_path, "a", 0)
    entries(tmp_path, a=("s", "p", "x"))
    (found,) = load_feature_sets([str(tmp_path)], Reading(tiles_per_slide=2))
    assert (found.slides[0].features.shape, found.tiles) == ((0, 2), 0)
    (tmp_path / "features/a.zarr/zarr.json").write_text("{")
    with pytest.raises(StoreError):
        load_feature_sets([str(tmp_path)], Reading())
