"""The page tells what there is, escapes what others wrote, loads nothing, and betrays no place and no name."""

import getpass
import json
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.reports import (
    ATTRIBUTE,
    HOSTILE,
    PRIVATE,
    an_evaluation,
    write_evaluation_documents,
    write_everything,
    write_run,
    write_scores,
    write_study,
)
from wsi_lmc.codes import MEANINGS
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import METRICS, Gain
from wsi_lmc.featurestore import write_features
from wsi_lmc.report import ReportConfig, build_report, write_report
from wsi_lmc.report.blocks import cell, table
from wsi_lmc.report.evaluations import verdict
from wsi_lmc.tilestore import TileRows

_VOID = {"meta", "link", "img", "br", "input"}
_CSS = (Path(__file__).resolve().parents[1] / "wsi_lmc" / "report" / "templates" / "page.css").read_text()


class Page(HTMLParser):
    """Tags with their attributes, texts, and whether every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    def all(self, *names: str) -> list[dict[str, str]]:
        return [values for tag, values in self.tags if tag in names]

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of everything, and its page."""
    folder = write_everything(tmp_path_factory.mktemp("runs") / "run")
    return folder, build_report([folder], ReportConfig("A title & more"))


def test_all_that_is_there_is_told(everything: tuple[Path, str]) -> None:
    page = Page(everything[1])
    titles = [
        *("What and when", "Slides", "Failures", "Overviews", "Training", "Evaluation"),
        *("Classification", "Study", "Settings"),
    ]
    anchors = [values["href"] for values in page.all("a")]
    assert all(f"#{title.split()[-1].lower()}" in anchors or title in page.text for title in titles)
    assert "A title & more" in page.text
    assert "6 slides of 2 sites, 1 training, 1 evaluation, 1 classification, 1 study" in page.text
    assert METRICS["site_auroc"].reading in page.text
    assert "0.700 [0.600, 0.800] floor 0.300" in page.text
    assert f"{ATTRIBUTE} is ahead" in page.text
    assert MEANINGS["not_a_slide"].remedy in page.text
    assert "lmc is ahead" in page.text
    assert "SHA-256 abababababab…" in page.text
    assert page.open == []


def test_features_of_normalised_tiles_are_said_to_be(tmp_path: Path) -> None:
    write_run(tmp_path)
    rows = TileRows(np.zeros((2, 2), np.int32), np.ones(2, np.float32), np.zeros(2, np.uint8))
    (tmp_path / "features").mkdir()
    for slide_id, how in (("slide-0", "macenko"), ("slide-1", "none")):
        encoder = {"name": "demo", "sha256": "cd" * 32, "mode": "none", "architecture": "vit-demo", "normalised": how}
        attributes = {"slide": {"id": slide_id}, "encoder": encoder}
        write_features(tmp_path / "features" / f"{slide_id}.zarr", np.zeros((2, 3), np.float32), rows, attributes)
    page = Page(build_report([tmp_path], ReportConfig()))
    assert page.text.count("tiles normalised by macenko") == 1


def test_what_others_wrote_is_text(everything: tuple[Path, str]) -> None:
    page = Page(everything[1])
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    assert HOSTILE in page.text
    assert ATTRIBUTE in page.text
    assert not any(values.get("src") == "x" for values in page.all("img"))
    assert "$x^$" in page.text, "no mathematics"
    assert "_tumour" in page.text


def test_nothing_is_loaded(everything: tuple[Path, str]) -> None:
    page = Page(everything[1])
    policy = next(values["content"] for values in page.all("meta") if "http-equiv" in values)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    for tag, values in page.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            assert values.get(name, "#").startswith(("#", "data:")), (tag, values)
    assert "url(" not in _CSS
    assert "@import" not in _CSS
    assert not re.search(r"url\((?!#)", everything[1])


def test_no_place_and_no_name_is_betrayed(everything: tuple[Path, str]) -> None:
    folder, text = everything
    assert str(folder) not in text
    assert str(folder.parent) not in text
    assert f"/{PRIVATE}" not in text
    assert f"{PRIVATE}/" not in text
    assert "10.1.2.3" not in text
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in text
    assert f"/{getpass.getuser()}/" not in text
    assert "(a file)" in text, "a reference is given, and not named"


def test_of_hidden_slides_pseudonyms_alone_are_told(tmp_path: Path) -> None:
    text = build_report([write_run(tmp_path / "run", hidden=True)], ReportConfig())
    assert PRIVATE not in text
    assert "slide-3" in text
    assert "pseudonyms" in text


def test_it_can_be_read_without_seeing_it(everything: tuple[Path, str]) -> None:
    page = Page(everything[1])
    assert page.tags[0] == ("html", {"lang": "en"})
    assert all(values.get("alt") for values in page.all("img"))
    pictures = page.all("svg")
    assert len(pictures) >= 8
    assert all(values.get("role") == "img" and values.get("aria-label") for values in pictures)
    assert all(values.get("scope") in ("col", "row") for values in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    names = [values["id"] for _, values in page.tags if "id" in values]
    assert len(names) == len(set(names))
    inside = {values["href"][1:] for values in page.all("a", "use") if values.get("href", "").startswith("#")}
    assert inside <= set(names)
    clips = set(re.findall(r"url\(#([^)]+)\)", everything[1]))
    assert clips <= set(names)


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_can_be_told_from_the_page(scheme: int) -> None:
    """WCAG 2.2: 4.5 for text, 3 for lines of pictures."""
    block = re.findall(r":root \{(.*?)\}", _CSS, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for name in ("text", "muted", "link"):
        for ground in ("page", "raised"):
            assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for colour in ("#0072b2", "#d55e00", "#808080"):
        assert _contrast(colour, colours["page"]) >= 3.0, colour


def _contrast(one: str, other: str) -> float:
    shades = sorted(_luminance(colour) for colour in (one, other))
    return (shades[1] + 0.05) / (shades[0] + 0.05)


def _luminance(colour: str) -> float:
    parts = np.asarray([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_long_tables_and_many_overviews_are_cut_with_a_statement(tmp_path: Path) -> None:
    text = build_report([write_run(tmp_path / "run", slides=30)], ReportConfig(rows=14, overviews=4))
    page = Page(text)
    assert "The first 14 of 30 rows." in page.text
    assert "the first 4 of 29, by sites" in page.text
    assert len(page.all("img")) == 4
    assert len(page.all("details")) == 2 + 1, "the slides and two stages' settings"
    first = [values["alt"].split()[3] for values in page.all("img")]
    assert first == ["slide-0", "slide-1", "slide-10", "slide-11"], "both sites"


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    folder = write_everything(tmp_path / "run")
    (folder / "evaluation" / "evaluation.json").write_text("{")
    (folder / "evaluation" / "planes.json").write_text("[]")
    (folder / "classification" / "scores.json").write_text('{"schema": "wsi-lmc/classification", "sites": [{}]}')
    (folder / "study" / "results.json").write_text('{"schema": "wsi-lmc/study", "rows": []}')
    (folder / "checkpoint" / "provenance.json").write_text("[1]")
    (folder / "checkpoint" / "metrics.jsonl").write_text('{"step": 1, "invariance": "x"}\n{"st')
    (folder / "run.yaml").write_text("{")
    (folder / "overviews" / "slide-0.jpg").write_bytes(b"no picture")
    page = Page(build_report([folder], ReportConfig()))
    assert "This evaluation cannot be read" in page.text
    assert "These scores cannot be read" in page.text
    assert "These results cannot be read" in page.text
    assert "not ended" in page.text


def test_parts_may_lie_anywhere(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    places = [tmp_path / "run", *(make(tmp_path / name) for make, name in _PARTS)]
    page = Page(build_report(places, ReportConfig()))
    assert "1 evaluation, 1 classification, 1 study" in page.text
    alone = Page(build_report([tmp_path / "e"], ReportConfig()))
    assert "Slides by site" not in alone.text


_PARTS = ((write_evaluation_documents, "e"), (write_scores, "c"), (write_study, "s"))


@pytest.mark.parametrize("name", ["absent", "nothing"])
def test_nothing_to_report_on_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match=r"no folder|nothing to report on"):
        build_report([tmp_path / name], ReportConfig())


def test_the_page_is_published(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    first = write_report([folder], folder / "report.html").read_bytes()
    assert write_report([folder], folder / "report.html").read_bytes() == first, "equal input, equal bytes"
    with pytest.raises(UsageError, match="cannot write"):
        write_report([folder], folder / "no" / "report.html")


def test_the_command_writes_the_page_into_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    words = [sys.executable, "-m", "wsi_lmc", "report", str(folder), "--title", "Ours", "--overviews", "1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(folder / "report.html") in done.stdout
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 1
    assert page.text.startswith("Ours")


def test_a_difference_in_words() -> None:
    def said(low: float | None, high: float | None) -> str:
        return verdict(Gain("transfer_auroc", "A", "B", (), 0.1, low, high))

    assert said(0.01, 0.2) == "A is ahead"
    assert said(-0.2, -0.01) == "A is behind"
    assert said(-0.1, 0.2).startswith("not told apart")
    assert said(None, None).startswith("not known")
    assert an_evaluation().gain_over("plain", "transfer_auroc") is not None


def test_cells_and_tables() -> None:
    assert (cell(1234).text, cell(0.5).text, cell(None).text, cell(True).text) == ("1,234", "0.5", "", "yes")
    cut = table("caption", ("a",), [(1,), (2,)], of=5)
    assert cut.statement == "The first 2 of 5 rows."
    assert not table("caption", ("a",), [(1,)]).statement


def test_documents_round_trip(tmp_path: Path) -> None:
    from wsi_lmc.evaluation.reading import read_evaluation, read_planes

    folder = write_evaluation_documents(tmp_path / "evaluation")
    assert read_evaluation(folder) == an_evaluation()
    planes = read_planes(folder)
    assert [plane.name for plane in planes] == ["plain", ATTRIBUTE]
    document = json.loads((folder / "planes.json").read_text())
    document["sets"][0]["site"][0] = 7
    (folder / "planes.json").write_text(json.dumps(document))
    assert read_planes(folder) == ()
