"""The answers of the viewer's server: who asks is checked first; what takes time is done in threads, beside the loop.

Nothing of a request becomes a path: slides are looked up by their ids, files of the page by their names.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from wsi_lmc.errors import WsiLmcError
from wsi_lmc.viewer.library import Query
from wsi_lmc.viewer.session import HEADERS, Session, is_from_here
from wsi_lmc.viewer.sights import UnknownError
from wsi_lmc.viewer.viewing import MOST_ROWS, Viewer

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain", "md": "text/plain"}
_ID = r"([A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
_STATES = frozenset({"", "done", "empty", "failed", "skipped", "not yet"})
_SORTS = frozenset({"slide_id", "state", "site", "label", "tiles"})
_LONGEST_TEXT = 200
_PAGE = "viewer.html"


@dataclass(frozen=True)
class Desk:
    """What the answers are made with: ``eyes`` read pixels, ``minds`` compute values."""

    viewer: Viewer
    session: Session
    eyes: Executor
    minds: Executor
    static: Mapping[str, bytes]


class Guarded(RequestHandler):
    """Nobody but this server's own page gets anything, and nothing is kept by a browser."""

    def initialize(self, desk: Desk) -> None:
        """Take what answers are made with."""
        self.desk = desk

    def set_default_headers(self) -> None:
        """Policies that every answer has, errors too."""
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def prepare(self) -> None:
        """Refuse foreign names, foreign pages, and whoever has no cookie."""
        headers = self.request.headers
        if not is_from_here(self.request.host, headers.get("Sec-Fetch-Site"), headers.get("Origin")):
            raise HTTPError(403, reason="Asked by a foreign name or page")
        if not self.is_open() and not self.desk.session.knows(self.get_cookie(self.desk.session.cookie)):
            raise HTTPError(403, reason="Open the address that wsi-lmc view printed")

    def is_open(self) -> bool:
        """Whether this is answered without a cookie."""
        return False

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ANN401  as tornado has it
        """Errors as JSON, without a trace of the inside."""
        del kwargs
        self.answer({"error": self._reason or str(status_code)})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:  # noqa: ANN401  as tornado has it
        """Say what nobody foresaw, but not that a browser did not wait for its answer."""
        if not isinstance(value, StreamClosedError):
            super().log_exception(typ, value, tb)

    def answer(self, document: Mapping[str, Any]) -> None:
        """Give JSON; what is no number (NaN) is null there."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document, allow_nan=False, separators=(",", ":")))

    async def beside[T](self, executor: Executor, work: Callable[[], T]) -> T:
        """Do something in a thread; what is not there is 404, what cannot be read 422, with the reason."""
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except UnknownError as error:
            raise HTTPError(404, reason="No such thing here") from error
        except WsiLmcError as error:
            raise HTTPError(422, reason=_told(error)) from error

    def number(self, name: str, default: int) -> int:
        """A whole number of the query."""
        text = self.get_query_argument(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise HTTPError(400, reason=f"{name} must be a whole number")
        return int(text)


class PageHandler(Guarded):
    """The page; and the exchange of the key for a cookie."""

    def is_open(self) -> bool:
        """With a key that is right."""
        return self.desk.session.opens(self.get_query_argument("key", ""))

    def get(self) -> None:
        """Give the page, or the cookie and the page's own address, which has no key in it."""
        session = self.desk.session
        if self.get_query_argument("key", None) is not None:
            self.set_cookie(session.cookie, session.token, path="/", httponly=True, samesite="Strict")
            self.redirect("/", status=303)
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.desk.static[_PAGE])


class StaticHandler(Guarded):
    """Files of the page: those that were there when the server began, by their names."""

    def get(self, name: str) -> None:
        """Give one."""
        content = self.desk.static.get(name)
        if content is None or name == _PAGE:
            raise HTTPError(404)
        self.set_header("Content-Type", f"{_TYPES[name.rsplit('.', 1)[-1]]}; charset=utf-8")
        self.finish(content)


class SlidesHandler(Guarded):
    """The list of slides."""

    async def get(self) -> None:
        """Give a part of it."""
        state, sort = self.get_query_argument("state", ""), self.get_query_argument("sort", "slide_id")
        if state not in _STATES or sort not in _SORTS:
            raise HTTPError(400, reason="No such state or order")
        count = min(self.number("count", 200), MOST_ROWS)
        text = self.get_query_argument("text", "")[:_LONGEST_TEXT]
        query = Query(text, state, sort, self.number("start", 0), count)
        self.answer(await self.beside(self.desk.minds, partial(self.desk.viewer.slides, query)))


class SlideHandler(Guarded):
    """One slide: what is known of it, or its outline."""

    async def get(self, slide_id: str, what: str) -> None:
        """Give it."""
        viewer = self.desk.viewer
        ask = viewer.outline if what else viewer.slide
        self.answer(await self.beside(self.desk.eyes, partial(ask, slide_id)))


class PieceHandler(Guarded):
    """Pixels of a slide."""

    async def get(self, slide_id: str, level: str, column: str, row: str) -> None:
        """Give a piece of its pyramid."""
        work = partial(self.desk.viewer.piece, slide_id, int(level), int(column), int(row))
        await _give_jpeg(self, work)


class LayerHandler(Guarded):
    """A value of a slide's tiles."""

    async def get(self, slide_id: str, name: str) -> None:
        """Give it as a picture with its legend."""
        to_slide = self.get_query_argument("slide", "")
        to = (to_slide, self.number("row", 0)) if to_slide else None
        work = partial(self.desk.viewer.layer, slide_id, name, to)
        self.answer(await self.beside(self.desk.minds, work))


class TileHandler(Guarded):
    """A tile, by its row or by a place."""

    async def get(self, slide_id: str, row: str) -> None:
        """Give what is known of it."""
        if row:
            work = partial(self.desk.viewer.tile, slide_id, int(row))
        else:
            work = partial(self.desk.viewer.tile_at, slide_id, self.number("x", 0), self.number("y", 0))
        self.answer(await self.beside(self.desk.minds, work))


class TilePictureHandler(Guarded):
    """A tile's pixels."""

    async def get(self, slide_id: str, row: str) -> None:
        """Give them."""
        await _give_jpeg(self, partial(self.desk.viewer.tile_picture, slide_id, int(row)))


class NearestHandler(Guarded):
    """The tiles most like one: asked for again and again until all slides have been looked through."""

    async def get(self, slide_id: str, row: str) -> None:
        """Begin, if nobody has, and give what has been found so far."""
        self.answer(await self.beside(self.desk.minds, partial(self.desk.viewer.nearest, slide_id, int(row))))


ROUTES: tuple[tuple[str, type[Guarded]], ...] = (
    (r"/", PageHandler),
    (r"/static/([a-z0-9./-]{1,80})", StaticHandler),
    (r"/api/slides", SlidesHandler),
    (rf"/api/slides/{_ID}(/outline|)", SlideHandler),
    (rf"/api/slides/{_ID}/layers/([a-z0-9-]{{1,40}})", LayerHandler),
    (rf"/api/slides/{_ID}/tiles/([0-9]{{1,9}}|)", TileHandler),
    (rf"/api/slides/{_ID}/nearest/([0-9]{{1,9}})", NearestHandler),
    (rf"/pixels/{_ID}/([0-9]{{1,2}})/([0-9]{{1,7}})_([0-9]{{1,7}})\.jpg", PieceHandler),
    (rf"/pixels/{_ID}/tile-([0-9]{{1,9}})\.jpg", TilePictureHandler),
)


class MissingHandler(Guarded):
    """Everything else."""

    def prepare(self) -> None:
        """There is nothing here, for nobody."""
        super().prepare()
        raise HTTPError(404)


def load_static() -> dict[str, bytes]:
    """The page's own files, by their names below ``static/``."""
    folder = files("wsi_lmc.viewer") / "static"
    found = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    vendored = folder / "openseadragon"
    return found | {f"openseadragon/{each.name}": each.read_bytes() for each in vendored.iterdir() if each.is_file()}


async def _give_jpeg(handler: Guarded, work: Callable[[], bytes]) -> None:
    content = await handler.beside(handler.desk.eyes, work)
    handler.set_header("Content-Type", "image/jpeg")
    handler.finish(content)


def _told(error: WsiLmcError) -> str:
    """What an error says in a header's one line, without paths: its remedy, and what was expected."""
    text = f"Cannot be read: expected {error.expected}. {error.remedy}"
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text)[:300]
