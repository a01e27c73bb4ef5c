"""The manual's site is built without a warning, and every page can be reached from its first one."""

import html.parser
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.manual import DOCS, PAGES, ROOT, text_of
from wsi_lmc.cli import COMMANDS

PICTURES_BYTES = 300_000


def _sphinx() -> Path:
    """Where ``make places`` put Sphinx, or a skip that says how to get it."""
    folder = Path(os.environ.get("WSI_LMC_DOCS_PACKAGES", Path(sys.prefix) / "docs"))
    if (folder / "sphinx").is_dir():
        return folder
    message = f"no Sphinx in {folder}: 'make places' puts it there"
    if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as ``make docs`` builds it: warnings are errors."""
    out = tmp_path_factory.mktemp("site")
    path = os.pathsep.join([str(ROOT), str(_sphinx())])
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(out / "trees"),
         str(DOCS), str(out / "html")],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return out / "html"


class _Links(html.parser.HTMLParser):
    """Collects where a page leads and what it shows."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.leads: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an address or an anchor."""
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.leads.add(values["href"])
        if tag in ("img", "script"):
            self.loads.add(values.get("src", ""))
        if tag == "link" and values.get("rel") == "stylesheet":
            self.loads.add(values.get("href", ""))


@pytest.mark.slow
def test_every_page_is_reached_and_every_link_leads_somewhere(site: Path) -> None:
    waiting, seen = ["index.html"], {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        page = (site / name).resolve()
        seen[name] = _Links(page)
        for link in seen[name].leads:
            target, _ = urldefrag(link)
            if "://" in link or link.startswith("mailto:") or not target:
                continue
            path = (page.parent / unquote(target)).resolve()
            assert path.is_file(), f"{name} leads to {link}"
            if path.suffix == ".html":
                waiting.append(path.relative_to(site.resolve()).as_posix())
    assert {f"{page.stem}.html" for page in PAGES} <= seen.keys()
    for name, links in seen.items():
        for link in links.leads:
            target, anchor = urldefrag(link)
            known = seen.get(target or name)
            if anchor and "://" not in link and known is not None:
                assert unquote(anchor) in known.anchors, f"{name} leads to {link}"


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = {address for address in _Links(page).loads if address}
        assert not [address for address in loaded if "//" in address.removeprefix("data:")], page.name


@pytest.mark.slow
def test_the_reference_has_the_docstrings(site: Path) -> None:
    reference = (site / "reference.html").read_text(encoding="utf-8")
    for name in ("wsi_lmc.slide.open_slide", "wsi_lmc.tilestore.TileStore", "wsi_lmc.units.Mpp.scaled"):
        assert f'id="{name}"' in reference, name
    assert "row-major" in reference.lower()


def test_pictures_are_small_and_shown() -> None:
    pictures = sorted(DOCS.glob("concepts-*.png"))
    assert len(pictures) == 3
    assert sum(path.stat().st_size for path in pictures) <= PICTURES_BYTES
    for path in pictures:
        assert f"({path.name})" in text_of(DOCS / "concepts.md")


@pytest.mark.slow
def test_every_command_and_flag_is_on_the_site(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f'<section id="{name}">' in page, name
    for flag in ("--tile-mpp", "--pseudonyms", "--off-diagonal-weight", "--normalise", "--no-overviews"):
        assert flag in page
