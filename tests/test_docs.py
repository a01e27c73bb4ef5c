"""Every ``wsi-lmc`` command in the documents is one that this version understands."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main

from wsi_lmc.cli import build_app
from wsi_lmc.division import Shard, parse_shard

DOCS = Path(__file__).resolve().parents[1] / "docs"
_INDEX = '"$((JOB_COMPLETION_INDEX + 1))'


def _commands() -> list[str]:
    """Lines of code blocks that run the program, of all documents."""
    blocks = [
        block
        for path in sorted(DOCS.glob("*.md"))
        for block in re.findall(
            r"^```(?:sh|yaml)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    ]
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip().startswith("wsi-lmc ")]


def test_the_cluster_guide_has_commands() -> None:
    assert sum("--shard" in line for line in _commands()) >= 5
    assert sum("--scheduler tls://" in line for line in _commands()) >= 2


@pytest.mark.parametrize("line", _commands())
def test_every_command_is_understood(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    group = typer.main.get_command(build_app(name))
    command = group.get_command(click.Context(group), name)  # pyright: ignore
    assert command is not None
    with command.make_context(name, words) as context:  # parses, and runs nothing
        assert context.args == []
        assert context.params


def test_pods_have_the_shares_from_one_to_all() -> None:
    shards = [line.split("--shard ")[1].split()[0:4] for line in _commands() if _INDEX in line]
    assert len(shards) == 2
    for words in shards:
        of = int(" ".join(words).split("/")[1].split('"')[0])
        assert [parse_shard(f"{index + 1}/{of}", {}) for index in range(of)] == [Shard(i, of) for i in range(1, of + 1)]
