"""The manual as tests see it: pages, their blocks, and the commands in them."""

import re
from pathlib import Path

import click
import typer.main

from wsi_lmc.cli import build_app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = sorted(DOCS.glob("*.md"))


def text_of(page: Path) -> str:
    """A page as it is written."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path, languages: str) -> list[str]:
    """Fenced blocks of these languages (``sh|yaml``)."""
    return re.findall(rf"^```(?:{languages})\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def shell_lines(text: str) -> list[str]:
    """Commands of a script: continued lines are one, comments are none."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (line.strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "echo "))]


def commands(page: Path) -> list[str]:
    """Every command of a page's shell blocks."""
    return [line for block in blocks(page, "sh") for line in shell_lines(block)]


def program_calls(text: str) -> list[str]:
    """Calls of ``wsi-lmc`` in a script or manifest, each as far as it goes within one shell command."""
    found = (re.search(r"(?:^|[\s\"'])(wsi-lmc .*)", line) for line in shell_lines(text))
    return [re.split(r" (?:\|\||&&|[|;]) ", match[1])[0] for match in found if match]


def check_call(words: list[str]) -> None:
    """Give the words after ``wsi-lmc`` to the program's own parser, which runs nothing.

    Raises:
        click.UsageError: it does not understand them.
    """
    name, *arguments = words
    group = typer.main.get_command(build_app(name))
    command = group.get_command(click.Context(group), name)  # pyright: ignore
    if command is None:
        raise click.UsageError(f"no command {name}")
    with command.make_context(name, list(arguments)) as context:
        if context.args or not context.params:
            raise click.UsageError(f"{name}: {context.args} left over")
