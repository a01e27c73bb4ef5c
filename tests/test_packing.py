"""Images become a run folder like that of slides: stores, labels, manifest, records; what is done stays."""

import csv
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.forked import Commands
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featuresets import Reading, load_feature_sets
from wsi_lmc.imagelists import ImageInputs
from wsi_lmc.labels import read_labels
from wsi_lmc.packing import find_groups, pack_cohort
from wsi_lmc.patches import PackConfig, image_numbers, read_image
from wsi_lmc.rerun import failed_slides, repair, rerun
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, train_cohort
from wsi_lmc.runfolder import list_slides, outcomes
from wsi_lmc.status import RunReader
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.tilestore import TileStore
from wsi_lmc.verify import verify

SMALL = PackConfig(tile_px=32, mpp=0.5)
SERIAL = RunOptions(SerialExecutor())


def image(path: Path, seed: int, size: tuple[int, int] = (70, 100)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sites in the layout of a class per folder; groups are what stands before the underscore."""
    folder, seed = tmp_path / "data", 0
    for site in ("rad", "uni"):
        for label in ("normal", "tumour"):
            for name in ("p1_1", "p1_2", "p2_1"):
                seed += 1
                image(folder / site / label / f"{site}{name}.png", seed)
    return folder


def inputs_of(data: Path) -> ImageInputs:
    return ImageInputs([data / "rad", data / "uni"], labels_from="folder", group_pattern=r"([^/]+)_\d\.png$")


def pack(
    inputs: ImageInputs, out: Path, config: PackConfig = SMALL, options: RunOptions = SERIAL
) -> tuple[list[Outcome], list[str]]:
    groups, notes = find_groups(inputs, out, config)
    return pack_cohort(groups, out, config, options), notes


def test_a_class_per_folder_becomes_a_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found, notes = pack(inputs_of(data), out)
    assert notes == []
    assert [(o.slide_id, o.stage, o.state, o.tiles, o.mpp, o.mpp_source) for o in found] == [
        (f"{site}-{site}{patient}", "tile", "done", tiles, 0.5, "option --mpp")
        for site in ("rad", "uni")
        for patient, tiles in (("p1", 24), ("p2", 12))
    ]
    entries = {entry.slide_id: entry for entry in list_slides(out)}
    assert {(e.patient, e.site, e.label) for e in entries.values()} == {
        (f"{site}{patient}", site, "") for site in ("rad", "uni") for patient in ("p1", "p2")
    }
    store = TileStore.open(out / "tiles/rad-radp1.zarr")
    files = [data / "rad" / each for each in ("normal/radp1_1.png", "normal/radp1_2.png", "tumour/radp1_1.png")]
    numbers = image_numbers(store.origins)
    assert numbers.tolist() == np.repeat(np.arange(4), 6).tolist()
    tiles = store.read(np.arange(len(store)))
    for number, file in enumerate(files):
        pixels = read_image(file)
        for tile, (x, y) in zip(tiles[numbers == number], store.origins[numbers == number].tolist(), strict=True):
            x, y = x % 16384, y % 16384
            np.testing.assert_array_equal(tile, pixels[y : y + 32, x : x + 32])
    labels = read_labels(out / "labels/rad-radp1.csv")
    assert [labels[x, y] for x, y in store.origins.tolist()] == ["normal"] * 12 + ["tumour"] * 12
    checked = verify(out)
    assert (checked.findings, checked.notes, checked.stores) == ((), (), 4)
    (status,) = RunReader(out).read(0.0)
    assert (status.stage, status.standing.total, status.standing.states) == ("tile", 4, {"done": 4})


def test_what_is_done_stays_and_labels_follow(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    inputs = inputs_of(data)
    pack(inputs, out)
    seal = out / "tiles/rad-radp2.zarr/zarr.json"
    before, records = seal.stat().st_mtime_ns, [o.seconds for o in outcomes(out, "tile")]
    again, _ = pack(inputs, out)
    assert [outcome.fresh for outcome in again] == [False] * 4
    assert [o.seconds for o in outcomes(out, "tile")] == records
    unlabelled, _ = pack(replace(inputs, labels_from="nothing"), out)
    assert [outcome.state for outcome in unlabelled] == ["done"] * 4
    assert not list((out / "labels").glob("*"))
    assert not verify(out).findings
    pack(inputs, out)
    assert len(list((out / "labels").glob("*"))) == 4
    assert seal.stat().st_mtime_ns == before, "labels are no reason to pack again"
    image(data / "rad/normal/radp2_1.png", 99)
    changed, _ = pack(inputs, out)
    assert [outcome.code for outcome in changed] == ["", "slide_changed", "", ""]
    other, _ = pack(inputs, out, replace(SMALL, crop="centre"))
    assert {outcome.code for outcome in other} == {"slide_changed", "other_configuration"}
    anew, _ = pack(inputs, out, replace(SMALL, crop="centre"), replace(SERIAL, overwrite=True))
    assert [(outcome.state, outcome.tiles) for outcome in anew] == [("done", 4), ("done", 2)] * 2
    assert not verify(out).findings


def test_a_broken_image_fails_its_group_and_is_tried_again(data: Path, tmp_path: Path) -> None:
    out, broken = tmp_path / "run", data / "uni/tumour/unip1_2.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-900])
    found, _ = pack(inputs_of(data), out)
    assert [outcome.state for outcome in found] == ["done", "done", "failed", "done"]
    assert (found[2].code, found[2].remedy) == ("not_an_image", "Copy it again.")
    assert "unip1_2.png" in found[2].reason
    assert str(tmp_path) not in found[2].reason
    assert not (out / "tiles/uni-unip1.zarr").exists()
    assert not (out / "labels/uni-unip1.csv").exists()
    assert not verify(out).findings
    broken.write_bytes(whole)
    assert failed_slides(out, "tile") == ["uni-unip1"]
    (again,) = rerun(out, "tile", ["uni-unip1"], SERIAL)
    assert (again.state, again.tiles) == ("done", 24)
    assert not verify(out).findings


def test_verify_finds_and_repair_mends(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pack(inputs_of(data), out)
    (out / "labels/rad-radp1.csv").write_text("x,y,label\n0,0,tumour\n")
    shard = next((out / "tiles/rad-radp2.zarr/tiles").glob("c.*"))
    shard.write_bytes(bytes(100) + shard.read_bytes()[100:])
    image(data / "uni/normal/unip1_1.png", 99)
    (out / "images/uni-unip2.csv").unlink()
    found = {finding.path: finding.said for finding in verify(out).findings}
    assert "not those of its images" in found["tiles/rad-radp1.zarr"]
    assert "1 of its images have changed, such as unip1_1.png" in found["tiles/uni-unip1.zarr"]
    assert "list images/uni-unip2.csv is missing" in found["tiles/uni-unip2.zarr"]
    assert any(path.startswith("tiles/rad-radp2.zarr/tiles/") for path in found)
    repair(out, verify(out).findings, SERIAL)
    assert {finding.path for finding in verify(out).findings} == {"tiles/uni-unip1.zarr", "tiles/uni-unip2.zarr"}


def test_a_damaged_store_stays_where_an_image_is_gone(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pack(inputs_of(data), out)
    shutil.rmtree(data / "rad/tumour")
    shard = next((out / "tiles/rad-radp1.zarr/tiles").glob("c.*"))
    shard.write_bytes(bytes(100) + shard.read_bytes()[100:])
    repair(out, verify(out).findings, SERIAL)
    assert shard.is_file(), "it could not be made again"
    assert any("rad-radp1" in finding.path for finding in verify(out).findings)


def test_a_pixel_size_is_known_or_nominal_never_guessed(data: Path, tmp_path: Path) -> None:
    inputs = inputs_of(data)
    with pytest.raises(UsageError, match=r"no pixel size of 12 images.*--nominal-mpp"):
        find_groups(inputs, tmp_path / "run", PackConfig())
    pack(inputs, tmp_path / "run", PackConfig(tile_px=32, nominal_mpp=0.4))
    slide = TileStore.open(tmp_path / "run/tiles/rad-radp1.zarr").attributes["slide"]
    assert (slide["mpp"], slide["mpp_source"]) == ([0.4, 0.4], "nominal (option --nominal-mpp)")
    rows = [(path, "0.25" if "normal" in str(path) else "0.5") for path in sorted(data.rglob("*.png"))]
    manifest = tmp_path / "m.csv"
    manifest.write_text("file,group,mpp\n" + "".join(f"{path},{path.name[:5]},{mpp}\n" for path, mpp in rows))
    found, _ = pack(ImageInputs(manifest=manifest), tmp_path / "mixed", PackConfig(tile_px=32))
    assert {outcome.code for outcome in found} == {"mpp_conflict"}
    config = PackConfig(tile_px=32, tile_mpp=0.5)
    found, _ = pack(ImageInputs(manifest=manifest), tmp_path / "one", config)
    assert [(outcome.state, outcome.tiles) for outcome in found] == [("done", 14), ("done", 7)] * 2
    assert {outcome.mpp_source for outcome in found} == {"manifest"}


def test_memory_is_bounded(tmp_path: Path) -> None:
    """40 images of 1,300 x 1,300 pixels are 200 MB of tiles; a few of them are in memory at a time."""
    pixels = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"p{number}.jpg").write_bytes(jpeg + bytes([number]))  # other bytes, the same pixels
    config = PackConfig(mpp=0.5, codec="jpeg")
    groups, _ = find_groups(ImageInputs([tmp_path / "in"], group_pattern="(p)"), tmp_path / "run", config)
    tracemalloc.start()
    (outcome,) = pack_cohort(groups, tmp_path / "run", config, SERIAL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.tiles == 40 * 25
    assert peak < 60e6


def test_pack_train_embed_and_read_as_a_set(data: Path, tmp_path: Path) -> None:
    from wsi_lmc.embedding import EmbedConfig
    from wsi_lmc.training import TrainConfig

    out = tmp_path / "run"
    pack(inputs_of(data), out, PackConfig(tile_px=32, mpp=0.5))
    stores = find_stores([out])
    config = TrainConfig(architecture="vit-demo", steps=2, batch=8, device="cpu")
    source = [store for store in stores if store.name.startswith("rad")]
    train_cohort(source, out / "checkpoint", config, SerialExecutor(), ("new", lambda step: None))
    found = embed_cohort(EmbedInputs(stores), str(out / "checkpoint"), out, EmbedConfig(device="cpu"), SERIAL)
    assert [outcome.state for outcome in found] == ["done"] * 4
    assert not verify(out).findings
    (one,) = load_feature_sets([f"LMC={out}"], Reading())
    assert (one.name, one.classes, one.sites, one.tiles) == ("LMC", ("normal", "tumour"), ("rad", "uni"), 72)
    assert {slide.patient for slide in one.slides} == {"radp1", "radp2", "unip1", "unip2"}
    for slide in one.slides:
        half = len(slide.labels) // 2
        assert slide.labels.tolist() == [0] * half + [1] * half


def test_the_command(data: Path, tmp_path: Path, program: Commands) -> None:
    flags = ["--labels-from", "folder", "--nominal-mpp", "0.5", "--tile-px", "32", "-o", str(tmp_path / "run")]
    inside = program("pack", "rad", *flags[:-1], "rad/run", cwd=data)
    assert (inside.returncode, "lies inside the input" in inside.stderr) == (2, True)
    (data / "rad/tumour/radp2_1.png").write_bytes(b"nothing")
    shutil.copy(data / "rad/tumour/radp1_1.png", data / "rad/tumour/copy.png")
    (data / "settings.yaml").write_text("pack:\n  crop: centre\n")
    found = program("pack", "rad", *flags, "--config", "settings.yaml", "--workers", "0", "-q", cwd=data)
    assert found.returncode == 1, found.stderr
    assert found.stderr.splitlines() == [
        "note: 1 images are there twice, byte by byte: each is kept once",
        "note: no image has a group: each is a group of its own, and splits and intervals go by group",
        "note: 6 of 6 images have no site",
        *(line for line in found.stderr.splitlines() if "not_an_image" in line),
    ]
    assert "not_an_image: radp2_1.png cannot be read" in found.stderr
    assert found.stdout.splitlines()[:2] == [
        "6 images of no site in 6 groups",
        f"5 done, 1 failed; 5 tiles; see {tmp_path}/run/slides.csv",
    ]
    assert {entry.label for entry in list_slides(tmp_path / "run")} == {"normal", "tumour"}


@pytest.mark.real
def test_glas_by_its_manifest(test_data: Path, tmp_path: Path) -> None:
    folder, manifest = test_data / "colon_crosssite/glas_uk", test_data / "manifest.csv"
    inputs = ImageInputs([folder], manifest, {"site": "domain"})
    found, notes = pack(inputs, tmp_path / "run", PackConfig(nominal_mpp=0.62))
    assert notes == []
    with manifest.open() as file:
        rows = [
            row for row in csv.DictReader(file) if row["file"].startswith("colon_crosssite/glas_uk/") and row["group"]
        ]
    counts: dict[str, int] = {}
    for row in rows:
        tiles = (int(row["width"]) // 256) * (int(row["height"]) // 256)
        counts[row["group"]] = counts.get(row["group"], 0) + tiles
    assert {outcome.slide_id: outcome.tiles for outcome in found} == {f"glas_uk-{k}": v for k, v in counts.items()}
    labels = {label for path in (tmp_path / "run/labels").glob("*") for label in read_labels(path).values()}
    assert labels == {"benign", "malignant"}


@pytest.mark.real
def test_lc25000_fitted(test_data: Path, tmp_path: Path) -> None:
    with (test_data / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["domain"] == "lc25000_us"][:60]
    manifest = tmp_path / "m.csv"
    lines = [f"{test_data / row['file']},{row['label']},{row['group']}" for row in rows]
    manifest.write_text("\n".join(["file,label,group", *lines]))
    config = PackConfig(tile_px=112, nominal_mpp=0.5, fit=True)
    found, _ = pack(ImageInputs(manifest=manifest, site="lc"), tmp_path / "run", config)
    assert sum(outcome.tiles for outcome in found) == 60
    assert len(found) == len({row["group"] for row in rows})
    store = TileStore.open(tmp_path / f"run/tiles/lc-{rows[0]['group']}.zarr")
    assert store.mpp.mean == pytest.approx(1.0)
    whole = read_image(test_data / rows[0]["file"]).astype(float)
    halved = whole.reshape(112, 2, 112, 2, 3).mean((1, 3))
    assert np.abs(store.read(np.array([0]))[0] - halved).max() <= 0.5, "means over area, rounded"
    assert {entry.label for entry in list_slides(tmp_path / "run")} == {"malignant", "benign"} & {
        row["label"] for row in rows
    }
