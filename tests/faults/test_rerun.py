"""What failed is tried again with the settings, outlines, encoders and stores it was asked for with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_lmc.cohort import find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.rerun import failed_slides, rerun
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, tile_cohort
from wsi_lmc.runfolder import outcomes
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.synthetic import write_cohort
from wsi_lmc.verify import verify

OPTIONS = RunOptions(SerialExecutor())


def test_what_failed_is_tried_again_as_it_was_asked_for(tmp_path: Path) -> None:
    """The slide was out of reach, with an outline of its own; the embedding failed for want of the encoder's folder."""
    write_cohort(tmp_path, {"north": 2}, seed=6, size=(1024, 1280))
    slides, away, out = tmp_path / "slides", tmp_path / "away", tmp_path / "run"
    entries = find_slides([str(slides)])
    square = [[[0, 0], [800, 0], [800, 800], [0, 800], [0, 0]]]
    (tmp_path / "outlines").mkdir()
    for entry in entries:
        document = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}, "properties": {}}
        (tmp_path / "outlines" / f"{entry.slide_id}.geojson").write_text(json.dumps(document))
    entries[0].path.rename(away)
    tile_cohort(entries, out, TileConfig(mpp=0.5), RunOptions(SerialExecutor(), mask=tmp_path / "outlines"))
    assert failed_slides(out, "tile") == [entries[0].slide_id]
    away.rename(entries[0].path)
    (outcome,) = rerun(out, "tile", failed_slides(out, "tile"), OPTIONS)
    assert outcome.state == "done"
    assert [each.state for each in outcomes(out, "tile")] == ["done", "done"]
    assert verify(out).findings == ()
    again = [sys.executable, "-m", "wsi_lmc", "retry-failed", str(out)]
    assert "no slide" in subprocess.run(again, capture_output=True, text=True, check=True).stdout


def test_features_are_made_again_from_the_stores_and_by_the_encoder_they_were_asked_for_with(tmp_path: Path) -> None:
    """The stores lie in another run, which was away when it was embedded; the whole is moved before the second try."""
    write_cohort(tmp_path, {"north": 2}, seed=6, size=(1024, 1024))
    tiled, out = tmp_path / "tiled", tmp_path / "embedded"
    tile_cohort(find_slides([str(tmp_path / "slides")]), tiled, TileConfig(), OPTIONS)
    stores = find_stores([tiled])
    tiled.rename(tmp_path / "away")
    config = EmbedConfig(batch=4, device="cpu")
    met = embed_cohort(EmbedInputs(stores), "untrained:vit-demo@3", out, config, OPTIONS)
    assert {outcome.code for outcome in met} == {"store"}
    (tmp_path / "away").rename(tiled)
    moved = out.rename(tmp_path / "moved")
    again: list[Outcome] = rerun(moved, "embed", failed_slides(moved, "embed"), OPTIONS)
    assert [outcome.state for outcome in again] == ["done", "done"]
    assert verify(moved).findings == ()
    with pytest.raises(UsageError, match="does not tell how embed was asked for nobody"):
        rerun(moved, "embed", ["nobody"], OPTIONS)
