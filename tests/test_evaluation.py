"""Simple scores against scikit-learn, baselines, and files as promised: written, read back, drawn."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics

from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.evaluation import (
    METRICS,
    EvaluateConfig,
    Evaluation,
    FeatureSet,
    LeftOut,
    baseline_set,
    colour_features,
    evaluate,
    left_out_text,
    plot_training,
    read_evaluation,
    report_text,
    texture_features,
    write_evaluation,
)
from wsi_lmc.evaluation.embedding import project
from wsi_lmc.evaluation.pictures import plot_curves
from wsi_lmc.evaluation.scores import auroc, average_precision, balanced_accuracy
from wsi_lmc.evaluation.writing import to_document

from tests.planted import Planted, planted_set  # isort: skip

CONFIG = EvaluateConfig(k=15, resamples=50, distance_resamples=5, transport_tiles=30)


ROOT = Path(__file__).resolve().parents[1]


def test_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 200)
    scores = np.round(np.clip(truth * 0.3 + rng.random(200) * 0.7, 0, 1), 1)  # with ties
    assert auroc(truth, scores) == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert average_precision(truth, scores) == pytest.approx(metrics.average_precision_score(truth, scores))
    assert balanced_accuracy(truth, scores) == pytest.approx(metrics.balanced_accuracy_score(truth, scores >= 0.5))
    assert np.isnan(auroc(np.ones(3, np.int64), np.zeros(3)))


def test_colour_features_are_mean_and_deviation() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    found = colour_features(tiles)
    np.testing.assert_allclose(found[:, :3], tiles.reshape(3, 35, 3).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 3:], tiles.reshape(3, 35, 3).std(1), rtol=1e-4)


def test_texture_tells_patterns_and_not_brightness() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :48]
    waves = 128 + 60 * np.sin(columns / 2)
    noise = 128 + 40 * rng.standard_normal((60, 48))
    grey = [waves, 0.5 * waves + 90, noise, 128 + 60 * np.sin(rows / 2)]
    tiles = np.stack([np.repeat(np.clip(one, 0, 255)[..., None], 3, axis=2) for one in grey]).astype(np.uint8)
    found = texture_features(tiles)
    assert found.shape == (4, 32)
    assert np.isfinite(texture_features(np.full((1, 40, 40, 3), 200, np.uint8))).all(), "a tile of one colour"
    dimmer, other = np.abs(found[1] - found[0]).max(), np.abs(found[2] - found[0]).max()
    assert dimmer < 0.1 * other
    assert texture_features(tiles[:0]).shape == (0, 32)


def test_baselines_need_the_tiles() -> None:
    with pytest.raises(UsageError, match="no tiles of slide north-0"):
        baseline_set(planted_set("set", Planted()), "colour")


@pytest.fixture(scope="module")
def sets() -> list[FeatureSet]:
    """Two encoders, of which the second shows the site less."""
    return [planted_set("first", Planted(site=3, kind=1)), planted_set("second", Planted(site=1, kind=2))]


@pytest.fixture(scope="module")
def evaluation(sets: list[FeatureSet]) -> Evaluation:
    """What is measured of them."""
    return evaluate(sets, CONFIG)


def test_files_say_what_was_measured(sets: list[FeatureSet], evaluation: Evaluation, tmp_path: Path) -> None:
    files = write_evaluation(evaluation, sets, tmp_path)
    written = {path.name for path in tmp_path.iterdir()} - {".tmp"}
    assert written == {path.name for path in files} | {"planes.json"}
    assert {file.name for file in files} == {
        "evaluation.json", "evaluation.csv", "metrics.png", "embedding.png", "roc.png"
    }  # fmt: skip
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert (document["schema"], document["schema_version"]) == ("wsi-lmc/evaluation", 3)
    assert document["metrics"]["w2"]["reading"] == METRICS["w2"].reading
    assert "secret" not in (tmp_path / "evaluation.json").read_text() + (tmp_path / "evaluation.csv").read_text()
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(encoder.measures) for encoder in evaluation.encoders)
    for row, measure in zip(rows, evaluation.encoders[0].measures, strict=False):
        assert (row["encoder"], row["metric"]) == ("first", measure.metric)
        assert float(row["value"]) == pytest.approx(measure.value, rel=1e-4)
        assert (row["low"] == "") == (measure.low is None)
    for name in ("metrics.png", "embedding.png", "roc.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert read_evaluation(tmp_path) == evaluation
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation


def test_the_title_of_a_picture_with_one_panel_fits_into_it(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr("wsi_lmc.evaluation.pictures.save", lambda figure, path: kept.append(figure))
    one = {(curve.source, curve.target) for curve in evaluation.encoders[0].curves[:1]}
    encoders = tuple(
        replace(encoder, curves=tuple(curve for curve in encoder.curves if (curve.source, curve.target) in one))
        for encoder in evaluation.encoders
    )
    plot_curves(replace(evaluation, encoders=encoders), tmp_path / "roc.png")
    (figure,) = kept
    FigureCanvasAgg(figure).draw()
    (title,) = (text for text in figure.texts if "AUROC" in text.get_text())
    shown = title.get_window_extent()
    assert figure.bbox.x0 <= shown.x0 < shown.x1 <= figure.bbox.x1


def test_the_same_seed_gives_the_same_numbers(sets: list[FeatureSet], evaluation: Evaluation) -> None:
    assert evaluate(sets, CONFIG) == evaluation
    assert evaluate(sets, replace(CONFIG, seed=1)) != evaluation


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("encoders"),
        lambda d: d["encoders"][0].pop("tiles"),
        lambda d: d["encoders"][0]["measures"][0].update(metric="fame"),
        lambda d: d["encoders"][0]["measures"][0].update(value=None),
        lambda d: d["encoders"][0]["measures"][0].update(value="much"),
        lambda d: d["encoders"][0].update(curves=[{"source": "a"}]),
        lambda d: d.update(schema_version=2),
        lambda d: d.update(encoders=7),
    ],
)
def test_a_damaged_file_is_refused(spoil: Callable[[dict], object], evaluation: Evaluation, tmp_path: Path) -> None:
    document = json.loads(json.dumps(to_document(evaluation)))
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(document))
    assert read_evaluation(file) == evaluation
    spoil(document)
    file.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="wsi-lmc evaluate"):
        read_evaluation(file)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "\x00"])
def test_what_is_no_evaluation_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(StoreError):
        read_evaluation(tmp_path)
    with pytest.raises(StoreError, match="cannot read"):
        read_evaluation(tmp_path / "nowhere.json")


def test_the_table_names_value_interval_floor_and_chance(evaluation: Evaluation) -> None:
    lines = report_text(evaluation).splitlines()
    assert lines[0].split() == ["first", "second"]
    w2 = evaluation.encoders[0].find("w2_relative")
    assert w2 is not None
    assert w2.floor is not None
    line = next(line for line in lines if line.startswith("Wasserstein distance, scale-free"))
    assert f"{w2.value:.2f} [{w2.low:.2f}, {w2.high:.2f}] floor {w2.floor:.2f}" in line
    assert line.endswith("lower is better")
    assert next(line for line in lines if line.startswith("site told from")).endswith("chance 0.50")
    assert sum("north to south" in line for line in lines) == 1
    assert left_out_text(evaluation) == ""
    lacking = replace(evaluation.encoders[0], left_out=(*[LeftOut("kbet", "too few")] * 2, LeftOut("ilisi", "too few")))
    assert left_out_text(replace(evaluation, encoders=(lacking,))) == "left out: kbet, ilisi: too few"


def test_without_umap_principal_components_are_drawn_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_lmc.evaluation.embedding.importlib.util.find_spec", lambda name: None)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100, 1)) * np.asarray([[1.0, 1.0, 0.2]]) + 0.01 * rng.normal(size=(100, 3))
    plane, way = project(points, 0)
    assert way == "two principal components (umap-learn is not installed)"
    assert plane[:, 0].std() > 10 * plane[:, 1].std()
    assert project(points[:, :1], 0)[0].shape == (100, 2)


_APART = """
import numpy as np
from wsi_lmc.evaluation.embedding import project
rng = np.random.default_rng(0)
points = np.concatenate([rng.normal(size=(60, 8)), 20 + rng.normal(size=(60, 8))])
plane, way = project(points, 0)
spread = max(part.std(axis=0).max() for part in (plane[:60], plane[60:]))
print(way, np.linalg.norm(plane[:60].mean(axis=0) - plane[60:].mean(axis=0)) > 3 * spread)
"""


@pytest.mark.slow
def test_umap_puts_clusters_apart() -> None:
    """In a process of its own, for what is installed apart from all other tests."""
    umap = Path(sys.prefix) / "umap"
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""), str(umap))))
    done = subprocess.run([sys.executable, "-c", _APART], env=os.environ | {"PYTHONPATH": path}, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["UMAP", "True"]


def test_a_training_is_drawn(tmp_path: Path) -> None:
    rows = [{"step": step, "invariance": 60 / step, "redundancy": 900.0} for step in (1, 10, 20)]
    plot_training([*rows, {"step": 20, "held_out_invariance": 4.0, "held_out_redundancy": 800.0}], tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 5000
