"""Where a slide's files lie. Paths are made of ids that the library knows, never of what a request says."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from wsi_lmc.errors import UsageError
from wsi_lmc.runfolder import requests
from wsi_lmc.viewer.library import Library, SlideRow


@dataclass(frozen=True)
class Files:
    """A slide's files as far as they exist; ``features`` and ``tiles`` are stores."""

    tiles: Path | None
    features: Path | None
    contour: Path | None
    overview: Path | None
    labels: Path | None


class Places:
    """Finds slides' files in their run folders, and features elsewhere where some were named."""

    def __init__(self, library: Library, features: Sequence[Path] = ()) -> None:
        """Note where to look.

        Raises:
            UsageError: a folder of features that holds none.
        """
        self._library = library
        self._given = tuple(folder / "features" if (folder / "features").is_dir() else folder for folder in features)
        for folder in self._given:
            if not any(folder.glob("*.zarr")):
                raise UsageError(f"no features in {folder}", "a run folder that embed wrote", "Check --features.")
        self._lock = Lock()
        self._homes: dict[int, Mapping[str, Path]] = {}

    def of(self, row: SlideRow) -> Files:
        """The files of a slide of the library."""
        run, home, name = self._library.runs[row.run], self._home(row), row.slide_id
        folders = self._given or (run / "features",)
        return Files(
            _first(folder / "tiles" / f"{name}.zarr" for folder in (run, home)),
            _first(folder / f"{name}.zarr" for folder in folders),
            _first(folder / "contours" / f"{name}.geojson" for folder in (run, home)),
            _first(folder / "overviews" / f"{name}.jpg" for folder in (run, home)),
            _first(folder / "labels" / f"{name}.csv" for folder in (run, home)),
        )

    def features(self) -> list[tuple[SlideRow, Path]]:
        """Every slide that has features, with their store, by id; a listing a folder, however many slides."""
        folders = self._given or tuple(run / "features" for run in self._library.runs)
        stores: dict[str, Path] = {}
        for folder in folders:
            if folder.is_dir():
                with os.scandir(folder) as found:
                    for each in found:
                        if each.name.endswith(".zarr"):
                            stores.setdefault(each.name.removesuffix(".zarr"), Path(each.path))
        return [(row, stores[row.slide_id]) for row in self._library.all() if row.slide_id in stores]

    def _home(self, row: SlideRow) -> Path:
        """The run folder where a slide was tiled, as ``embed`` was asked for it; its own where that says nothing."""
        run = self._library.runs[row.run]
        with self._lock:
            if row.run not in self._homes:
                homes: dict[str, Path] = {}
                for request in requests(run, "embed"):
                    for slide_id, store in request.stores.items():
                        homes.setdefault(slide_id, (run / store).parent.parent)
                self._homes[row.run] = homes
            return self._homes[row.run].get(row.slide_id, run)


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)
