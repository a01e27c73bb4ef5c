"""Stores that earlier versions wrote are read, checked, trained on, embedded, exported and compared as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsi_lmc
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import StoreError
from wsi_lmc.export.bags import load_bag
from wsi_lmc.export.exporting import export_features
from wsi_lmc.featuresets import Reading, load_feature_sets
from wsi_lmc.inspection import problems_of_features, problems_of_tiles
from wsi_lmc.provenance import array_sha256
from wsi_lmc.runfolder import add_slides, prepare_run
from wsi_lmc.tilestore import TileStore

FIRST = Path(__file__).parent / "data" / "first"
RUNS = sorted(path.name for path in FIRST.iterdir() if path.is_dir())
SLIDE = "north-01.zarr"
ENTRY = SlideEntry(Path("north-01.tif"), "north-01")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an old run's stores, which may be written into."""
    return Path(shutil.copytree(FIRST / request.param, tmp_path / request.param))


def _expected(run: Path) -> dict[str, Any]:
    return json.loads((run / "expected.json").read_text())


def test_there_are_stores_of_every_layout() -> None:
    assert RUNS == ["blosc", "jpeg", "unsealed", "zstd"]
    layouts = {
        (_expected(FIRST / run)["codec"], (FIRST / run / "tiles" / SLIDE / "tiles" / "c").is_dir()) for run in RUNS
    }
    assert layouts == {
        ("zstd-1 + crc32c", True),
        ("jpeg quality 95 4:4:4 + crc32c", True),
        ("blosc lz4 + crc32c", True),
        ("blosc lz4 + crc32c", False),
    }


def test_they_hold_what_they_held(run: Path) -> None:
    expected = _expected(run)
    tiles, features = TileStore.open(run / "tiles" / SLIDE), wsi_lmc.FeatureStore.open(run / "features" / SLIDE)
    assert tiles.attributes["schema_version"] == features.attributes["schema_version"] == 1
    rows = np.arange(len(tiles))
    assert len(tiles) == expected["count"]
    assert array_sha256(tiles.read(rows)) == expected["tiles"]
    assert array_sha256(tiles.read(rows[::-1])[::-1]) == expected["tiles"], "in any order"
    assert array_sha256(tiles.origins) == array_sha256(features.origins) == expected["origins"]
    assert array_sha256(features.features) == expected["features"]
    assert tiles.fingerprint == expected["fingerprint"] == features.attributes["tile_store"]
    assert features.attributes["encoder"]["normalised"] == "none"


def test_they_are_whole_and_damage_is_told(run: Path) -> None:
    tiles, features = run / "tiles" / SLIDE, run / "features" / SLIDE
    assert problems_of_tiles(tiles) == problems_of_features(features) == []
    load_bag(wsi_lmc.FeatureStore.open(features), ENTRY)
    for store, array, problems in ((tiles, "tiles", problems_of_tiles), (features, "features", problems_of_features)):
        (chunk,) = [path for path in (store / array).rglob("*") if path.is_file() and path.name != "zarr.json"]
        content = bytearray(chunk.read_bytes())
        content[len(content) // 3] ^= 1
        chunk.write_bytes(content)
        assert any(line.startswith(f"{array}/c") for line in problems(store))
        chunk.unlink()
        assert any(line.endswith("missing") for line in problems(store))
    with pytest.raises(StoreError, match="cannot be read"):
        TileStore.open(tiles).read(np.arange(2))


def test_they_are_trained_on_embedded_exported_and_compared(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for name in ("tiles", "features") for path in (run / name).rglob("*.json")}
    wsi_lmc.train(run, tmp_path / "checkpoint", architecture="vit-demo", steps=1, batch=2)
    (fresh,) = wsi_lmc.embed(run, tmp_path / "checkpoint", tmp_path / "new")
    assert len(fresh) == 9
    assert fresh.attributes["tile_store"] == _expected(run)["fingerprint"]
    old = wsi_lmc.FeatureStore.open(run / "features" / SLIDE)
    assert load_bag(old, ENTRY).features.shape == load_bag(fresh, ENTRY).features.shape == (9, 64)
    assert len(export_features([old], "trident", tmp_path / "trident").files) == 2
    prepare_run(run)
    add_slides(run, [SlideEntry(tmp_path / "north-01.tif", "north-01", site="north", label="tumour")])
    (one,) = load_feature_sets([f"old={run}"], Reading())
    assert one.sites == ("north",)
    bag = wsi_lmc.BagDataset(run)[0]
    np.testing.assert_array_equal(bag.features.numpy(), old.features)
    assert {path: path.read_bytes() for path in before} == before, "nothing was written into them"
