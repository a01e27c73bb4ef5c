"""The viewer's server: who is let in, what is never given, and that it writes nothing and ends cleanly."""

import hashlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from tests.manual import DOCS, check_call, commands
from tests.views import Asking, serving, write_view
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.runfolder import list_slides
from wsi_lmc.viewer import ViewConfig, ViewServer
from wsi_lmc.viewer.handlers import load_static
from wsi_lmc.viewer.session import Session, is_from_here


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    return write_view(tmp_path_factory.mktemp("served"), small_cohort)


@pytest.fixture(scope="module")
def ask(run: Path) -> Iterator[Asking]:
    with serving(ViewConfig((run,))) as found:
        yield found


PATHS = (
    "/", "/static/viewer.js", "/api/slides", "/api/slides/north-01", "/api/slides/north-01/outline",
    "/api/slides/north-01/layers/tissue", "/api/slides/north-01/tiles/3", "/api/slides/north-01/tiles/?x=500&y=500",
    "/api/slides/north-01/nearest/3", "/pixels/north-01/11/0_0.jpg", "/pixels/north-01/tile-3.jpg",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_given_without_the_cookie_or_to_a_foreign_page(ask: Asking, path: str) -> None:
    port = ask.server.port
    assert ask(path).status == 200
    assert ask(path, cookie=False).status == 403
    assert ask(path, cookie=False, Cookie=f"{ask.server.session.cookie}=guessed").status == 403
    assert ask(path, Host=f"rebound.example:{port}").status == 403
    assert ask(path, Sec_Fetch_Site="cross-site").status == 403
    assert ask(path, Origin="http://elsewhere.example").status == 403
    assert ask(path, Host="localhost:8000", Sec_Fetch_Site="same-origin").status == 200, "through a tunnel"


@pytest.mark.parametrize("path", [*PATHS, "/none", "/api/slides/none"])
def test_every_answer_has_the_policy_and_is_not_kept(ask: Asking, path: str) -> None:
    for cookie in (True, False):
        headers = ask(path, cookie=cookie).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_key_is_exchanged_for_a_cookie_that_scripts_and_other_sites_do_not_get(ask: Asking) -> None:
    session = ask.server.session
    answer = ask(f"/?key={session.key}", cookie=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{session.cookie}={session.token};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert session.key not in cookie
    assert ask("/?key=wrong", cookie=False).status == 403
    assert ask(f"/api/slides?key={session.key}", cookie=False).status == 403


def test_a_ticket_opens_once(ask: Asking) -> None:
    ticket = ask.server.session.ticket()
    assert ask.server.ticket_url() != ask.server.url
    assert [ask(f"/?key={ticket}", cookie=False).status for _ in range(2)] == [303, 403]


def test_two_servers_have_different_keys_and_cookies() -> None:
    first, second = Session(), Session()
    assert len({first.key, second.key, first.token, second.token, first.cookie, second.cookie}) == 6
    assert len(first.key) >= 32


@pytest.mark.parametrize(
    ("host", "site", "origin", "fine"),
    [
        ("127.0.0.1:8000", None, None, True),
        ("LOCALHOST", "none", None, True),
        ("[::1]:80", "same-origin", "http://[::1]:80", True),
        ("[::1]", None, None, True),
        ("127.0.0.1.example:80", None, None, False),
        ("localhost.example", None, None, False),
        ("0.0.0.0:80", None, None, False),
        ("", None, None, False),
        ("localhost:80", "same-site", None, False),
        ("localhost:80", None, "null", False),
        ("localhost:80", None, "http://localhost:81", False),
    ],
)
def test_only_loopback_s_names_count(host: str, site: str | None, origin: str | None, fine: bool) -> None:
    assert is_from_here(host, site, origin) is fine


HOSTILE = (
    "/api/slides/..", "/api/slides/../../etc/passwd", "/api/slides/..%2f..%2fetc%2fpasswd", "/api/slides/%00",
    "/api/slides/north-01%00.svs", "/api/slides/north-01.zarr", "/api/slides/north-01/layers/../kept",
    "/api/slides/north-01/layers/none", "/api/slides/north-01/layers/similarity",
    "/api/slides/north-01/layers/similarity?slide=../north-01&row=1",
    "/api/slides/north-01/layers/similarity?slide=north-01&row=999999",
    "/api/slides/north-01/layers/score-0-7", "/api/slides/north-01/layers/score-9-0",
    "/api/slides/north-01/tiles/999999", "/api/slides/north-01/tiles/-1", "/api/slides/north-01/nearest/999999",
    "/pixels/north-01/11/9_0.jpg", "/pixels/north-01/12/0_0.jpg", "/pixels/north-01/99/0_0.jpg",
    "/pixels/none/0/0_0.jpg", "/pixels/north-01/tile-999999.jpg", "/static/../server.py", "/static/%2e%2e/server.py",
    "/static/openseadragon/../../server.py", "/static/viewer.html", "/manifest.csv", "/run.yaml", "/tiles/",
    "/static//etc/passwd", "//etc/passwd", "/label", "/macro", "/thumbnail", "/pixels/north-01/label.jpg",
    "/pixels/north-01/macro/0/0_0.jpg",
)  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_what_is_not_there_is_404_and_says_nothing_of_the_inside(ask: Asking, path: str, run: Path) -> None:
    answer = ask(path)
    assert answer.status == 404, answer.body
    assert set(answer.document) == {"error"}
    assert str(run).encode() not in answer.body
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize(
    "query", ["start=-1", "count=x", "start=1e9", "state=none", "sort=path", "start=99999999999999999999"]
)
def test_bad_questions_are_refused(ask: Asking, query: str) -> None:
    assert ask(f"/api/slides?{query}").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_questions_are_answered(ask: Asking, method: str) -> None:
    assert ask("/api/slides", method=method).status == 405


def test_no_path_of_a_slide_is_told_and_nothing_is_written(ask: Asking, run: Path, small_cohort: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")}
    for path in PATHS:
        body = ask(path).body
        for entry in list_slides(run):
            assert entry.path.name.encode() not in body
        assert str(small_cohort).encode() not in body
        assert str(run).encode() not in body
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")} == before


def test_a_store_that_cannot_be_read_is_said_in_one_line(
    ask: Asking, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    def torn(*_: object) -> None:
        raise StoreError(f"{run}/x: torn\r\nSet-Cookie: a=b", "intact chunks", "Embed ‘again’.")

    monkeypatch.setattr(ask.server.viewer, "layer", torn)
    answer = ask("/api/slides/north-01/layers/tissue")
    assert answer.status == 422
    assert answer.document == {"error": "Cannot be read: expected intact chunks. Embed ?again?."}
    assert "a=b" not in str(answer.headers)


def test_glass_has_no_tile_and_is_no_error(ask: Asking) -> None:
    assert ask("/api/slides/north-01/tiles/?x=1&y=1").document == {"slide_id": "north-01", "row": None}


def test_slow_values_stall_neither_pixels_nor_the_list(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = Event(), Event()

    def slow(*_: object) -> dict[str, object]:
        begun.set()
        assert go_on.wait(60)
        return {}

    monkeypatch.setattr(ask.server.viewer, "layer", slow)
    waiting = Thread(target=ask, args=("/api/slides/north-01/layers/tissue",))
    waiting.start()
    try:
        assert begun.wait(60)
        assert ask("/pixels/north-01/11/0_0.jpg").status == 200
        assert ask("/api/slides").status == 200
        assert waiting.is_alive()
    finally:
        go_on.set()
        waiting.join()


def test_the_page_s_files_are_there_and_load_nothing_from_elsewhere() -> None:
    static = load_static()
    assert {"viewer.html", "viewer.css", "viewer.js", "openseadragon/openseadragon.min.js"} <= set(static)
    for name, content in static.items():
        if not name.startswith("openseadragon/"):
            text = content.decode().replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text, name
            assert "https:" not in text, name
            assert "innerHTML" not in text, name
            assert "onclick" not in text, name


def test_openseadragon_is_the_release_that_its_readme_names() -> None:
    folder = files("wsi_lmc.viewer") / "static" / "openseadragon"
    stated = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (folder / "README.md").read_text()))
    assert set(stated) == {"openseadragon.min.js", "LICENSE.txt"}
    for name, digest in stated.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert (folder / "openseadragon.min.js").read_text().startswith("//! openseadragon 6.1.1\n")
    assert "Redistributions in binary form" in (folder / "LICENSE.txt").read_text()


def test_a_taken_port_and_no_run_are_usage_errors(run: Path, ask: Asking, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"port {ask.server.port}"):
        ViewServer(ViewConfig((run,)), ask.server.port)
    with pytest.raises(UsageError, match="no run in"):
        ViewServer(ViewConfig((tmp_path,)))
    with pytest.raises(UsageError, match="no features in"):
        ViewServer(ViewConfig((run,), features=(tmp_path,)))
    with pytest.raises(UsageError, match=r"no scores\.json"):
        ViewServer(ViewConfig((run,), classifications=(tmp_path,)))


def test_commands_of_the_manual_are_understood() -> None:
    """Those of viewer.md go on until they are interrupted; what they start is what the next test starts."""
    calls = [shlex.split(line)[1:] for line in commands(DOCS / "viewer.md") if line.startswith("wsi-lmc ")]
    assert len(calls) > 3
    for call in calls:
        check_call(call)


def test_the_command_prints_its_address_listens_on_loopback_and_ends_when_told(run: Path) -> None:
    # Whoever starts tests in the background may have Ctrl-C ignored by all that they start.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    begin = f"{heard}; from wsi_lmc.cli import main; main()"
    words = [sys.executable, "-c", begin, "view", str(run), "--no-browser"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?key=[\w-]{32}", line)
        listening = psutil.Process(process.pid).net_connections(kind="inet")
        assert {each.laddr.ip for each in listening if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()
