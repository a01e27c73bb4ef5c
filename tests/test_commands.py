"""Flags made from configurations: each setting has one, and what is not given does not override."""

import inspect
from pathlib import Path

import pytest

from wsi_lmc.commands.common import close, resolve, with_settings
from wsi_lmc.commands.embed import command as embed
from wsi_lmc.commands.import_ import command as import_
from wsi_lmc.commands.pack import command as pack
from wsi_lmc.commands.plan import command as plan
from wsi_lmc.commands.tile import command as tile
from wsi_lmc.commands.train import command as train
from wsi_lmc.config import settings_of
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.importing import ImportConfig
from wsi_lmc.patches import PackConfig
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import TrainConfig


@pytest.mark.parametrize(
    ("command", "configs"),
    [
        (plan, [TileConfig]),
        (tile, [TileConfig]),
        (pack, [PackConfig]),
        (train, [TrainConfig]),
        (embed, [EmbedConfig, TileConfig]),
        (import_, [ImportConfig]),
    ],
)
def test_every_setting_is_a_flag(command: object, configs: list[type]) -> None:
    assert callable(command)
    parameters = inspect.signature(command).parameters
    names = [setting.name for config in configs for setting in settings_of(config)]
    assert len(names) == len(set(names)), "a flag means one setting"
    assert set(names) <= set(parameters)
    assert all(parameters[name].default is None for name in names)
    assert "given" not in parameters


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("tile:\n  tile_mpp: 0.25\n  min_tissue: 0.1\n")
    found = resolve("tile", TileConfig, path, {"tile": {"min_tissue": 0.0}})
    assert (found.grid.tile_mpp, found.grid.min_tissue, found.grid.tile_px) == (0.25, 0.0, 256)


def test_only_flags_that_were_used_are_given() -> None:
    heard: list[dict[str, dict[str, object]]] = []

    @with_settings({"embed": EmbedConfig})
    def command(given: dict[str, dict[str, object]], output: str = "x") -> None:
        heard.append(given)

    settings = {setting.name: None for setting in settings_of(EmbedConfig)}
    command(output="y", **{**settings, "batch": 8, "precision": "float32"})
    assert heard == [{"embed": {"batch": 8, "precision": "float32"}}]


def test_interruptions_have_their_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    @with_settings({})
    def command(given: dict[str, dict[str, object]]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_closing_lines_name_failures_and_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    done = Outcome("a", "tile", "done", tiles=3, fresh=False)
    close([done], Path("out"), "wsi-lmc train")
    assert capsys.readouterr().out == "1 done (1 before); 3 tiles; see out/slides.csv\nnext: wsi-lmc train\n"
    failed = Outcome("b", "tile", "failed", "damaged", "half a file", "Copy it.")
    with pytest.raises(typer.Exit) as caught:
        close([done, failed], Path("out"), "")
    assert caught.value.exit_code == 1
    assert "b: damaged: half a file. Copy it." in capsys.readouterr().err
