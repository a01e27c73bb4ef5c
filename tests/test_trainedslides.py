"""Whoever has seen a slide in training can be told: from a real training's folder, and never from a damaged one."""

import json
import shutil
from pathlib import Path

import pytest

from wsi_lmc.cohort import find_slides
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import RunOptions, find_stores, tile_cohort, train_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.trainedslides import PROVENANCE, slides_trained_on, tiles_trained_on
from wsi_lmc.training import TrainConfig


@pytest.fixture(scope="module")
def checkpoint(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on three slides, one of which was held out."""
    run = tmp_path_factory.mktemp("run")
    slides = sorted(map(str, (small_cohort / "slides").iterdir()))[:3]
    tile_cohort(find_slides(slides), run, TileConfig(), RunOptions(SerialExecutor()))
    config = TrainConfig(steps=1, batch=4, architecture="vit-demo", held_out_share=0.3)
    train_cohort(find_stores([run]), run / "checkpoint", config, SerialExecutor(), ("new", lambda _: None))
    return run / "checkpoint"


def test_slides_that_were_held_out_have_not_been_seen(checkpoint: Path) -> None:
    provenance = json.loads((checkpoint / PROVENANCE).read_text(encoding="utf-8"))
    told = {slide["slide_id"]: slide for slide in provenance["slides"]}
    assert (provenance["held_out"], len(told)) == ("slides", 3)
    found = tiles_trained_on(provenance)
    assert len(found) == 2
    assert all(found[slide_id] == told[slide_id]["tiles"] for slide_id in found)
    assert slides_trained_on([checkpoint]) == tuple(sorted(found))


def test_several_trainings_have_seen_what_any_of_them_has(checkpoint: Path, tmp_path: Path) -> None:
    other = {"slides": [{"slide_id": "a", "trained_on": 3}, {"slide_id": "b", "trained_on": 0}]}
    (tmp_path / PROVENANCE).write_text(json.dumps(other))
    assert slides_trained_on([str(checkpoint), tmp_path]) == tuple(sorted(("a", *slides_trained_on([checkpoint]))))
    assert slides_trained_on([]) == ()


@pytest.mark.parametrize(
    "content", [None, "", "[1]", "{}", '{"slides": 3}', '{"slides": [1]}', '{"slides": [{"slide_id": "a"}]}']
)
def test_a_folder_that_does_not_say_is_refused(checkpoint: Path, tmp_path: Path, content: str | None) -> None:
    """An evaluation that took nothing for seen would be of other slides than its user means."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    (folder / PROVENANCE).unlink()
    if content is not None:
        (folder / PROVENANCE).write_text(content)
    with pytest.raises(UsageError, match="does not say which slides it was trained on"):
        slides_trained_on([checkpoint, folder])
