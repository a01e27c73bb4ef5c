"""The demo on very few steps: every stage runs, the numbers and pictures it names are there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import wsi_lmc.demo.running
from wsi_lmc.demo import DemoConfig, Hearers, run_demo
from wsi_lmc.encoder import load_encoder
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import read_evaluation
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.grid import GridConfig
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tilestore import TileStore

CONFIG = DemoConfig(steps=2, batch=8, tile=TileConfig(grid=GridConfig(stride=192)))


@pytest.mark.slow
def test_the_synthetic_cohort_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsi_lmc.demo.running, "SLIDES_PER_SITE", {"north": 4, "south": 2})
    stages: list[str] = []
    steps: list[int] = []
    hearers = Hearers(stages.append, lambda report: steps.append(report.step))
    result = run_demo([], tmp_path, replace(CONFIG, tile=TileConfig()), SerialExecutor(), hearers)
    assert steps == [1, 2]
    assert [stage.split()[0] for stage in stages] == [
        *("drawing", "tiling", "training", "embedding", "the", "evaluating", "writing")
    ]
    assert {outcome.state for outcome in result.outcomes} == {"done"}
    assert all(file.is_file() for file in result.files)
    assert {file.name for file in result.files} >= {
        *("report.html", "evaluation.json", "metrics.png", "embedding.png", "training.png")
    }
    evaluation = read_evaluation(tmp_path / "evaluation")
    assert evaluation == result.evaluation
    others = ["colour", "untrained", "no normalisation", "Macenko at the other site", "Macenko on all tiles"]
    assert [encoder.name for encoder in evaluation.encoders] == [*others, "LMC"]
    assert all(encoder.find("transfer_auroc") for encoder in evaluation.encoders)
    assert {gain.other for gain in evaluation.gains} == set(others)
    _check_what_rivals_were_shown(tmp_path)
    normalised = json.loads((tmp_path / "macenko" / "checkpoint" / "provenance.json").read_text())
    assert normalised["augmentation"]["scale_low"] == normalised["augmentation"]["scale_high"] == 1.0
    assert result.files[0] == tmp_path / "report.html"
    provenance = json.loads((tmp_path / "checkpoint" / "provenance.json").read_text())
    seen = [slide["slide_id"] for slide in provenance["slides"]]
    assert seen == [slide["slide_id"] for slide in normalised["slides"]]
    assert seen == ["north-01", "north-02"], "the encoder is trained on one site, which keeps slides unseen"
    floor = FeatureStore.open(tmp_path / "untrained" / "features" / "south-01.zarr").attributes["encoder"]
    trained = FeatureStore.open(tmp_path / "features" / "south-01.zarr").attributes["encoder"]
    assert (floor["mode"], trained["mode"]) == ("none", "robust")
    assert floor["sha256"] != trained["sha256"]


def _check_what_rivals_were_shown(out: Path) -> None:
    """Which tiles, and by which encoder: features of one slide are told apart or not."""

    def features(folder: str, slide_id: str) -> np.ndarray:
        return FeatureStore.open(out / folder / "features" / f"{slide_id}.zarr").features

    own, other = "north-03", "south-01"
    np.testing.assert_array_equal(features("macenko-target", own), features("geometry", own))
    assert not np.array_equal(features("macenko-target", other), features("geometry", other))
    encoder = load_encoder(str(out / "geometry" / "checkpoint"), torch.device("cpu"))
    tiles = TileStore.open(out / "macenko" / "tiles" / f"{other}.zarr").read(np.arange(4))
    shown = encoder.embed(torch.from_numpy(tiles)).float().numpy()
    np.testing.assert_allclose(features("macenko-target", other)[:4].astype(np.float32), shown, rtol=2e-2, atol=2e-2)
    plain = json.loads((out / "geometry" / "checkpoint" / "provenance.json").read_text())
    assert plain["augmentation"]["scale_low"] == plain["augmentation"]["scale_high"] == 1.0


def test_given_slides_of_one_site_are_not_compared(tmp_path: Path, small_cohort: Path) -> None:
    hearers = Hearers(lambda stage: None, lambda report: None)
    result = run_demo([str(small_cohort / "slides" / "north-*")], tmp_path, CONFIG, SerialExecutor(), hearers)
    assert result.evaluation is None
    assert "two sites" in result.why_not
    assert len(list((tmp_path / "features").glob("*.zarr"))) == 2


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.svs").write_text("no slide")
    hearers = Hearers(lambda stage: None, lambda report: None)
    with pytest.raises(UsageError, match="no slide with a tile"):
        run_demo([str(tmp_path / "x.svs")], tmp_path / "out", CONFIG, SerialExecutor(), hearers)
