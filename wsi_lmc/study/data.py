"""Tiles of a run folder as a study sees them: labelled, of known patients, and in the source's look where wanted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Int64, UInt8

from wsi_lmc.batches import usable_rows
from wsi_lmc.errors import UsageError
from wsi_lmc.labels import NO_CLASS, classes_of, labels_path, read_labels
from wsi_lmc.normalisers import Normaliser
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import publishing
from wsi_lmc.run import find_stores, open_stores
from wsi_lmc.runfolder import list_slides
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.zarrio import Attributes

_TOGETHER = 64
_LOOKED_AT = 500  # tiles, to find a typical one


@dataclass(frozen=True)
class LabelledTiles:
    """Tiles of one site that have a label: rows of ``stores``, in order; ``groups`` names each tile's patient."""

    stores: tuple[TileStore, ...]
    index: Int64[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, stores: Sequence[TileStore]) -> "LabelledTiles":
        """The same tiles in other stores of the same slides."""
        by_id = {store.slide_id: store for store in stores}
        return replace(self, stores=tuple(by_id[store.slide_id] for store in self.stores))

    def blocks(self, size: int = _TOGETHER) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
        """Pixels in order, ``size`` tiles at a time at most."""
        for number, store in enumerate(self.stores):
            rows = self.row[self.index == number]
            for start in range(0, len(rows), size):
                yield store.read(rows[start : start + size])


def labelled_tiles(run_folder: Path, classes: Sequence[str]) -> LabelledTiles:
    """The usable tiles of a run that have one of the ``classes``.

    Raises:
        UsageError: there are none.
    """
    stores = open_stores(find_stores([run_folder]))
    entries = {entry.slide_id: entry for entry in list_slides(run_folder)}
    index, row, labels, groups = [], [], [], []
    for number, store in enumerate(stores):
        table = labels_path(run_folder, store.slide_id)
        entry = entries.get(store.slide_id)
        known = read_labels(table) if table.is_file() else None
        found = classes_of(store.origins, known, entry.label if entry else "", classes)
        rows = np.intersect1d(usable_rows(store), np.flatnonzero(found != NO_CLASS))
        index.append(np.full(len(rows), number, np.int64))
        row.append(rows)
        labels.append(found[rows])
        groups += [(entry.patient if entry else "") or store.slide_id] * len(rows)
    if not groups:
        raise UsageError(f"no tile of {run_folder} is one of {', '.join(classes)}", "labelled tiles", "Check labels/.")
    return LabelledTiles(
        tuple(stores), np.concatenate(index), np.concatenate(row), np.concatenate(labels), tuple(groups)
    )


def typical_tile(stores: Sequence[TileStore], seed: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """The tile whose mean colour and contrast lie nearest to the median of a sample: what normalisers are fitted on."""
    rows = [(number, row) for number, store in enumerate(stores) for row in usable_rows(store).tolist()]
    rng = np.random.default_rng(seed)
    chosen = [rows[pick] for pick in sorted(rng.permutation(len(rows))[:_LOOKED_AT].tolist())]
    looks = []
    for number, row in chosen:
        density = -np.log(np.maximum(stores[number].read(np.asarray([row]))[0], 1).reshape(-1, 3) / 255.0)
        looks.append(np.concatenate([density.mean(0), density.std(0)]))
    look = np.stack(looks)
    number, row = chosen[int(np.abs(look - np.median(look, 0)).sum(1).argmin())]
    return stores[number].read(np.asarray([row]))[0]


def write_typical_tile(stores: Sequence[TileStore], path: Path, seed: int = 0) -> None:
    """Publish :func:`typical_tile` as a PNG file."""
    tile = cv2.cvtColor(typical_tile(stores, seed), cv2.COLOR_RGB2BGR)
    with publishing(path.parent, path) as draft:
        draft.write_bytes(cv2.imencode(".png", tile)[1].tobytes())


def normalise_run(
    run_folder: Path, out: Path, normaliser: Normaliser, fingerprinted: str, device: torch.device
) -> list[TileStore]:
    """Tile stores of ``run_folder`` with every tile normalised, published below ``out``.

    What is there already stays, unless it was made from other tiles or by another normaliser.
    """
    made: list[TileStore] = []
    for store in open_stores(find_stores([run_folder])):
        final = out / "tiles" / store.path.name
        described = {name: store.attributes[name] for name in ("slide", "tile", "slide_fingerprint")}
        described["config_fingerprint"] = fingerprint([store.attributes["config_fingerprint"], fingerprinted])
        if not final.is_dir() or not _made_so(TileStore.open(final), described):
            with publishing(out, final) as draft:
                _write_normalised(store, draft, normaliser, described, device)
        made.append(TileStore.open(final))
    return made


def _made_so(store: TileStore, described: Attributes) -> bool:
    return all(store.attributes.get(name) == value for name, value in described.items())


def _write_normalised(
    store: TileStore, draft: Path, normaliser: Normaliser, described: Attributes, device: torch.device
) -> None:
    with Threads() as threads, TileStoreWriter(draft, len(store), store.tile_px, "lossless") as writer:
        for start in range(0, len(store), _TOGETHER):
            tiles = torch.from_numpy(store.read(np.arange(start, min(start + _TOGETHER, len(store)))))
            writer.write(start, normaliser(tiles.to(device)).cpu().numpy(), threads)
        rows = TileRows(store.origins, store.tissue_fraction, store.valid)
        writer.close(rows, described)
