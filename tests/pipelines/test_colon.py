"""The colon experiment and the hospitals' one on a few real images each."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import pytest

from pipelines import centres, colon, traces
from pipelines.common import main
from wsi_lmc.run import find_stores, open_stores
from wsi_lmc.runfolder import list_slides

SITES = ("glas_uk", "lc25000_us_224", "kather2016_de")
PER_SITE = {"glas_uk": 20, "lc25000_us": 40, "kather2016_de": 100}


@pytest.fixture(scope="module")
def data(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some images of each site, with their rows of the table."""
    folder = tmp_path_factory.mktemp("data")
    with (test_data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = [row for row in rows if row["file"].startswith(("camelyon17_centers/tiles256", "stain_schemes/S0"))][:20]
    for site, most in PER_SITE.items():
        own = [row for row in rows if row["domain"] == site and row["label"]]
        wanted += own[:: max(1, len(own) // most)][:most]
    for row in wanted:
        (folder / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(test_data / row["file"], folder / row["file"])
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(wanted)
    return folder


def _call(pipeline: str, configs: Path, data: Path, out: Path, *more: str) -> int:
    found = {"colon": colon.PIPELINE, "centres": centres.PIPELINE, "traces": traces.PIPELINE}[pipeline]
    config = configs / pipeline / "smoke.yaml"
    return main(found, ["--config", str(config), "--data", str(data), "-o", str(out), "--workers", "0", *more])


@pytest.fixture(scope="module")
def results(data: Path, configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the colon pipeline makes of them."""
    out = tmp_path_factory.mktemp("results")
    assert _call("colon", configs, data, out) == 0
    return out


@pytest.mark.real
def test_every_pair_of_three_hospitals(data: Path, configs: Path, results: Path) -> None:
    assert _call("colon", configs, data, results, "--check") == 0
    document = json.loads((results / "study" / "results.json").read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in document["rows"]}
    assert set(rows) == {"colour", "lmc", "blind"}
    assert len(rows["lmc"]["at"]) == 6
    sites = document["stated"]["sources"]["glas_uk"]["sites"]
    assert sites["kather2016_de"]["by class"] == {"benign": 10, "malignant": 18}
    (store,) = open_stores(find_stores([results / "sites" / "glas_uk"]))[:1]
    assert (store.tile_px, store.mpp.mean) == (112, pytest.approx(1.0, rel=0.01)), "half of the images' resolution"
    trained = json.loads(next(results.glob("study/glas_uk/encoders/lmc-0/provenance.json")).read_text())
    assert trained["augmentation"]["crop"] == 0.8
    groups = {entry.patient for entry in list_slides(results / "sites" / "glas_uk")}
    assert all(group.startswith("patient_") for group in groups)


@pytest.mark.real
def test_features_alone_are_made_and_scored_by_a_later_call(
    configs: Path, data: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(results, tmp_path / "out", ignore=shutil.ignore_patterns("features", "table*", "results*"))
    assert _call("colon", configs, data, tmp_path / "out", "--features-only") == 0
    made = sorted(str(path.relative_to(tmp_path / "out" / "study")) for path in tmp_path.rglob("*.npz"))
    assert made == [f"{site}/features/{row}-0.npz" for site in sorted(SITES) for row in ("colour", "lmc")]
    assert not list(tmp_path.rglob("results.json"))
    capsys.readouterr()
    assert _call("colon", configs, data, tmp_path / "out") == 0
    assert "seed 0" not in capsys.readouterr().out, "nothing was made again"
    again = (tmp_path / "out" / "study" / "results.json").read_text(encoding="utf-8")
    assert again == (results / "study" / "results.json").read_text(encoding="utf-8")


@pytest.mark.real
def test_what_a_site_is_told_by(configs: Path, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces"
    assert _call("traces", configs, results, out, "--check") == 0
    assert _call("traces", configs, results, out) == 0
    with (out / "traces.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 * 3 * 6, "changes, rows, pairs"
    told = {(line["tiles"], line["row"], line["pair"]): float(line["site told"]) for line in lines}
    pair = "glas_uk > lc25000_us_224"
    assert told["as they are", "colour", pair] > 0.8
    assert told["grey, same contrast and sharpness", "colour", pair] < 0.7, "no colour is left to tell them by"
    shown = cv2.imread(str(out / "changes.png"))
    assert shown is not None
    assert shown.shape == (3 * 112, 5 * 112, 3)


@pytest.mark.real
def test_sites_cannot_be_told_by_encoders_that_are_not_there(configs: Path, results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "sites", tmp_path / "sites")
    assert _call("traces", configs, tmp_path, tmp_path / "out", "--check") == 1
    assert _call("traces", configs, tmp_path, tmp_path / "out") == 2


@pytest.mark.real
def test_an_image_that_is_not_what_the_table_says_is_named(
    data: Path, configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    image = next((tmp_path / "data" / "colon_crosssite" / "lc25000_us_224").rglob("*.jpeg"))
    image.write_bytes(image.read_bytes() + b"0")
    assert _call("colon", configs, tmp_path / "data", tmp_path / "out", "--check") == 1
    assert image.name in capsys.readouterr().out
    assert _call("colon", configs, tmp_path / "data", tmp_path / "out", "--check", "--no-checksums") == 0


@pytest.mark.real
def test_hospitals_and_protocols(data: Path, configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("centres", configs, data, tmp_path) == 0
    said = capsys.readouterr().out
    assert "| hospitals |" in said
    assert "pair_top1" in said
    for name in ("hospitals", "protocols"):
        document = json.loads((tmp_path / name / "evaluation.json").read_text(encoding="utf-8"))
        assert [encoder["name"] for encoder in document["encoders"]] == ["colour", "texture", "untrained"]
    assert len(document["sites"]) == len(list((data / "stain_schemes").glob("*.jpg")))
    tables = (tmp_path / "protocols.csv").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("untrained,pair_top1,") for line in tables)
