"""The units of work on real files: done once, redone only where something changed, the same bytes each time."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.errors import SlideError, UsageError
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.grid import GridConfig
from wsi_lmc.normalisers import NormaliserName
from wsi_lmc.steps.embed import EmbedTask
from wsi_lmc.steps.embed import embed_slide as embed_slide_or_split
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.synthetic import NORTH, SlideSpec, write_slide
from wsi_lmc.tilestore import TileStore

ENCODER = "untrained:vit-demo@1"


def _digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def entry(small_cohort: Path, tmp_path: Path) -> SlideEntry:
    """A slide of its own, which a test may replace."""
    path = tmp_path / "slide.tif"
    shutil.copy(small_cohort / "slides" / "north-01.tif", path)
    return SlideEntry(path, "slide")


def _embed(source: Path | TileTask, out: Path, config: EmbedConfig | None = None) -> EmbedTask:
    sha256 = load_encoder(ENCODER, resolve_device("cpu")).sha256
    return EmbedTask("slide", source, out, ENCODER, sha256, config or EmbedConfig(batch=7, device="cpu"))


def embed_slide(task: EmbedTask) -> Outcome:
    """Embed a slide of one block."""
    outcome = embed_slide_or_split(task)
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_slide_is_cut_once(entry: SlideEntry, tmp_path: Path) -> None:
    task = TileTask(entry, tmp_path / "run", TileConfig())
    first = tile_slide(task)
    assert (first.state, first.fresh, first.mpp_source) == ("done", True, "tiff.XResolution")
    before = _digest(tmp_path / "run")
    again = tile_slide(task)
    assert (again.fresh, again.tiles, again.mpp) == (False, first.tiles, first.mpp)
    assert _digest(tmp_path / "run") == before
    assert {path.name for path in (tmp_path / "run").iterdir()} - {".locks", ".tmp", ".working"} == {
        "tiles",
        "contours",
        "overviews",
    }
    assert list((tmp_path / "run" / ".tmp").iterdir()) == []
    assert list((tmp_path / "run" / ".working").iterdir()) == []


def test_the_same_slide_gives_the_same_bytes(entry: SlideEntry, tmp_path: Path) -> None:
    for name in ("a", "b"):
        tile_slide(TileTask(entry, tmp_path / name, TileConfig()))
    assert _digest(tmp_path / "a" / "tiles") == _digest(tmp_path / "b" / "tiles")


def test_other_settings_are_refused_or_redone(entry: SlideEntry, tmp_path: Path) -> None:
    task = TileTask(entry, tmp_path / "run", TileConfig())
    count = tile_slide(task).tiles
    other = replace(task, config=TileConfig(grid=GridConfig(tile_px=128)))
    with pytest.raises(SlideError) as caught:
        tile_slide(other)
    assert caught.value.code == "other_configuration"
    assert len(TileStore.open(tmp_path / "run" / "tiles" / "slide.zarr")) == count
    assert tile_slide(replace(other, overwrite=True)).tiles > 3 * count


def test_a_replaced_slide_is_noticed(entry: SlideEntry, tmp_path: Path) -> None:
    task = TileTask(entry, tmp_path / "run", TileConfig())
    tile_slide(task)
    entry.path.unlink()
    write_slide(tmp_path / "new" / "slide.tif", NORTH, SlideSpec(9, 1024, 1280))
    shutil.move(tmp_path / "new" / "slide.tif", entry.path)
    with pytest.raises(SlideError) as caught:
        tile_slide(task)
    assert caught.value.code == "slide_changed"
    assert tile_slide(replace(task, overwrite=True)).fresh


def test_a_slide_of_glass_is_empty_and_not_redone(tmp_path: Path) -> None:
    import tifffile

    glass = np.full((700, 900, 3), 243, np.uint8)
    tifffile.imwrite(
        tmp_path / "glass.tif", glass, tile=(256, 256), photometric="rgb", compression="jpeg",
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    task = TileTask(SlideEntry(tmp_path / "glass.tif", "slide"), tmp_path / "run", TileConfig())
    assert tile_slide(task).state == "empty"
    again = tile_slide(task)
    assert (again.state, again.fresh) == ("empty", False)
    outcome = embed_slide(_embed(tmp_path / "run" / "tiles" / "slide.zarr", tmp_path / "run"))
    assert outcome.state == "empty"
    assert FeatureStore.open(tmp_path / "run" / "features" / "slide.zarr").features.shape == (0, 64)


def test_names_that_occur_twice_are_refused_each(entry: SlideEntry, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(entry.path, tmp_path / "other" / "Slide.tif")
    for found in find_slides([str(entry.path), str(tmp_path / "other")]):
        with pytest.raises(SlideError) as caught:
            tile_slide(TileTask(found, tmp_path / "run", TileConfig()))
        assert caught.value.code == "duplicate_name"


@pytest.mark.parametrize("text", ["0,5", "0.5"])
def test_the_manifest_gives_the_pixel_size(entry: SlideEntry, tmp_path: Path, text: str) -> None:
    outcome = tile_slide(TileTask(replace(entry, mpp=text), tmp_path / "run", TileConfig()))
    assert (outcome.mpp, outcome.mpp_source) == (0.5, "manifest")


def test_a_wrong_pixel_size_in_the_manifest_fails_the_slide(entry: SlideEntry, tmp_path: Path) -> None:
    with pytest.raises(SlideError) as caught:
        tile_slide(TileTask(replace(entry, mpp="half"), tmp_path / "run", TileConfig()))
    assert caught.value.code == "mpp_invalid"


def test_an_edited_outline_is_taken_as_the_mask(entry: SlideEntry, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tile_slide(TileTask(entry, run, TileConfig()))
    outline = run / "contours" / "slide.geojson"
    task = TileTask(entry, run, TileConfig(), mask=outline, overwrite=True)
    assert not tile_slide(task).fresh, "given back as it was found"
    document = json.loads(outline.read_text())
    square = [[[300, 400], [812, 400], [812, 912], [300, 912], [300, 400]]]
    document["features"] = [{**document["features"][0], "geometry": {"type": "Polygon", "coordinates": square}}]
    outline.write_text(json.dumps(document))
    given = outline.read_bytes()
    tile_slide(task)
    store = TileStore.open(run / "tiles" / "slide.zarr")
    covered = [tuple(origin) for origin in store.origins.tolist()]
    assert covered == [(256, 512), (512, 512), (512, 768)]  # at least half inside the square
    assert outline.read_bytes() == given, "the user's outline stays as it came"
    assert not tile_slide(task).fresh
    with pytest.raises(SlideError, match="other settings"):
        tile_slide(TileTask(entry, run, TileConfig()))  # never silently back to what was corrected


def test_an_outline_that_is_missing_fails_the_slide(entry: SlideEntry, tmp_path: Path) -> None:
    with pytest.raises(SlideError) as caught:
        tile_slide(TileTask(entry, tmp_path / "run", TileConfig(), mask=tmp_path / "none.geojson"))
    assert caught.value.code == "bad_mask"


def test_tiles_are_normalised_before_they_are_embedded(entry: SlideEntry, tmp_path: Path) -> None:
    tile_slide(TileTask(entry, tmp_path / "run", TileConfig()))
    store = TileStore.open(tmp_path / "run" / "tiles" / "slide.zarr")
    cv2.imwrite(str(tmp_path / "look.png"), (store.read(np.arange(1))[0].astype(float) ** 0.9).astype(np.uint8))
    spec = "untrained:vit-demo@1"
    sha256 = load_encoder(spec, resolve_device("cpu")).sha256
    found = []
    choices: list[tuple[NormaliserName, str | None]] = [("none", None), ("reinhard", str(tmp_path / "look.png"))]
    for name, reference in choices:
        config = EmbedConfig(device="cpu", normalise=name, reference=reference)
        out = tmp_path / name
        embed_slide(EmbedTask("slide", store.path, out, spec, sha256, config))
        features = FeatureStore.open(out / "features" / "slide.zarr")
        assert features.attributes["encoder"]["normalised"] == name
        found.append(features)
    assert found[0].attributes["config_fingerprint"] != found[1].attributes["config_fingerprint"]
    assert np.abs(found[0].features - found[1].features).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_and_its_slide_give_the_same_features(entry: SlideEntry, tmp_path: Path, dtype: str) -> None:
    tiles = TileTask(entry, tmp_path / "run", TileConfig())
    count = tile_slide(tiles).tiles
    config = EmbedConfig(batch=7, device="cpu", dtype="float16" if dtype == "float16" else "float32")
    embed_slide(_embed(tmp_path / "run" / "tiles" / "slide.zarr", tmp_path / "run", config))
    embed_slide(_embed(replace(tiles, out=tmp_path / "direct"), tmp_path / "direct", config))
    stores = [FeatureStore.open(tmp_path / name / "features" / "slide.zarr") for name in ("run", "direct")]
    assert stores[0].features.shape == (count, 64)
    assert stores[0].features.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stores[0].features, stores[1].features)
    np.testing.assert_array_equal(stores[0].origins, stores[1].origins)
    assert stores[0].attributes["slide"] == stores[1].attributes["slide"]
    assert stores[1].attributes["tile_store"] == "from slide"


def test_features_are_made_once_and_follow_their_tiles(entry: SlideEntry, tmp_path: Path) -> None:
    tiles = TileTask(entry, tmp_path / "run", TileConfig())
    tile_slide(tiles)
    task = _embed(tmp_path / "run" / "tiles" / "slide.zarr", tmp_path / "run")
    assert embed_slide(task).fresh
    assert not embed_slide(task).fresh
    tile_slide(replace(tiles, config=TileConfig(codec="jpeg"), overwrite=True))
    with pytest.raises(SlideError) as caught:
        embed_slide(task)
    assert caught.value.code == "other_configuration"
    assert embed_slide(replace(task, overwrite=True)).fresh


def test_an_encoder_that_was_replaced_is_noticed(entry: SlideEntry, tmp_path: Path) -> None:
    tiles = TileTask(entry, tmp_path / "run", TileConfig())
    with pytest.raises(UsageError, match="SHA-256"):
        embed_slide(replace(_embed(tiles, tmp_path / "run"), encoder_sha256="0" * 64))


@pytest.mark.real
def test_tiles_of_a_real_slide_are_the_slides_own_pixels(real_slides: Path, tmp_path: Path) -> None:
    import openslide

    path = real_slides / "CMU-1-Small-Region.svs"
    outcome = tile_slide(TileTask(SlideEntry(path, "cmu"), tmp_path, TileConfig()))
    store = TileStore.open(tmp_path / "tiles" / "cmu.zarr")
    assert (outcome.mpp, outcome.mpp_source, outcome.tiles) == (0.499, "aperio.MPP", len(store))
    assert len(store) > 30
    with openslide.OpenSlide(path) as reference:
        for row, (x, y) in enumerate(store.origins.tolist()):
            expected = np.asarray(reference.read_region((x, y), 0, (256, 256)).convert("RGB"))
            np.testing.assert_array_equal(store.read(np.array([row]))[0], expected)


def test_precision_and_backend_are_part_of_what_features_are(
    entry: SlideEntry, tmp_path: Path, oracle: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of one are not taken for features of another, and each says what it is."""
    monkeypatch.setitem(cast(dict[str, Any], sys.modules), "openvino_telemetry", None)
    oracle("openvino")
    tiles = tmp_path / "run" / "tiles" / "slide.zarr"
    tile_slide(TileTask(entry, tmp_path / "run", TileConfig()))
    plain = EmbedConfig(batch=7, device="cpu", precision="float32")
    task = _embed(tiles, tmp_path / "run", plain)
    embed_slide(task)
    assert not embed_slide(task).fresh
    auto = replace(task, config=replace(plain, precision="auto"), out=tmp_path / "auto")
    embed_slide(auto)
    named = replace(plain, precision=auto.config.precision_on(torch.device("cpu")))
    assert not embed_slide(replace(auto, config=named)).fresh
    stores = [FeatureStore.open(tmp_path / "run" / "features" / "slide.zarr")]
    for name, backend, precision in (
        ("half", "torch", "bfloat16"),
        ("other", "openvino", "float32"),
        ("both", "openvino", "bfloat16"),
    ):
        config = replace(plain, backend=backend, precision=precision)
        with pytest.raises(SlideError) as caught:
            embed_slide(replace(task, config=config))
        assert caught.value.code == "other_configuration"
        embed_slide(replace(task, config=config, out=tmp_path / name))
        stores.append(FeatureStore.open(tmp_path / name / "features" / "slide.zarr"))
        assert (stores[-1].attributes["encoder"]["backend"], stores[-1].attributes["encoder"]["precision"]) == (
            backend,
            precision,
        )
    assert len({store.attributes["config_fingerprint"] for store in stores}) == 4
    exact = np.asarray(stores[0].features)
    for store, floor in zip(stores[1:], (0.999, 0.99999, 0.999), strict=True):
        found = np.asarray(store.features)
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
        assert ((exact * found).sum(1) / lengths).min() > floor
