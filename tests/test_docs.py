"""Every ``wsi-lmc`` command in the documents is one that this version understands; links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from tests.manual import DOCS, PAGES, ROOT, blocks, check_call, program_calls, text_of
from wsi_lmc.division import Shard, parse_shard

_INDEX = '"$((JOB_COMPLETION_INDEX + 1))'
_LONGEST = 135  # characters, but of tables: what is there already


def _commands() -> list[str]:
    """Lines of code blocks that run the program, of all documents."""
    return [line for page in PAGES for block in blocks(page, "sh|yaml") for line in program_calls(block)]


def test_the_cluster_guide_has_commands() -> None:
    assert sum("--shard" in line for line in _commands()) >= 5
    assert sum("--scheduler tls://" in line for line in _commands()) >= 2


@pytest.mark.parametrize("line", _commands())
def test_every_command_is_understood(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    if name != "--version":
        check_call([name, *words])


def test_pods_have_the_shares_from_one_to_all() -> None:
    shards = [line.split("--shard ")[1].split()[0:4] for line in _commands() if _INDEX in line]
    assert len(shards) == 2
    for words in shards:
        of = int(" ".join(words).split("/")[1].split('"')[0])
        assert [parse_shard(f"{index + 1}/{of}", {}) for index in range(of)] == [Shard(i, of) for i in range(1, of + 1)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    without_code = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", without_code)
    for target in targets:
        path, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        assert (page.parent / path).is_file(), f"{page.name}: {target}"
        if anchor and path.endswith(".md"):
            assert anchor in _anchors(page.parent / path), f"{page.name}: {target}"


def _scripts(page: Path) -> list[tuple[str, str]]:
    """Scripts of the repository that a page tells to run, with what follows them on the line."""
    return re.findall(r"(benchmarks/\w+\.py|docs/\w+\.py|pipelines\.\w+)([^`\n]*)", text_of(page))


@pytest.mark.parametrize("page", [page for page in PAGES if _scripts(page)], ids=lambda page: page.name)
def test_scripts_that_take_hours_are_there_with_their_flags(page: Path) -> None:
    for script, rest in _scripts(page):
        path = script if script.endswith(".py") else f"{script.replace('.', '/')}.py"
        assert (ROOT / path).is_file(), f"{page.name}: {script}"
        source = (ROOT / path).read_text(encoding="utf-8")
        if script.startswith("pipelines"):
            source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "pipelines").glob("*.py"))
        for flag in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest):
            assert flag in source or flag[2:].replace("-", "_") in source, f"{page.name}: {script} {flag}"
        for config in re.findall(r"configs/[\w/]+\.yaml", rest):
            assert (ROOT / config).is_file(), f"{page.name}: {config}"


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_can_be_read_in_a_terminal(page: Path) -> None:
    long = [line for line in text_of(page).splitlines() if len(line) > _LONGEST and not line.startswith("|")]
    assert not long


def test_every_test_that_the_comparison_names_exists() -> None:
    page = text_of(DOCS / "peers.md")
    named = re.findall(r"\]\(\.\./(tests/[\w/]+\.py) \"(test_\w+)\"\)", page)
    assert len(named) >= 30
    for file, function in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {function}\(", source, re.MULTILINE), f"{file}::{function}"


def test_our_cells_of_the_comparison_name_a_test_or_claim_nothing() -> None:
    rows = [line.split("|")[2].strip() for line in text_of(DOCS / "peers.md").splitlines() if line.startswith("| ")]
    cells = [cell for cell in rows if cell and cell != "wsi-lmc"]
    project = {"Apache-2.0", "Linux"}
    for cell in cells:
        modest = cell in project or re.match(r"\*{0,2}(no|new|stores|about)\b", cell)
        assert modest or "../tests/" in cell, cell
