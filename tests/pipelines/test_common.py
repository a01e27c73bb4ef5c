"""The pipelines' command line and settings."""

import json
from pathlib import Path

import pytest

from pipelines import camelyon16, centres, colon, gleason, midog, traces
from pipelines.common import SETTINGS, Pipeline, main, numbered, read_settings
from wsi_lmc.config import flat_settings, read_config
from wsi_lmc.downloads import Finding
from wsi_lmc.errors import UsageError
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.study import Study, StudyConfig

ROOT = Path(__file__).resolve().parents[2]
PAPER = {pipeline.name: pipeline for pipeline in (camelyon16.PIPELINE, midog.PIPELINE, gleason.PIPELINE)}
PIPELINES = PAPER | {pipeline.name: pipeline for pipeline in (colon.PIPELINE, centres.PIPELINE, traces.PIPELINE)}
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "configs")


def _pipeline(fails: bool = False) -> Pipeline:
    def prepare(call: object) -> Study:
        if fails:
            call.failures.append(Outcome("a", "tile", "failed"))  # pyright: ignore[reportAttributeAccessIssue]
        return Study(Path("u"), Path("s"), {"t": Path("t")}, ("a", "b"))

    return Pipeline("name", "about", {}, lambda call: [Finding("a is missing", "Get it.")] * fails, prepare)


def test_every_pipeline_has_its_settings() -> None:
    found = {(path.parent.name, path.stem) for path in SHIPPED}
    assert {(name, "smoke") for name in PIPELINES} | {(name, "paper") for name in PAPER} <= found
    assert {name for name, _ in found} == set(PIPELINES)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_settings_load_and_state_only_what_differs(path: Path) -> None:
    sections = {**PIPELINES[path.parent.name].sections, "study": StudyConfig}
    settings = read_settings(path, sections)
    assert settings.keys() == sections.keys()
    for name, values in read_config(path, tuple(sections)).items():
        for key, value in values.items():
            assert flat_settings(settings[name])[key] == value
            assert flat_settings(sections[name]())[key] != value, f"{name}: {key} is the default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data:\n  imagse: x\n", "Did you mean images"),
        ("dta:\n  images: x\n", "Did you mean data"),
        ("study:\n  steps: many\n", "steps = 'many'"),
        ("study:\n  comparators: [lcm]\n", "comparators lcm"),
        ("data:\n  classes: [a]\n", "classes = "),
        ("data:\n  seed: 1\n  seed: 2\n", "given twice"),
    ],
)
def test_what_is_misspelt_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_settings(path, {**camelyon16.PIPELINE.sections, "study": StudyConfig})


def _arguments(folder: Path, *more: str) -> list[str]:
    config = folder / "c.yaml"
    config.write_text("study:\n  steps: 7\n", encoding="utf-8")
    return ["--config", str(config), "--data", str(folder), "-o", str(folder / "out"), *more]


def test_check_does_nothing_but_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_pipeline(), _arguments(tmp_path, "--check")) == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert main(_pipeline(fails=True), _arguments(tmp_path, "--check")) == 1
    assert "a is missing. Get it." in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_failed_slides_are_told_by_the_exit_code(tmp_path: Path) -> None:
    assert main(_pipeline(), _arguments(tmp_path, "--prepare-only")) == 0
    assert main(_pipeline(fails=True), _arguments(tmp_path, "--prepare-only")) == 1
    assert json.loads((tmp_path / "out" / SETTINGS).read_text(encoding="utf-8"))["study"]["steps"] == 7


def test_a_wrong_call_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_pipeline(), ["--config", str(tmp_path / "none.yaml")]) == 2
    assert "name: cannot read" in capsys.readouterr().err


def test_names_are_numbered() -> None:
    assert numbered("a_", 9, 11, ".tif") == ("a_009.tif", "a_010.tif", "a_011.tif")
