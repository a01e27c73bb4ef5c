"""What the page asks for, as documents and pictures: slides, pieces of their pyramids, values, nearest tiles."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from wsi_lmc.codes import MEANINGS
from wsi_lmc.discretion import Discretion
from wsi_lmc.tilestore import TileStore, Validity
from wsi_lmc.viewer.blocks import FeatureBlocks
from wsi_lmc.viewer.caching import Cache
from wsi_lmc.viewer.library import Library, Query
from wsi_lmc.viewer.nearest import Found, Hit, Search, Source, Wanted
from wsi_lmc.viewer.outline import read_outline
from wsi_lmc.viewer.pictures import TILE_PX, levels_of, piece_of, to_jpeg
from wsi_lmc.viewer.places import Places
from wsi_lmc.viewer.scores import find_classifications
from wsi_lmc.viewer.sights import Sight, Sights, UnknownError
from wsi_lmc.viewer.tiles import Area
from wsi_lmc.viewer.values import Values

MOST_ROWS = 500
"""Of the list, in one answer."""
_PIECES_BYTES = 128 << 20
_THUMBNAIL_PX = 160
_SEARCHES = 2  # that go on beside each other: of two windows, say; one more stops the oldest
_LONGEST_BLOCK_S = 5.0


@dataclass(frozen=True)
class ViewConfig:
    """What is viewed: run folders; folders of features and of ``classify``, where they lie elsewhere."""

    runs: tuple[Path, ...]
    features: tuple[Path, ...] = ()
    classifications: tuple[Path, ...] = ()


class Viewer:
    """Answers the page's questions; for several threads. Paths are made of known ids alone."""

    def __init__(self, config: ViewConfig) -> None:
        """Read the list of slides.

        Raises:
            UsageError: a folder is not what it was named as.
        """
        self._library = Library(config.runs)
        self._places = Places(self._library, config.features)
        self._classifications = find_classifications(config.runs, config.classifications)
        self._blocks = FeatureBlocks()
        self._sights = Sights(self._library, self._places)
        self.values = Values(self._sights, self._places, self._blocks, self._classifications)
        self._pieces: Cache[object, bytes] = Cache(_PIECES_BYTES, len)
        self._searches: OrderedDict[Wanted, Search] = OrderedDict()
        self._lock = Lock()

    def slides(self, query: Query) -> dict[str, Any]:
        """A part of the list."""
        page = self._library.page(query)
        shown = ("slide_id", "state", "stage", "code", "tiles", "site", "label")
        rows = [{name: getattr(row, name) for name in shown} for row in page.rows]
        return {"slides": rows, "start": page.start, "total": page.total, "of": page.of, "states": dict(page.states)}

    def slide(self, slide_id: str) -> dict[str, Any]:
        """All about a slide that is a matter of a glance.

        Raises:
            UnknownError: no such slide.
        """
        sight = self._sights.of(slide_id)
        row, tiles = sight.row, sight.tiles
        shown = ("slide_id", "state", "stage", "code", "tiles", "site", "label", "patient")
        document: dict[str, Any] = {name: getattr(row, name) for name in shown}
        document |= {"failure": _failure(sight), "damaged": list(sight.damaged), "tile": None}
        if tiles is not None:
            document["tile"] = {"px": tiles.px, "width": tiles.footprint[0], "height": tiles.footprint[1]}
        try:
            with self._sights.picture(sight) as picture:
                width, height = picture.size
                document["picture"] = {
                    "kind": picture.kind, "width": width, "height": height, "mpp": picture.mpp,
                    "side": TILE_PX, "levels": levels_of(picture.size),
                }  # fmt: skip
        except UnknownError:
            document["picture"] = None
        document["values"] = [asdict(offer) for offer in self.values.offers(sight)]
        document["outline"] = sight.files.contour is not None and tiles is not None and not tiles.sheet
        return document

    def outline(self, slide_id: str) -> dict[str, Any]:
        """The tissue's outline, as polygons of rings of x, y in level-0 pixels.

        Raises:
            UnknownError: no such slide, or none is known of it.
        """
        sight = self._sights.of(slide_id)
        tiles = sight.cut or sight.featured
        if sight.files.contour is None or tiles is None or tiles.sheet:
            raise UnknownError(slide_id)
        return {"polygons": read_outline(sight.files.contour, tiles.bounds)}

    def piece(self, slide_id: str, level: int, column: int, row: int) -> bytes:
        """A piece of a slide's pyramid, as JPEG.

        Raises:
            UnknownError: no such slide or piece.
        """
        sight = self._sights.of(slide_id)
        return self._pieces.get((sight, level, column, row), lambda: self._read_piece(sight, level, column, row))

    def layer(self, slide_id: str, name: str, to: tuple[str, int] | None) -> dict[str, Any]:
        """A value of a slide's tiles as a picture with its legend.

        Raises:
            UnknownError: no such slide, value or tile.
            WsiLmcError: what it is made of cannot be read.
        """
        return self.values.layer(self._sights.of(slide_id), name, to).document()

    def tile_at(self, slide_id: str, x: float, y: float) -> dict[str, Any]:
        """The tile at a place in level-0 pixels; its ``row`` is None where there is only glass.

        Raises:
            UnknownError: no such slide, or it has no tiles.
        """
        row = self._sights.of(slide_id).table.row_at(x, y)
        return {"slide_id": slide_id, "row": None} if row is None else self.tile(slide_id, row)

    def tile(self, slide_id: str, row: int) -> dict[str, Any]:
        """What is known of a tile.

        Raises:
            UnknownError: no such slide or tile.
        """
        sight = self._sights.of(slide_id)
        area = _area_of(sight, row)
        valid = Validity(int(sight.table.valid[row])).name.lower()
        values = [{"title": title, "value": value} for title, value in self.values.at(sight, row)]
        searchable = sight.featured is not None and valid != Validity.UNREADABLE.name.lower()
        return {
            "slide_id": slide_id, "row": row, "of": len(sight.table), "valid": valid, "values": values,
            "area": [area.x, area.y, area.width, area.height], "searchable": searchable,
        }  # fmt: skip

    def tile_picture(self, slide_id: str, row: int) -> bytes:
        """A tile's pixels as JPEG: stored ones, or else the slide's.

        Raises:
            UnknownError: no such slide or tile, or nothing to take its pixels from.
            WsiLmcError: they cannot be read.
        """
        sight = self._sights.of(slide_id)
        area = _area_of(sight, row)
        return self._pieces.get((sight, row), lambda: self._read_tile(sight, row, area))

    def nearest(self, slide_id: str, row: int) -> dict[str, Any]:
        """The tiles most like one, as far as they are known: a search begins when it is first asked for.

        Raises:
            UnknownError: no such slide, or no such tile with features.
        """
        sight = self._sights.of(slide_id)
        if sight.featured is None or not 0 <= row < len(sight.featured):
            raise UnknownError(slide_id)
        wanted = Wanted(slide_id, row, sight.row.site)
        with self._lock:
            if wanted not in self._searches:
                while len(self._searches) >= _SEARCHES:
                    self._searches.popitem(last=False)[1].stop()
                sources = [Source(each.slide_id, each.site, path) for each, path in self._places.features()]
                self._searches[wanted] = Search(self._blocks, wanted, sources, sight.features)
                self._searches[wanted].start()
            self._searches.move_to_end(wanted)
            found = self._searches[wanted].found()
        return _found_document(found)

    def close(self) -> None:
        """End what is going on, close what is open."""
        with self._lock:
            for search in self._searches.values():
                search.stop()
            for search in self._searches.values():
                search.join(_LONGEST_BLOCK_S)
        self._sights.close()

    def _read_piece(self, sight: Sight, level: int, column: int, row: int) -> bytes:
        with self._sights.picture(sight) as picture:
            piece = piece_of(picture.size, level, column, row)
            if piece is None:
                raise UnknownError(sight.row.slide_id)
            return to_jpeg(picture.read(*piece))

    def _read_tile(self, sight: Sight, row: int, area: Area) -> bytes:
        side = min(_THUMBNAIL_PX, max(1, round(area.width)))
        if sight.cut is not None and sight.files.tiles is not None:
            own = row if sight.table is sight.cut else sight.cut.row_of(*sight.table.origins[row].tolist())
            if own is not None:
                pixels = TileStore.open(sight.files.tiles).read(np.asarray([own]))[0]
                return to_jpeg(pixels)
        with self._sights.picture(sight) as picture:
            return to_jpeg(picture.read(area, (side, max(1, round(side * area.height / area.width)))))


def _area_of(sight: Sight, row: int) -> Area:
    if not 0 <= row < len(sight.table):
        raise UnknownError(sight.row.slide_id)
    return sight.table.box(row)


def _failure(sight: Sight) -> dict[str, str] | None:
    """Why a slide failed, as it may be told, and what its code means."""
    row = sight.row
    if row.state != "failed":
        return None
    say = Discretion(sight.entry) if sight.entry is not None else str
    meaning = next((meaning for code, meaning in MEANINGS.items() if code == row.code), None)
    told = {"code": row.code, "reason": say(row.reason), "remedy": say(row.remedy)}
    return told | {"means": meaning.found.replace("`", "'") if meaning else ""}


def _found_document(found: Found) -> dict[str, Any]:
    def listed(hits: Sequence[Hit]) -> list[dict[str, Any]]:
        return [asdict(hit) for hit in hits]

    return {
        "slide_id": found.wanted.slide_id, "row": found.wanted.row, "site": found.wanted.site,
        "looked": found.looked, "of": found.of, "skipped": found.skipped, "done": found.done,
        "nearest": listed(found.nearest), "elsewhere": listed(found.elsewhere),
    }  # fmt: skip
