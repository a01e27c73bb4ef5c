"""The command itself, and every other command over what it wrote."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.foreign import TRIDENT, about_trident, clam_slide, stored, trident_slide, write
from tests.forked import Commands
from tests.manual import DOCS, check_call, commands
from wsi_lmc.heads.model import load_model

SLIDES = 12


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TRIDENT's folder of slides of two sites, and their manifest; tumour is told by a feature, a site by another."""
    folder = tmp_path_factory.mktemp("foreign")
    rows = ["slide,mpp,patient,site,label"]
    for number in range(SLIDES):
        site, label = ("north", "south")[number % 2], ("normal", "tumour")[number // 2 % 2]
        name = f"S{number:02}"
        features, coords = trident_slide(folder / "job", name, 24, seed=number)
        path = folder / "job" / TRIDENT / "features_uni_v1" / f"{name}.h5"
        features[:, 0] += 4 * (label == "tumour")
        features[:, 1] += 4 * (site == "south")
        write(path, {"coords": about_trident()}, features=features, coords=coords)
        rows.append(f"{name}.svs,0.2525,p{number},{site},{label}")
        assert len(coords) == 24
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def imported(job: Path, program: Commands) -> Path:
    """The run folder of all these slides."""
    result = program(
        "import", "--from", "trident", job / "job", "--manifest", job / "manifest.csv", "-o", job / "run",
        "--workers", 0, "--quiet",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"{SLIDES} done; {SLIDES * 24} tiles; see" in result.stdout
    assert f"next: wsi-lmc evaluate uni_v1={job / 'run'}" in result.stdout
    return job / "run"


def test_commands_of_the_manual_run(job: Path, program: Commands, tmp_path: Path) -> None:
    """Those of import.md, in a folder with what they name; its "evaluate" is what the next test runs."""
    (tmp_path / "trident_processed").symlink_to(job / "job")
    (tmp_path / "slides.csv").symlink_to(job / "manifest.csv")
    for number in range(2):
        clam_slide(tmp_path / "clam_features", f"S{number:02}", seed=number)
    (tmp_path / "clam_results").mkdir()
    (tmp_path / "clam_features" / "patches").rename(tmp_path / "clam_results" / "patches")
    lines = commands(DOCS / "import.md")
    check_call(shlex.split(lines.pop())[1:])
    for line in lines:
        result = program(*shlex.split(line)[1:], cwd=tmp_path)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
    assert len(list((tmp_path / "runs").glob("*/features/*.zarr"))) == SLIDES + 2


def test_evaluate(imported: Path, program: Commands, tmp_path: Path) -> None:
    result = program("evaluate", imported, "-o", tmp_path / "e", "--quiet")
    assert result.returncode == 0, result.stderr
    (encoder,) = json.loads((tmp_path / "e" / "evaluation.json").read_text())["encoders"]
    assert (encoder["name"], encoder["slides"], encoder["tiles"], encoder["dimension"]) == ("uni_v1", SLIDES, 288, 5)
    values = {each["metric"]: each["value"] for each in encoder["measures"]}
    assert values["site_balanced_accuracy"] > 0.9, "the site is in the features, as it was put there"


def test_export(imported: Path, program: Commands, tmp_path: Path) -> None:
    for to in ("trident", "clam"):
        result = program("export", imported, "--to", to, "-o", tmp_path / to)
        assert result.returncode == 0, result.stderr
    path = tmp_path / "trident" / TRIDENT / "features_uni_v1" / "S03.h5"
    first = imported.parent / "job" / path.relative_to(tmp_path / "trident")
    for name in ("features", "coords"):
        np.testing.assert_array_equal(stored(path, name)[0], stored(first, name)[0])
    assert stored(path, "coords")[1]["mpp"] == pytest.approx(0.505)


@pytest.fixture(scope="module")
def classified(imported: Path, program: Commands) -> Path:
    """Results of a classifier of slides on these features."""
    out = imported.parent / "classified"
    words = ("classify", "-o", out, imported, "--source", "north", "--level", "slide", "--seeds", 1, "--quiet")
    result = program(*words)
    assert result.returncode == 0, result.stderr
    return out


def test_classify(classified: Path) -> None:
    card = load_model(classified / "model").card
    assert (card.encoder["name"], card.encoder["sha256"], card.tile_mpp) == ("uni_v1", None, pytest.approx(0.505))
    assert len(list((classified / "attention").glob("*.geojson"))) == SLIDES


def test_report_status_and_verify(imported: Path, classified: Path, program: Commands, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = program("report", imported, classified, "-o", page)
    assert result.returncode == 0, result.stderr
    text = page.read_text()
    assert "uni_v1" in text
    assert "None" not in text
    assert str(imported) not in text
    assert f"embed: {SLIDES} of {SLIDES}, {SLIDES} done" in program("status", imported).stdout
    checked = program("verify", imported, "--quiet")
    assert (checked.returncode, checked.stdout) == (0, f"{SLIDES} stores: all is well\n")


def test_a_model_is_for_features_of_its_encoder(
    imported: Path, classified: Path, program: Commands, tmp_path: Path
) -> None:
    clam_slide(tmp_path / "clam", "X")
    words = ("import", "--from", "clam", tmp_path / "clam", "--mpp", 0.25, "--workers", 0, "--quiet")
    assert program(*words, "--encoder", "uni_v1", "-o", tmp_path / "same").returncode == 0
    assert program(*words, "--encoder", "conch", "-o", tmp_path / "another").returncode == 0
    applied = ("classify", "--apply", classified / "model", "--no-maps")
    assert program(*applied, tmp_path / "same", "-o", tmp_path / "a").returncode == 0
    refused = program(*applied, tmp_path / "another", "-o", tmp_path / "b")
    assert refused.returncode == 2
    assert "conch" in refused.stderr
    mixed = program("evaluate", f"U={imported}", f"U={tmp_path / 'another'}", "-o", tmp_path / "e")
    assert mixed.returncode == 2
    assert "name of the encoder is" in mixed.stderr


def test_one_magnification_may_be_several_pixel_sizes(program: Commands, tmp_path: Path) -> None:
    for name in ("S1", "S2"):
        trident_slide(tmp_path / "job", name)
    words = ("import", "--from", "trident", tmp_path / "job", "-o", tmp_path / "run", "--quiet", "--workers", 0)
    (tmp_path / "rows.csv").write_text("slide,mpp\nS1.svs,0.2265\nS2.svs,0.265\n")
    result = program(*words, "--manifest", tmp_path / "rows.csv")
    assert result.returncode == 0, result.stderr
    assert "tiles of 0.453 to 0.53 um/px" in result.stderr
    refused = program("export", tmp_path / "run", "--to", "trident", "-o", tmp_path / "x")
    assert (refused.returncode, "tile mpp is" in refused.stderr) == (2, True)
    (tmp_path / "rows.csv").write_text("slide,mpp\nS1.svs,0.2501\nS2.svs,0.2498\n")
    result = program(*words, "--manifest", tmp_path / "rows.csv", "--overwrite")
    assert (result.returncode, "um/px" in result.stderr) == (0, False)
    exported = program("export", tmp_path / "run", "--to", "trident", "-o", tmp_path / "x")
    assert exported.returncode == 0, "measured sizes differ in the last digits"


def test_what_fails_is_told_and_goes_on(program: Commands, tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "good", mpp=0.5)
    trident_slide(tmp_path / "job", "bad")
    words = ("import", "--from", "trident", tmp_path / "job", "-o", tmp_path / "run", "--quiet")
    result = program(*words, "--workers", 1)
    assert result.returncode == 1
    assert "bad: mpp_missing: the file states no pixel size" in result.stderr
    assert "1 done, 1 failed" in result.stdout
    again = program("retry-failed", tmp_path / "run", "--workers", 0, "--quiet")
    assert again.returncode == 2
    assert "features of bad were imported from trident" in again.stderr
    assert "Run the import command again" in again.stderr
    assert program(*words, "--workers", 0, "--mpp", 0.25).returncode == 0
    (chunk,) = (tmp_path / "run" / "features" / "bad.zarr" / "features").glob("c.*")
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    mending = program("verify", tmp_path / "run", "--repair", "--workers", 0, "--quiet")
    assert mending.returncode == 2
    assert "for damaged stores with --overwrite" in mending.stderr
    assert program(*words, "--workers", 0, "--mpp", 0.25, "--overwrite").returncode == 0
    assert program("verify", tmp_path / "run", "--quiet").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["job"], "--from"),
        (["job", "--from", "titan"], "titan"),
        (["none", "--from", "clam"], "no folder none"),
        (["job", "--from", "clam"], "neither h5_files nor pt_files"),
        (["job", "--from", "trident", "--patch-size", "256"], "--patch-size alone"),
        (["job", "--from", "trident", "--encoder", "x"], "not of x"),
        (["job", "--from", "trident", "--manifest", "none.csv"], "none.csv"),
        (["job", "--from", "trident", "-o", "job/run"], "lies inside the input"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, program: Commands, tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "S1")
    result = program("import", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "wsi-lmc-run").exists()
