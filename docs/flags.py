"""Every command with all its flags, in Markdown, from the program itself: what ``docs/commands.md`` ends with.

The site's settings (``conf.py``) append it when they build that page, so that it cannot be out of date.
"""

import re
from typing import Any

import click
import typer.main

from wsi_lmc.cli import COMMANDS, build_app

Parsed = Any  # typer has a click of its own, without names to import


def all_commands() -> str:
    """A section a command."""
    return "\n".join(_section(name) for name in COMMANDS)


def _section(name: str) -> str:
    group: Parsed = typer.main.get_command(build_app(name))
    context: Parsed = click.Context(group, info_name="wsi-lmc")
    command: Parsed = group.get_command(context, name)
    own: Parsed = click.Context(command, parent=context, info_name=name)
    usage = " ".join(["wsi-lmc", name, *command.collect_usage_pieces(own)])
    told = (parameter.get_help_record(own) for parameter in command.params if "--help" not in parameter.opts)
    rows = [f"| `{term.replace('|', '\\|')}` | {_prose(text)} |" for term, text in filter(None, told)]
    table = ["| | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## {name}", "", f"`{usage}`", "", _prose(command.help or ""), "", *table, ""])


def _prose(text: str) -> str:
    """Text whose signs neither end a cell nor are taken for markup."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return re.sub(r"([|<>*_\[\]`])", r"\\\1", "\n\n".join(paragraphs))
