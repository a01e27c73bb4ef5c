"""The page in a real browser: a slide opens, moves, is picked at and searched; wide, narrow, dark, and by keys alone.

The browser is Debian's ``chromium``; Playwright, which steers it, lies beside the environment (``make install``).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.views import Asking, serving, write_view
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.runfolder import add_slides, record
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.tilestore import TileStore
from wsi_lmc.viewer import ViewConfig
from wsi_lmc.viewer.colours import by_value

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
MORE = 600  # slides that were never looked at, so that the list is longer than a page of it

_STILL = "matchMedia('(prefers-reduced-motion: reduce)').matches"
_NAMELESS = """
[...document.querySelectorAll("button, select, input, img, [tabindex='0'], [role=listbox], [role=img]")]
  .filter((each) => each.checkVisibility() && !each.closest(".navigator"))
  .filter((each) => ![each.getAttribute("aria-label"), each.innerText, each.alt, each.labels?.length].some(Boolean))
  .filter((each) => !each.closest("button[aria-label]"))
  .map((each) => each.outerHTML.slice(0, 100))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    run = write_view(tmp_path_factory.mktemp("seen"), small_cohort)
    names = [f"waiting-{number:04d}" for number in range(MORE)]
    add_slides(run, [SlideEntry(Path(f"/nowhere/{name}.svs"), name, site="<b>east</b>") for name in names])
    record(run, Outcome("waiting-0003", "tile", "failed", "damaged", "half a <i>file</i>", "Copy it again."))
    return run


@pytest.fixture(scope="module")
def ask(run: Path) -> Iterator[Asking]:
    with serving(ViewConfig((run,))) as found:
        yield found


class Seen:
    """The page, and what the browser complained of."""

    def __init__(self, browser: Any, ask: Asking, start: str = "", **options: object) -> None:
        still = {"viewport": WIDE, "reduced_motion": "reduce"}
        self.page = browser.new_context(**still | options).new_page()
        self.heard: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))
        self.page.on(
            "request", lambda request: self.heard.append(request.url) if not self._own(request.url, ask) else None
        )
        self.page.goto(ask.server.url)
        self.settle()
        if start:
            self.page.goto(f"http://127.0.0.1:{ask.server.port}/#{start}")
            self.settle()

    def _hear(self, message: Any) -> None:
        if not message.text.startswith("Ignoring tile"):  # as OpenSeadragon says of what came too late
            self.heard.append(message.text)

    @staticmethod
    def _own(url: str, ask: Asking) -> bool:
        return url.startswith((f"http://127.0.0.1:{ask.server.port}/", "blob:", "data:"))

    def settle(self) -> None:
        """Wait until nothing is asked for or moves any more."""
        self.page.wait_for_load_state("load")
        for _ in range(2):  # what has come may ask for more
            self.page.wait_for_timeout(50)
            self.until(
                "document.documentElement.dataset.asking === '0' && !document.querySelector('#stage[aria-busy]')"
            )
            self.until("document.getElementById('stage').dataset.loaded === 'true'")
        self.page.wait_for_timeout(100 if self.page.evaluate(_STILL) else 600)

    def until(self, expression: str) -> None:
        """Wait until something holds; Playwright's own way needs ``eval`` in the page, which its policy forbids."""
        for _ in range(300):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never came true: {expression}")

    def show(self, value: str) -> None:
        self.page.select_option("#value", value)
        self.settle()

    def title(self) -> str:
        return str(self.page.inner_text("#title"))

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the slide (level-0 pixels) is on the screen: the whole slide is seen, in the middle."""
        box = self.page.locator("#overlay").bounding_box()
        scale = min(box["width"] / 1024, box["height"] / 1280)
        left, top = (box["width"] - 1024 * scale) / 2, (box["height"] - 1280 * scale) / 2
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def shot(self, path: Path) -> np.ndarray:
        self.page.screenshot(path=path)
        found = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        assert found is not None
        return found


@pytest.mark.parametrize("look", ["wide", "narrow", "dark"])
def test_every_look_is_quiet_and_fits(browser: Any, ask: Asking, look: str, tmp_path: Path) -> None:
    options = {
        "wide": {"reduced_motion": "no-preference"}, "narrow": {"viewport": NARROW, "has_touch": True},
        "dark": {"color_scheme": "dark"},
    }[look]  # fmt: skip
    seen = Seen(browser, ask, **options)
    assert seen.title() == "north-01 · north"
    seen.show("tissue")
    picture = seen.shot(tmp_path / f"{look}.png")
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500, "a slide is seen"
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.page.locator("#list").is_visible() is (look != "narrow")
    assert seen.page.inner_text("#legend-title") == "Tissue in the tile"
    assert seen.page.url.endswith("/#north-01"), "without the key"
    assert seen.heard == []
    if look == "narrow":
        seen.page.click("#list-button")
        assert seen.page.locator("#list").is_visible()
        seen.page.locator(".row", has_text="south-01").click()
        seen.settle()
        assert seen.title().startswith("south-01")
        assert not seen.page.locator("#list").is_visible()


def test_values_lie_over_their_tiles(browser: Any, ask: Asking, run: Path, tmp_path: Path) -> None:
    seen = Seen(browser, ask)
    seen.page.uncheck("#outline")
    seen.page.fill("#strength", "100")
    seen.show("tissue")
    picture = seen.shot(tmp_path / "values.png")
    store = TileStore.open(run / "tiles" / "north-01.zarr")
    assert len(np.unique(store.tissue_fraction)) > 8
    expected = by_value(store.tissue_fraction, 0.0, 1.0)[:, :3]
    over = [seen.page.locator(name).bounding_box() for name in ("#legend", ".navigator", "#scalebar")]
    (left, top), (right, bottom) = seen.spot(0, 0), seen.spot(1024, 1280)
    checked = 0
    for origin, colour in zip(store.origins, expected, strict=True):
        for inside in ((16, 16), (48, 48), (16, 48)):
            shares = (origin + inside) / (1024, 1280)
            x, y = (np.asarray([left, top]) + shares * [right - left, bottom - top]).tolist()
            if any(0 <= x - box["x"] <= box["width"] and 0 <= y - box["y"] <= box["height"] for box in over):
                continue
            assert np.abs(picture[int(y), int(x)].astype(int) - colour).max() <= 3, origin
            checked += 1
    assert checked > 300
    seen.page.keyboard.press("h")
    seen.settle()
    left, top = seen.spot(*(store.origins[len(store) // 2] + 32).tolist())
    assert np.abs(seen.shot(tmp_path / "hidden.png")[int(top), int(left)].astype(int) - expected[0]).max() > 3


def test_it_moves_and_nears_by_mouse_and_keys(browser: Any, ask: Asking, tmp_path: Path) -> None:
    seen = Seen(browser, ask)
    before = seen.shot(tmp_path / "0.png")
    box = seen.page.locator("#slide").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.mouse.move(*middle)
    seen.page.mouse.down()
    seen.page.mouse.move(middle[0] + 120, middle[1] + 40, steps=4)
    seen.page.mouse.up()
    seen.settle()
    moved = seen.shot(tmp_path / "1.png")
    assert (moved != before).any()
    assert not seen.page.locator("#panel").is_visible(), "a drag picks nothing"
    scale = seen.page.inner_text("#scalebar")
    for _ in range(3):
        seen.page.keyboard.press("+")
    seen.settle()
    assert any("/pixels/north-01/11/" in url for url in seen.asked), "the finest level"
    assert seen.page.inner_text("#scalebar") != scale
    near = seen.shot(tmp_path / "2.png")
    seen.page.keyboard.press("ArrowLeft")
    seen.settle()
    assert (seen.shot(tmp_path / "3.png") != near).any()
    seen.page.keyboard.press("0")
    seen.settle()
    assert np.abs(seen.shot(tmp_path / "4.png").astype(int) - before).mean() < 2
    assert seen.heard == []


def test_a_click_picks_a_tile_and_its_nearest_lead_to_their_slides(browser: Any, ask: Asking, run: Path) -> None:
    seen = Seen(browser, ask)
    assert seen.page.locator("#value option[value=similarity]").is_disabled()
    store = TileStore.open(run / "tiles" / "north-01.zarr")
    row = 100
    seen.page.mouse.click(*seen.spot(*(store.origins[row] + 20).tolist()))
    seen.settle()
    assert seen.page.inner_text("#tile-title") == f"Tile {row + 1} of north-01"
    assert seen.page.evaluate("document.getElementById('tile-picture').naturalWidth") == 64
    assert f"{row + 1}" in seen.page.get_attribute("#tile-picture", "alt")
    percent = 100 * (row + 1) / len(store)
    values = dict(
        zip(
            seen.page.locator("#tile-values dt").all_inner_texts(),
            seen.page.locator("#tile-values dd").all_inner_texts(),
            strict=True,
        )
    )
    assert float(values["Attention percentile"]) == pytest.approx(percent, rel=0.01)
    seen.until("document.getElementById('progress').textContent.startsWith('4 of 4 slides searched')")
    seen.settle()
    nearest = ask(f"/api/slides/north-01/nearest/{row}").document
    labels = [entry.get_attribute("aria-label") for entry in seen.page.locator("#nearest button").all()]
    assert [re.match(r"Tile (\d+) of ([\w-]+)", label or "").groups() for label in labels] == [  # pyright: ignore
        (str(hit["row"] + 1), hit["slide_id"]) for hit in nearest["nearest"]
    ]
    assert all("south" in text for text in seen.page.locator("#elsewhere button").all_inner_texts())
    hit = nearest["elsewhere"][0]
    seen.page.locator("#elsewhere button").first.click()
    seen.settle()
    assert seen.title().startswith(hit["slide_id"])
    assert seen.page.input_value("#value") == "similarity"
    assert f"tile {row + 1} of north-01" in seen.page.inner_text("#note")
    assert seen.page.inner_text("#tile-title") == f"Tile {row + 1} of north-01", "what was picked stays"
    seen.page.keyboard.press("t")
    seen.settle()
    assert seen.page.inner_text("#tile-title") == f"Tile {hit['row'] + 1} of {hit['slide_id']}", "it lies in the middle"
    seen.page.keyboard.press("Escape")
    assert not seen.page.locator("#panel").is_visible()
    assert seen.page.input_value("#value") == ""
    assert seen.heard == []


def test_glass_picks_nothing(browser: Any, ask: Asking) -> None:
    seen = Seen(browser, ask)
    seen.page.mouse.click(*seen.spot(20, 20))
    seen.settle()
    assert not seen.page.locator("#panel").is_visible()
    assert not seen.page.locator("#message").is_visible()
    assert seen.heard == []


def test_the_list_is_long_searched_and_walked_through_by_keys(browser: Any, ask: Asking) -> None:
    seen = Seen(browser, ask)
    page = seen.page
    assert page.inner_text("#count") == f"{MORE + 4} slides"
    assert page.locator(".row").count() < 40, "only those in sight exist"
    page.keyboard.press("j")
    seen.settle()
    assert seen.title() == "north-02 · north"
    page.keyboard.press("[")
    seen.settle()
    assert seen.title() == "north-01 · north"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("waiting 000")
    seen.until("document.getElementById('count').textContent.startsWith('10 of')")
    page.keyboard.press("Escape")
    page.locator("#text").fill("")
    seen.until("document.querySelectorAll('.row').length > 10")
    page.focus("#rows")
    page.keyboard.press("End")
    page.wait_for_selector(f".row[aria-posinset='{MORE + 4}']")
    page.keyboard.press("Enter")
    seen.settle()
    assert seen.title() == f"waiting-{MORE - 1:04d} · <b>east</b>", "a text, and no markup"
    assert page.inner_text("#message") == "Nothing to see yet: not yet."
    page.select_option("#state", "failed")
    seen.until("document.getElementById('count').textContent.startsWith('1 of')")
    page.locator(".row").click()
    seen.settle()
    assert "Failed (damaged): half a <i>file</i>. Copy it again." in page.inner_text("#message")
    page.click("#understood")
    assert not page.locator("#message").is_visible()
    assert page.locator("main b, main i").count() == 0
    assert seen.heard == []


def test_values_are_chosen_by_keys_and_stay_from_slide_to_slide(browser: Any, ask: Asking) -> None:
    seen = Seen(browser, ask, start="south-01")
    assert seen.title() == "south-01 · south", "the address names a slide"
    seen.page.keyboard.press("2")
    seen.settle()
    assert seen.page.input_value("#value") == "tissue"
    seen.page.keyboard.press("v")
    seen.settle()
    assert seen.page.input_value("#value") == "components"
    assert "Principal components" in seen.page.inner_text("#note")
    seen.page.keyboard.press("V")
    seen.settle()
    seen.page.keyboard.press("j")
    seen.settle()
    assert seen.title() == "south-02 · south"
    assert seen.page.input_value("#value") == "tissue"
    seen.page.keyboard.press("?")
    assert seen.page.get_by_role("dialog").is_visible()
    seen.page.keyboard.press("Escape")
    assert not seen.page.get_by_role("dialog").is_visible()
    assert seen.heard == []


def test_everything_has_a_name_and_the_focus_is_seen(browser: Any, ask: Asking) -> None:
    seen = Seen(browser, ask)
    seen.page.keyboard.press("t")
    seen.settle()
    nameless = seen.page.evaluate(_NAMELESS)
    assert nameless == []
    for _ in range(12):
        seen.page.keyboard.press("Tab")
        outline = seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen.page.evaluate("document.activeElement.outerHTML.slice(0, 100)")


def test_a_server_that_was_started_anew_is_told(browser: Any, ask: Asking) -> None:
    seen = Seen(browser, ask)
    seen.page.context.clear_cookies()
    seen.page.keyboard.press("j")
    seen.until("document.getElementById('message').textContent.includes('started anew')")
