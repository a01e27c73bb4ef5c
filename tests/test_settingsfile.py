"""A file of all settings: it says what the defaults are, and its schema knows right from wrong."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.forked import Commands
from wsi_lmc.config import SECTIONS, build, flat_settings, read_config, settings_of, write_resolved
from wsi_lmc.settingsfile import CONFIGS, commented_yaml, json_schema

PAPER = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    """Of files of settings, once the schema itself has been found to be one."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_file_says_the_defaults_and_explains_each(tmp_path: Path) -> None:
    assert tuple(CONFIGS) == SECTIONS
    text = commented_yaml("x.schema.json")
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    sections = read_config(path)
    lines = text.splitlines()
    assert lines[0] == "# yaml-language-server: $schema=x.schema.json"
    assert max(map(len, lines)) <= 120
    for section, config in CONFIGS.items():
        assert build(config, sections[section], "test") == config()
        assert list(sections[section]) == [setting.name for setting in settings_of(config)]
    settings = sum(map(len, sections.values()))
    places = [number for number, line in enumerate(lines) if line.startswith("  ") and not line.startswith("  #")]
    assert len(places) == settings
    assert all(lines[place - 1].startswith("  # ") for place in places), "a comment above each"


def test_the_schema_takes_what_commands_take(validator: Any, tmp_path: Path) -> None:
    assert [path.name for path in PAPER] == ["paper.yaml"]
    for path in PAPER:
        validator.validate(yaml.safe_load(path.read_text()))
    validator.validate(yaml.safe_load(commented_yaml("x")))
    validator.validate({"embed": None, "tile": {"tile_mpp": 1, "stride": 128, "mpp": 0.25}})
    write_resolved(tmp_path, {name: config() for name, config in CONFIGS.items()})
    validator.validate(yaml.safe_load((tmp_path / "run.yaml").read_text()))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"tiles": {}}, "'tiles' was unexpected"),
        ({"tile": {"tile_mp": 0.5}}, "'tile_mp' was unexpected"),
        ({"train": {"tile_px": 256}}, "'tile_px' was unexpected"),
        ({"tile": {"tile_px": "256"}}, "'256' is not of type 'integer'"),
        ({"tile": {"tile_px": 0.5}}, "0.5 is not of type 'integer'"),
        ({"tile": {"edge": "keep"}}, "'keep' is not one of"),
        ({"tile": {"min_tissue": None}}, "None is not of type 'number'"),
        ({"train": 5}, "5 is not of type"),
    ],
)
def test_the_schema_refuses_what_commands_refuse(document: dict[str, Any], said: str, validator: Any) -> None:
    with pytest.raises(jsonschema.ValidationError, match=said):
        validator.validate(document)


def test_every_setting_is_described_with_its_default() -> None:
    for section, config in CONFIGS.items():
        found = json_schema()["properties"][section]["properties"]
        assert {name: each["default"] for name, each in found.items()} == flat_settings(config())
        assert all(each["description"] for each in found.values())


def test_init_writes_both_once(tmp_path: Path, program: Commands) -> None:
    first = program("init", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wsi-lmc.schema.json", "wsi-lmc.yaml"]
    assert (tmp_path / "wsi-lmc.yaml").read_text() == commented_yaml("wsi-lmc.schema.json")
    assert program("init", "--schema", cwd=tmp_path).stdout == (tmp_path / "wsi-lmc.schema.json").read_text()
    (tmp_path / "wsi-lmc.yaml").write_text("tile:\n  tile_px: 512\n")
    again = program("init", cwd=tmp_path)
    assert again.returncode == 2
    assert "wsi-lmc.yaml is there already" in again.stderr
    assert (tmp_path / "wsi-lmc.yaml").read_text() == "tile:\n  tile_px: 512\n", "left alone"
    (tmp_path / "wsi-lmc.yaml").unlink()
    assert "wsi-lmc.schema.json is there already" in program("init", cwd=tmp_path).stderr
    assert program("init", "settings.json", cwd=tmp_path).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wsi-lmc.schema.json"]


def test_what_init_wrote_is_taken_by_a_command(tmp_path: Path, program: Commands) -> None:
    assert program("init", "mine.yaml", cwd=tmp_path).returncode == 0
    result = program("tile", "nothing.svs", "--config", "mine.yaml", "--workers", 0, cwd=tmp_path)
    assert "missing" in result.stderr, "the settings were fine, the slide was not there"
