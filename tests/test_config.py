"""Strict settings: what is misspelt is named, what is given overrides, what was resolved is written down."""

from dataclasses import replace
from pathlib import Path

import pytest

from wsi_lmc.config import build, flat_settings, read_config, settings_of, write_resolved
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import UsageError
from wsi_lmc.grid import GridConfig
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import TrainConfig

CONFIGS = (TileConfig, TrainConfig, EmbedConfig)


def _write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("config", CONFIGS)
def test_names_are_unique_and_explained(config: type) -> None:
    settings = settings_of(config)
    assert len({setting.name for setting in settings}) == len(settings)
    assert all(setting.doc.endswith((".", "size")) and len(setting.doc) > 15 for setting in settings)


@pytest.mark.parametrize("config", CONFIGS)
def test_no_settings_give_the_defaults_and_back(config: type) -> None:
    assert build(config, {}, "test") == config()
    assert build(config, flat_settings(config()), "test") == config()


def test_a_nested_setting_is_reached_by_its_name() -> None:
    built = build(TileConfig, {"tile_mpp": 0.25, "codec": "jpeg", "stride": 128}, "test")
    assert built == replace(TileConfig(), codec="jpeg", grid=GridConfig(tile_mpp=0.25, stride=128))


def test_an_unknown_key_is_refused_with_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'tile_mp'.*Did you mean tile_mpp\?"):
        build(TileConfig, {"tile_mp": 0.5}, "flags")


@pytest.mark.parametrize(
    ("key", "value"),
    [("tile_px", "256"), ("tile_px", 0.5), ("tile_mpp", "half"), ("tile_mpp", float("nan")), ("edge", "keep"),
     ("stride", True), ("min_tissue", None)],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_the_key(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        build(TileConfig, {key: value}, "flags")


@pytest.mark.parametrize(
    ("key", "value"),
    [("tile_px", 0), ("stride", 0), ("stride", -64), ("max_tiles", 0), ("tile_mpp", 0.0), ("tile_mpp", -0.5),
     ("tile_mpp", 1e-300), ("max_gigapixels", -1.0), ("min_tissue", 1.5), ("overview_mpp", 0.0), ("smooth_um", -1.0),
     ("min_hole_um2", -1.0), ("lowest_threshold", 40), ("highest_threshold", 300)],
)  # fmt: skip
def test_a_value_that_no_slide_could_be_cut_by_is_refused(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=key):
        build(TileConfig, {key: value}, "flags")


def test_whole_numbers_are_fine_where_fractions_are_wanted() -> None:
    assert build(TileConfig, {"tile_mpp": 1}, "test").grid.tile_mpp == 1.0


def test_sections_are_read(tmp_path: Path) -> None:
    path = _write(tmp_path, "tile:\n  tile_mpp: 0.25\ntrain:\n  steps: 50\nembed:\n")
    assert read_config(path) == {"tile": {"tile_mpp": 0.25}, "train": {"steps": 50}, "embed": {}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiles:\n  tile_px: 256\n", "Did you mean tile"),
        ("tile:\n  tile_px: 256\n  tile_px: 128\n", "given twice"),
        ("- tile\n", "no sections"),
        ("tile: 256\n", "tile is 256"),
        ("tile: [\n", "cannot read"),
        ("tile:\n  2001: 1\n", "a key of tile is 2001"),
        ("tile: {mpp: 2001-99-99}\n", "cannot read"),
        ("tile: !!python/object/apply:os.system ['true']\n", "cannot read"),
    ],
)
def test_a_bad_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_config(_write(tmp_path, text))


def test_settings_that_jobs_share_can_be_merged(tmp_path: Path) -> None:
    text = "tile: &shared\n  tile_px: 256\ntrain:\n  <<: *shared\n  steps: 5\n"
    assert read_config(_write(tmp_path, text))["train"] == {"tile_px": 256, "steps": 5}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_config(tmp_path / "none.yaml")


def test_what_was_resolved_can_be_given_again(tmp_path: Path) -> None:
    tile, embed = build(TileConfig, {"tile_mpp": 0.25, "mpp": 0.5}, "test"), EmbedConfig(dtype="float16")
    write_resolved(tmp_path, {"tile": tile})
    write_resolved(tmp_path, {"embed": embed})
    sections = read_config(tmp_path / "run.yaml")
    assert build(TileConfig, sections["tile"], "run.yaml") == tile
    assert build(EmbedConfig, sections["embed"], "run.yaml") == embed
