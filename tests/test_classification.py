"""wsi-lmc classify from feature stores to files: planted signals carry over, and nothing of a target is learnt."""

import csv
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wsi_lmc.classification import Hearers, Selection, Task, apply, classify
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.commands.classify import command
from wsi_lmc.errors import UsageError
from wsi_lmc.featurestore import write_features
from wsi_lmc.heads import scoring
from wsi_lmc.heads.config import BagConfig, HeadConfig
from wsi_lmc.heads.model import CARD, WEIGHTS, HeadKind
from wsi_lmc.labels import write_labels
from wsi_lmc.runfolder import add_slides, prepare_run
from wsi_lmc.tilestore import TileRows, Validity

SILENT = Hearers(lambda line: None, lambda slide: None)
CONFIG = HeadConfig(seeds=2, device="cpu", bags=BagConfig(hidden=16, epochs=12, patience=6, lr=5e-3))
PER_SITE, TILES = 8, 15


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "RESAMPLES", 50)  # types are checked in tests, which makes a thousand slow


def _write_run(folder: Path, site: str, shift: float = 0.0, sha256: str = "a" * 64, labelled: bool = True) -> None:
    """Slides of one site; in every second one, "ill", a tile stands out along axis 0, which its label says, too."""
    prepare_run(folder)
    entries = []
    for number in range(PER_SITE):
        rng = np.random.default_rng((number, len(site)))
        features = (rng.normal(0, 1, (TILES, 5)) + shift).astype(np.float16)
        origins = np.stack([np.arange(TILES) % 5 * 100, np.arange(TILES) // 5 * 100], 1).astype(np.int32)
        ill = number % 2 == 1
        marked = int(rng.integers(TILES - 1))
        features[marked, 0] += 6 * ill
        valid = np.zeros(TILES, np.uint8)
        valid[-1] = Validity.UNREADABLE
        slide_id = f"{site}-{number:02d}"
        about = {"id": slide_id, "mpp": [0.5, 0.5], "width": 560, "height": 340, "bounds": [10, 20, 550, 320]}
        tile = {"px": 100, "mpp": 0.5, "footprint": [100.0, 100.0], "effective_mpp": [0.5, 0.5]}
        encoder = {"name": "planted", "sha256": sha256, "architecture": "none", "normalised": "none"}
        rows = TileRows(origins, np.ones(TILES, np.float32), valid)
        store = folder / "features" / f"{slide_id}.zarr"
        store.parent.mkdir(exist_ok=True)
        write_features(store, features, rows, {"slide": about, "tile": tile, "encoder": encoder})
        if labelled:
            names = ["tumour" if ill and row == marked else "normal" for row in range(TILES)]
            write_labels(folder, slide_id, origins, names)
        label = ("well", "ill")[ill] if labelled else ""
        entries.append(SlideEntry(folder / f"{slide_id}.svs", slide_id, patient=f"p{slide_id}", site=site, label=label))
    add_slides(folder, entries)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    _write_run(folder / "north", "north")
    _write_run(folder / "south", "south", shift=0.3)
    return str(folder / "north"), str(folder / "south")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _model_bytes(out: Path) -> tuple[bytes, bytes]:
    return (out / "model" / WEIGHTS).read_bytes(), (out / "model" / CARD).read_bytes()


def _change_labels(run: str, change: Callable[[str], str], entries: Callable[[SlideEntry], SlideEntry]) -> None:
    from wsi_lmc.runfolder import list_slides

    for path in (Path(run) / "labels").iterdir():
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *map(change, lines[1:])]) + "\n")
    add_slides(Path(run), [entries(entry) for entry in list_slides(Path(run))])


def test_slides_from_one_site_to_another(runs: tuple[str, str], tmp_path: Path) -> None:
    selection = Selection(tuple(f"planted={run}" for run in runs), classes=("well", "ill"))
    sites = classify(selection, Task("north", "abmil", replace(CONFIG, seeds=1)), tmp_path, SILENT)
    assert [(site.site, site.split, site.patients) for site in sites] == [
        ("north", "source, out of fold", PER_SITE),
        ("south", "target", PER_SITE),
    ]
    area = next(score for score in sites[1].scores if score.metric == "AUROC")
    assert area.value > 0.9
    rows = _rows(tmp_path / "predictions.csv")
    assert len(rows) == 2 * PER_SITE
    assert {(row["site"], row["split"]) for row in rows} == {("north", "source, out of fold"), ("south", "target")}
    assert {row["tiles"] for row in rows} == {str(TILES - 1)}, "unreadable tiles are left out"
    found = json.loads((tmp_path / "attention" / "south-01.geojson").read_text())["features"]
    assert len(found) == TILES - 1
    best = max(found, key=lambda feature: feature["properties"]["measurements"]["attention"])
    labels = {(int(row["x"]), int(row["y"])): row["label"] for row in _rows(Path(runs[1]) / "labels" / "south-01.csv")}
    x, y = best["geometry"]["coordinates"][0][0]
    assert labels[int(x) + 10, int(y) + 20] == "tumour", "attention finds the tile that decides"
    assert (tmp_path / "attention" / "south-01.png").read_bytes()[:4] == b"\x89PNG"


def test_labels_of_a_target_do_not_change_the_model(runs: tuple[str, str], tmp_path: Path) -> None:
    other = tmp_path / "south"
    _write_run(other, "south", shift=0.3)
    flipped = {"well": "ill", "ill": "well"}
    _change_labels(
        str(other),
        lambda line: line.replace("tumour", "x").replace("normal", "tumour").replace("x", "normal"),
        lambda entry: replace(entry, label=flipped[entry.label]),
    )
    pairs: tuple[tuple[HeadKind, tuple[str, ...]], ...] = (
        ("logistic", ("normal", "tumour")),
        ("mean", ("well", "ill")),
    )
    for head, classes in pairs:
        outs = [tmp_path / f"{head}-{name}" for name in ("as-it-is", "flipped")]
        scores = [
            classify(
                Selection((f"planted={runs[0]}", f"planted={target}"), classes=classes),
                Task("north", head, CONFIG, maps=False),
                out,
                SILENT,
            )
            for out, target in zip(outs, (runs[1], other), strict=True)
        ]
        assert _model_bytes(outs[0]) == _model_bytes(outs[1])
        assert scores[0][0] == scores[1][0], "nor the source's scores"
        assert scores[0][1] != scores[1][1]
        assert [row["probability " + classes[1]] for row in _rows(outs[0] / "predictions.csv")] == [
            row["probability " + classes[1]] for row in _rows(outs[1] / "predictions.csv")
        ]


def _call(capsys: pytest.CaptureFixture[str], **given: object) -> str:
    """Run the command in this process, and give what it prints."""
    defaults = {name: each.default for name, each in inspect.signature(command).parameters.items()}
    command(**{**defaults, **given})
    return capsys.readouterr().out


def test_tiles_by_command_and_a_model_applied(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    _call(capsys, sets=list(runs), output=out, source="north", classes="normal,tumour", seeds=2, maps=False, quiet=True)
    document = json.loads((out / "scores.json").read_text())
    table = _rows(out / "predictions" / "south-01.csv")
    assert list(table[0]) == ["x", "y", "truth", "probability normal", "probability tumour"]
    best = max(table, key=lambda row: float(row["probability tumour"]))
    assert best["truth"] == "tumour"
    assert (document["schema"], document["schema_version"]) == ("wsi-lmc/classification", 1)
    assert document["encoder"]["sha256"] == "a" * 64
    words = ["classify", runs[1], "--apply", str(out / "model"), "-o", str(again), "--no-maps"]
    used = subprocess.run([sys.executable, "-m", "wsi_lmc", *words], capture_output=True, text=True, check=False)
    assert used.returncode == 0, used.stderr
    assert f"south (target; {PER_SITE * (TILES - 1)} tiles, {PER_SITE} patients)" in used.stdout
    assert f"predicting {PER_SITE} slides with logistic of north" in used.stderr
    assert (again / "predictions" / "south-01.csv").read_bytes() == (out / "predictions" / "south-01.csv").read_bytes()
    values = [
        [(each["metric"], each["value"], each["seed_mean"]) for each in site["scores"]]
        for site in (*json.loads((again / "scores.json").read_text())["sites"], document["sites"][1])
    ]
    assert values[0] == values[1]
    assert not (again / "attention").exists()


def test_sites_without_labels_are_predicted(runs: tuple[str, str], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    _write_run(bare, "south", labelled=False)
    selection = Selection((f"planted={runs[0]}", f"planted={bare}"), classes=("well", "ill"))
    sites = classify(selection, Task("north", "mean", CONFIG, maps=False), tmp_path / "out", SILENT)
    assert [site.site for site in sites] == ["north"]
    rows = [row for row in _rows(tmp_path / "out" / "predictions.csv") if row["site"] == "south"]
    assert len(rows) == PER_SITE
    assert {row["truth"] for row in rows} == {""}
    assert all(0 <= float(row["probability ill"]) <= 1 for row in rows)


def test_a_patient_of_the_source_is_not_scored_at_the_target(runs: tuple[str, str], tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    lines = ["slide,slide_id,site,patient,label,grade"]
    for site in ("north", "south"):
        for number in range(PER_SITE):
            patient = f"pnorth-{number:02d}" if number < 4 else f"p{site}-{number:02d}"
            grade = ("low", "high")[number % 2]
            lines.append(f"{site}-{number:02d}.svs,{site}-{number:02d},{site},{patient},,{grade}")
    manifest.write_text("\n".join(lines) + "\n")
    selection = Selection(tuple(f"planted={run}" for run in runs), manifest, "grade", ("low", "high"))
    sites = classify(selection, Task("north", "mean", CONFIG, maps=False), tmp_path / "out", SILENT)
    assert [(site.site, site.slides) for site in sites] == [("north", PER_SITE), ("south", PER_SITE - 4)]
    rows = _rows(tmp_path / "out" / "predictions.csv")
    assert sum(row["split"] == "target, patient of the source" for row in rows) == 4
    assert {row["truth"] for row in rows} == {"low", "high"}
    with pytest.raises(UsageError, match="a column stage"):
        classify(replace(selection, label="stage"), Task("north", "mean", CONFIG), tmp_path / "out", SILENT)
    with pytest.raises(UsageError, match="without --manifest"):
        classify(replace(selection, manifest=None), Task("north", "mean", CONFIG), tmp_path / "out", SILENT)


def test_what_does_not_fit_is_refused(runs: tuple[str, str], tmp_path: Path) -> None:
    task, out = Task("north", "logistic", CONFIG, maps=False), tmp_path / "out"
    with pytest.raises(UsageError, match="no slide of site 'east'; sites: north, south"):
        classify(Selection(runs), replace(task, source="east"), out, SILENT)
    with pytest.raises(UsageError, match="2 names: a, b"):
        classify(Selection((f"a={runs[0]}", f"b={runs[1]}")), task, out, SILENT)
    other = tmp_path / "other"
    _write_run(other, "west", sha256="b" * 64)
    with pytest.raises(UsageError, match="sha256 of the encoder is"):
        classify(Selection((*runs, str(other))), task, out, SILENT)
    with pytest.raises(UsageError, match="two or more"):
        classify(Selection(runs, classes=("normal",)), task, out, SILENT)
    classify(Selection(runs), task, out, SILENT)
    with pytest.raises(UsageError, match=r"planted \(bbbb"):
        apply(Selection((str(other),)), out / "model", tmp_path / "a", ("cpu", False), SILENT)
    with pytest.raises(UsageError, match="as in training"):
        apply(Selection(runs, classes=("tumour", "normal")), out / "model", tmp_path / "a", ("cpu", False), SILENT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"head": "logistic"}, "no --source"),
        ({"source": "north", "level": "tile", "head": "abmil"}, "logistic or knn or mlp"),
        ({"source": "north", "apply_model": Path("x")}, "The model has its own"),
        ({"source": "north", "seeds": 0}, "seeds 0"),
    ],
)
def test_flags_that_do_not_go_together(
    runs: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: dict[str, object],
    said: str,
) -> None:
    with pytest.raises(UsageError, match=said):
        _call(capsys, sets=list(runs), output=tmp_path / "o", **arguments)
