"""One slide as it is looked at: its files, tiles and picture; opened when asked for, closed when others are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import SlideError, StoreError
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.tilestore import TileStore
from wsi_lmc.viewer.caching import Cache, Shelf
from wsi_lmc.viewer.library import Library, SlideRow
from wsi_lmc.viewer.pictures import Picture, StoredPicture, open_picture
from wsi_lmc.viewer.places import Files, Places
from wsi_lmc.viewer.tiles import Tiles, tiles_of

_OPEN_PICTURES = 6
_TABLES_BYTES = 256 << 20
_BYTES_A_TILE = 64


class UnknownError(Exception):
    """What was asked for is not there: no such slide, tile, piece or value."""


@dataclass(frozen=True, eq=False)  # one is itself alone: what is kept of it has it for a key
class Sight:
    """A slide and what there is of it; ``cut`` are tiles of its tile store, ``featured`` those that have features.

    ``damaged`` names stores that are there and cannot be read.
    """

    row: SlideRow
    entry: SlideEntry | None
    files: Files
    cut: Tiles | None
    featured: Tiles | None
    damaged: tuple[str, ...] = ()

    @property
    def tiles(self) -> Tiles | None:
        """The tiles that rows are numbers of: those with features, where there are any."""
        return self.featured if self.featured is not None else self.cut

    @property
    def table(self) -> Tiles:
        """The same; raises UnknownError where there are none."""
        return _needed(self.tiles, self.row.slide_id)

    @property
    def features(self) -> Path:
        """The store of features; raises UnknownError where there is none."""
        return _needed(self.files.features, self.row.slide_id)


class Sights:
    """Slides of a library, for several threads."""

    def __init__(self, library: Library, places: Places) -> None:
        self._library, self._places = library, places
        self._sights: Cache[object, Sight] = Cache(_TABLES_BYTES, _weight)
        self._pictures: Shelf[object, Picture] = Shelf(_OPEN_PICTURES, lambda picture: picture.close())

    def of(self, slide_id: str) -> Sight:
        """A slide by its id.

        Raises:
            UnknownError: the library has none of this id.
        """
        found = self._library.find(slide_id)
        if found is None:
            raise UnknownError(slide_id)
        row, entry = found
        files = self._places.of(row)
        key = (row, _version(files.tiles), _version(files.features), files)
        return self._sights.get(key, lambda: _sight(row, entry, files))

    @contextmanager
    def picture(self, sight: Sight) -> Iterator[Picture]:
        """What lies under a slide's tiles, for this thread alone while the context lasts.

        Raises:
            UnknownError: there is neither a file that can be opened nor anything stored of it.
        """
        key = (sight.row.slide_id, _version(sight.files.tiles), _version(sight.files.features))
        with self._pictures.borrow(key, lambda: _open(sight)) as picture:
            yield picture

    def close(self) -> None:
        """Close pictures that are open."""
        self._pictures.close()


def _needed[T](found: T | None, name: str) -> T:
    if found is None:
        raise UnknownError(name)
    return found


def _sight(row: SlideRow, entry: SlideEntry | None, files: Files) -> Sight:
    damaged: list[str] = []
    found: list[Tiles | None] = []
    for path, kind, name in ((files.tiles, TileStore, "tiles"), (files.features, FeatureStore, "features")):
        try:
            found.append(None if path is None else tiles_of(kind.open(path)))
        except (StoreError, KeyError, TypeError, ValueError):
            found.append(None)
            damaged.append(name)
    return Sight(row, entry, files, found[0], found[1], tuple(damaged))


def _open(sight: Sight) -> Picture:
    tiles, entry = sight.cut or sight.featured, sight.entry
    if entry is not None and not entry.hidden and not (tiles is not None and tiles.sheet):
        try:
            return open_picture(entry, tiles)
        except SlideError:
            if tiles is None:
                raise UnknownError(sight.row.slide_id) from None
    if tiles is None:
        raise UnknownError(sight.row.slide_id)
    store = TileStore.open(sight.files.tiles) if sight.files.tiles is not None and sight.cut is not None else None
    return StoredPicture(tiles, store, sight.files.overview)


def _version(path: Path | None) -> int:
    """When a store was sealed; 0 where it is not there."""
    try:
        return 0 if path is None else (path / "zarr.json").stat().st_mtime_ns
    except OSError:
        return 0


def _weight(sight: Sight) -> int:
    return _BYTES_A_TILE * sum(len(tiles) for tiles in (sight.cut, sight.featured) if tiles is not None) + 4096
