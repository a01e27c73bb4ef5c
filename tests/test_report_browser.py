"""The page in a real browser: it asks nobody for anything, and can be read wide, narrow, dark, printed, without script.

The browser is Debian's ``chromium``; Playwright, which steers it, lies beside the environment (``make places``).
"""

from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.reports import write_everything
from wsi_lmc.report import ReportConfig, write_report

_WIDE, _NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
_LEAST_SHADES = 20  # a picture of a page has at least so many different greys


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about everything."""
    folder = write_everything(tmp_path_factory.mktemp("runs") / "run")
    return write_report([folder], folder / "report.html", ReportConfig())


def _opened(browser: Any, file: Path, **options: object) -> tuple[Any, list[str]]:
    """The page, and all that the browser said or asked for."""
    page = browser.new_context(**options).new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    heard.remove(file.as_uri())
    return page, heard


def test_every_look(browser: Any, page_file: Path, tmp_path: Path) -> None:
    grounds: dict[str, str] = {}
    for name, options in {
        "wide": {"viewport": _WIDE},
        "narrow": {"viewport": _NARROW},
        "dark": {"viewport": _WIDE, "color_scheme": "dark"},
        "plain": {"viewport": _WIDE, "java_script_enabled": False},
    }.items():
        page, heard = _opened(browser, page_file, **options)
        assert heard == [], name
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        picture = cv2.imread(str(tmp_path / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        assert len(set(picture.ravel().tolist())) >= _LEAST_SHADES
        assert page.locator("table").count() >= 8
        assert page.get_by_role("heading", level=1).inner_text() == "Report"
        if name != "plain":
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
            assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            grounds[name] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        if name == "wide":
            assert page.pdf()[:5] == b"%PDF-"
    assert grounds["wide"] == grounds["narrow"] != grounds["dark"]


def test_a_table_is_sorted_by_a_click(browser: Any, page_file: Path) -> None:
    page, heard = _opened(browser, page_file, viewport=_WIDE)
    table = page.get_by_role("table", name="Slide by slide, failures first")
    tiles = table.get_by_role("columnheader", name="tiles")
    column = table.locator("tbody tr td:nth-child(5)")
    tiles.get_by_role("button").click()
    assert tiles.get_attribute("aria-sort") == "ascending"
    rising = [int(text) for text in column.all_inner_texts()]
    assert rising == sorted(rising)
    tiles.get_by_role("button").click()
    assert [int(text) for text in column.all_inner_texts()] == rising[::-1]
    assert heard == []


def test_the_policy_stops_what_would_have_slipped_in(browser: Any, page_file: Path, tmp_path: Path) -> None:
    slipped = "<script>document.title = 'owned'</script><img src='https://example.org/x.png'>"
    text = page_file.read_text(encoding="utf-8").replace("<main", f"{slipped}<main", 1)
    (tmp_path / "changed.html").write_text(text, encoding="utf-8")
    page = browser.new_page()
    refused: dict[str, str] = {}
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("requestfailed", lambda request: refused.update({request.url: request.failure}))
    page.goto((tmp_path / "changed.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert page.title() == "Report"
    assert sum("Content Security Policy" in said for said in heard) >= 2, "script and image"
    assert all("csp" in reason.lower() for reason in refused.values()), refused
