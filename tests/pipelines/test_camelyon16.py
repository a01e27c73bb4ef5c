"""Camelyon16 from its layouts to a table: slides with outlines, and StainGAN's folders of patches."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.camelyon16 import PIPELINE
from pipelines.common import main
from wsi_lmc.annotations import camelyon16_site
from wsi_lmc.labels import labels_path, read_labels
from wsi_lmc.runfolder import list_slides
from wsi_lmc.synthetic import SlideSpec, draw
from wsi_lmc.tilestore import TileStore


def _call(config: Path, data: Path, out: Path, *more: str) -> int:
    return main(PIPELINE, ["--config", str(config), "--data", str(data), "-o", str(out), "--workers", "0", *more])


@pytest.fixture(scope="module")
def run(downloads: Path, configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("camelyon16")
    assert _call(configs / "camelyon16" / "smoke.yaml", downloads / "camelyon16", out) == 0
    return out


def test_from_slides_and_outlines_to_a_table(run: Path) -> None:
    study = run / "study"
    assert {"results.json", "scores.csv", "table.md", "roc.png"} <= {path.name for path in study.iterdir()}
    assert "Utrecht" in (study / "table.md").read_text(encoding="utf-8")
    assert json.loads((study / "results.json").read_text(encoding="utf-8"))


def test_tiles_have_the_label_of_their_pixels(run: Path) -> None:
    seen = set()
    for site in ("Radboud", "Utrecht"):
        for entry in list_slides(run / site):
            labels = read_labels(labels_path(run / site, entry.slide_id))
            store = TileStore.open(run / site / "tiles" / f"{entry.slide_id}.zarr")
            assert set(labels) == {(x, y) for x, y in store.origins.tolist()}
            classes = draw(SlideSpec(int(entry.slide_id[-3:]), 896, 1024, 0.25)).classes
            for (x, y), label in labels.items():
                share = (classes[y : y + 128, x : x + 128] == 1).mean()
                assert share > 0.45 if label == "tumor" else share < 0.05
                seen.add(label)
    assert seen == {"normal", "tumor"}


def test_sites_and_patients_stay_apart(run: Path) -> None:
    slides = {site: list_slides(run / site) for site in ("unlabelled", "Radboud", "Utrecht")}
    assert {entry.patient for entry in slides["unlabelled"]} == {entry.patient for entry in slides["Radboud"]}
    assert not {entry.patient for entry in slides["Radboud"]} & {entry.patient for entry in slides["Utrecht"]}
    for site in ("Radboud", "Utrecht"):
        assert {entry.site for entry in slides[site]} == {camelyon16_site(e.slide_id) for e in slides[site]} == {site}


def test_run_again_nothing_is_cut_again(
    run: Path, downloads: Path, configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.zarr/**/c.*")}
    assert before
    assert _call(configs / "camelyon16" / "smoke.yaml", downloads / "camelyon16", run, "--prepare-only") == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.zarr/**/c.*")} == before
    assert "48 tiles of 2 slides" in capsys.readouterr().out


def test_a_bad_slide_is_told_and_the_others_go_on(
    downloads: Path, configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(downloads / "camelyon16", tmp_path / "data")
    (tmp_path / "data" / "annotations" / "tumor_002.xml").write_text("<html/>", encoding="utf-8")
    (tmp_path / "data" / "images" / "tumor_072.tif").write_bytes(b"no slide")
    code = _call(configs / "camelyon16" / "smoke.yaml", tmp_path / "data", tmp_path / "out", "--prepare-only")
    said = capsys.readouterr().out
    assert code == 1
    assert "tumor_002.xml: the outermost element is 'html'" in said
    assert "tumor_072: not_a_slide" in said
    assert said.count("of 1 slides, 1 failed") == 2


def _patches(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(names))
    made = {name: rng.integers(60, 250, (64, 64, 3), np.uint8) for name in names}
    for name, pixels in made.items():
        cv2.imwrite(str(folder / name), pixels[..., ::-1])
    return made


def test_patches_of_staingan_are_taken_as_they_are(downloads: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    shutil.copy(downloads / "camelyon16" / "images" / "tumor_001.tif", data / "images")
    root = data / "staingan"
    named = _patches(root / "train" / "tumor", ["tumor_001_(3, 4).png", "Tumor_001_(9, 9).png", "tumor_0015.png"])
    for part, kind in (("train", "normal"), ("validation", "normal"), ("validation", "tumor"), ("test", "normal")):
        _patches(root / part / kind, ["(1, 2).png", "(5, 6).png"])
    _patches(root / "test" / "tumor", ["(1, 1).png"])
    (root / "test" / "tumor" / "Thumbs.db").write_bytes(b"x")
    config = tmp_path / "c.yaml"
    config.write_text("data:\n  unlabelled_per_slide: 3\ntile:\n  tile_px: 64\n  tile_mpp: 0.25\n", encoding="utf-8")
    assert _call(config, data, tmp_path / "out", "--prepare-only") == 0
    assert len(TileStore.open(tmp_path / "out" / "unlabelled" / "tiles" / "tumor_001.zarr")) == 3
    source = {entry.slide_id: entry for entry in list_slides(tmp_path / "out" / "Radboud")}
    patients = {slide_id: (entry.patient, entry.label, entry.site) for slide_id, entry in source.items()}
    assert patients == {
        "train-normal-train-001": ("train", "normal", "Radboud"),
        "train-tumor-train-001": ("train", "tumor", "Radboud"),
        "train-tumor-tumor_001-001": ("tumor_001", "tumor", "Radboud"),
        "validation-normal-validation-001": ("validation", "normal", "Radboud"),
        "validation-tumor-validation-001": ("validation", "tumor", "Radboud"),
    }
    store = TileStore.open(tmp_path / "out" / "Radboud" / "tiles" / "train-tumor-tumor_001-001.zarr")
    expected = [named["Tumor_001_(9, 9).png"], named["tumor_001_(3, 4).png"]]
    np.testing.assert_array_equal(store.read(np.arange(2)), expected)
    target = {entry.slide_id: entry.label for entry in list_slides(tmp_path / "out" / "Utrecht")}
    assert target == {"test-normal-test-001": "normal", "test-tumor-test-001": "tumor"}
    labels = read_labels(labels_path(tmp_path / "out" / "Utrecht", "test-normal-test-001"))
    assert list(labels.values()) == ["normal", "normal"]


def test_check_knows_the_layout(tmp_path: Path, configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"normal_{n:03d}" for n in range(1, 161) if n != 86] + [f"tumor_{n:03d}" for n in range(1, 112)]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / f"{name}.tif").write_bytes(b"x")
    paper = configs / "camelyon16" / "paper.yaml"
    assert _call(paper, tmp_path, tmp_path / "out", "--check") == 1
    assert "0 files staingan/train/normal/*" in capsys.readouterr().out
    for part in ("train", "validation", "test"):
        for kind in ("normal", "tumor"):
            _patches(tmp_path / "staingan" / part / kind, ["a.png"])
    assert _call(paper, tmp_path, tmp_path / "out", "--check") == 0
    (tmp_path / "checksums.md5").write_text(f"{'0' * 32}  images/normal_001.tif\n", encoding="utf-8")
    assert _call(paper, tmp_path, tmp_path / "out", "--check", "--no-checksums") == 0
    capsys.readouterr()
    assert _call(paper, tmp_path, tmp_path / "out", "--check") == 1
    assert "images/normal_001.tif has another MD5 sum" in capsys.readouterr().out
