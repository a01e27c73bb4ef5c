"""The tutorial runs as it is, from slides to a classifier, and its results are what it says they are."""

import os
import runpy
from pathlib import Path

import pytest

from wsi_lmc.evaluation import Evaluation

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.py"


@pytest.mark.slow
def test_the_tutorial_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        found = runpy.run_path(str(TUTORIAL))
    finally:
        os.chdir(before)
    evaluation = found["evaluation"]
    assert isinstance(evaluation, Evaluation)
    assert evaluation.sites == ("north", "south")
    said = capsys.readouterr().out
    assert said.count(", really ") == 6
    learnt = next(m for m in evaluation.encoders[0].measures if m.metric == "transfer_auroc")
    assert learnt.value > 0.7, "classes learnt at the one site hold at the other"
    assert found["right"] >= 4, "more than guessing"
    assert [path.name for path in tmp_path.iterdir()] == ["wsi-lmc-tutorial"], "nothing beside its own folder"


def test_it_can_be_read_as_a_notebook() -> None:
    """Cells begin with ``# %%``; those in Markdown hold comments alone."""
    first, *cells = TUTORIAL.read_text(encoding="utf-8").split("# %%")
    assert first == ""
    assert len(cells) >= 14
    for cell in cells:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            assert all(line.startswith("#") for line in body.splitlines() if line)
        else:
            compile(body, "cell", "exec")
