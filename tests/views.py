"""Runs to look at, and a viewer's server that answers in a thread, asked over HTTP as a browser would.

Tiles are cut for real; features are made up, so that they need no network, and it is known which are alike.
"""

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from tests.reports import write_scores
from wsi_lmc.cohort import find_slides
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featurestore import write_features
from wsi_lmc.grid import GridConfig
from wsi_lmc.heads.maps import Place, TileMap, to_geojson
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.viewer import ViewConfig, ViewServer

DIM = 12
ENCODER = {"name": "made up", "sha256": "ab" * 32, "normalised": "none"}


def write_features_of(run: Path, slide_id: str, seed: int, encoder: str = ENCODER["sha256"]) -> np.ndarray:
    """Features of a slide that has a tile store: they say where its tiles lie, and a little that is random."""
    store = TileStore.open(run / "tiles" / f"{slide_id}.zarr")
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(store), DIM)).astype(np.float32)
    features[:, :2] += 6 * store.origins / store.origins.max()
    attributes = {key: store.attributes[key] for key in ("slide", "tile")} | {"encoder": {**ENCODER, "sha256": encoder}}
    rows = TileRows(store.origins, store.tissue_fraction, store.valid)
    (run / "features").mkdir(exist_ok=True)
    write_features(run / "features" / f"{slide_id}.zarr", features, rows, attributes)
    return features


def write_view(folder: Path, cohort: Path) -> Path:
    """A run of the small cohort, cut into small tiles, with features, and attention on one slide."""
    run = folder / "run"
    config = TileConfig(GridConfig(tile_px=64))
    tile_cohort(find_slides([str(cohort / "manifest.csv")]), run, config, RunOptions(SerialExecutor()))
    for seed, store in enumerate(sorted((run / "tiles").glob("*.zarr"))):
        write_features_of(run, store.stem, seed)
    write_attention(run / "attending", run, "north-01")
    return run


def write_attention(folder: Path, run: Path, slide_id: str) -> Path:
    """What ``classify`` writes of a slide: attention that rises with the tile's row in the store."""
    write_scores(folder)
    store = TileStore.open(run / "tiles" / f"{slide_id}.zarr")
    values = np.arange(1, len(store) + 1, dtype=np.float64)
    bounds = store.attributes["slide"]["bounds"]
    place = Place(slide_id, tuple(store.attributes["tile"]["footprint"]), bounds=(bounds[0], bounds[1]))
    (folder / "attention").mkdir()
    drawn = to_geojson(TileMap(place, store.origins, ("attention",), (values / values.sum())[:, None]))
    (folder / "attention" / f"{slide_id}.geojson").write_text(drawn)
    return folder


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body, where it is JSON."""
        return json.loads(self.body)


class Asking:
    """A server and who asks it, with the cookie unless told otherwise."""

    def __init__(self, server: ViewServer) -> None:
        self.server = server

    def __call__(self, path: str, cookie: bool = True, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path, as it is written."""
        session = self.server.session
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie:
            told["Cookie"] = f"{session.cookie}={session.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        try:
            connection.request(method, path, headers=told)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


@contextmanager
def serving(config: ViewConfig) -> Iterator[Asking]:
    """A server that answers while the context lasts."""
    server, ready, ending = ViewServer(config), Event(), []

    async def serve() -> None:
        until = asyncio.Event()
        ending.append((asyncio.get_running_loop(), until))
        await server.serve(ready.set, until)

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield Asking(server)
    finally:
        loop, until = ending[0]
        loop.call_soon_threadsafe(until.set)
        thread.join(30)
        assert not thread.is_alive()
