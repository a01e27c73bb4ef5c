"""Features as they are compared: of one encoder or several, with each slide's site, patient and labels.

A *set* is named ``NAME=FOLDER``, where ``FOLDER`` is a run folder that ``embed`` wrote; folders of the same name make
one set (two hospitals' runs, say). Without a name, the encoder's own is taken. Site, patient and label of a slide come
from the manifest of its run folder or of the one where its tiles lie, labels of tiles from the ``labels/`` beside it.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from wsi_lmc.cohort import SlideEntry, read_manifest
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation.scores import FeatureSet, SlideFeatures
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.labels import classes_of, labels_path, read_labels
from wsi_lmc.runfolder import list_slides, requests
from wsi_lmc.tilestore import Validity


@dataclass(frozen=True)
class Reading:
    """What is read of the sets.

    ``manifest`` goes before those of the run folders. ``classes`` are the labels that count, all by default. Of slides
    with more usable tiles than ``tiles_per_slide`` (0: no limit) so many are drawn, the same ones in every set.
    """

    manifest: Path | None = None
    classes: tuple[str, ...] = ()
    tiles_per_slide: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """A slide's features and what is known of it.

    ``labels`` of its tiles is None where there is no such table, ``tiles``, the store of its pixels, where it has none.
    ``places`` are the run folders of its features and, where they are known, of its tiles.
    """

    store: FeatureStore
    entry: SlideEntry
    labels: Mapping[tuple[int, int], str] | None
    tiles: Path | None
    places: tuple[Path, ...]

    @property
    def names(self) -> set[str]:
        """Labels that occur."""
        return {label for label in self.labels.values() if label} if self.labels is not None else {self.entry.label}


def load_feature_sets(specs: Sequence[str], reading: Reading) -> list[FeatureSet]:
    """Read the sets that ``specs`` name, in the order of their first mention, with common classes.

    Raises:
        UsageError: nothing there, a slide twice in a set, or one that no manifest knows.
        StoreError: a store cannot be opened.
    """
    found = find_features_of(specs, reading)
    every = {name for slides in found.values() for slide in slides.values() for name in slide.names} - {""}
    classes = reading.classes or tuple(sorted(every))
    return [_read(name, list(slides.values()), classes, reading) for name, slides in found.items()]


def find_features_of(specs: Sequence[str], reading: Reading) -> dict[str, dict[str, Found]]:
    """The slides of each set, by their ids: nothing but tables is read yet.

    Raises:
        UsageError: as :func:`load_feature_sets`.
        StoreError: a store cannot be opened.
    """
    given = {entry.slide_id: entry for entry in read_manifest(reading.manifest)} if reading.manifest else {}
    found: dict[str, dict[str, Found]] = {}
    for spec in specs:
        name, folder = _named(spec)
        for slide in _slides_of(folder, given):
            slides = found.setdefault(name or str(slide.store.attributes["encoder"]["name"]), {})
            _check_encoder(slide, slides.values())
            if slides.setdefault(slide.store.slide_id, slide) is not slide:
                raise UsageError(
                    f"slide {slide.store.slide_id} twice among the features of one name",
                    "every slide once in a set",
                    "Name the sets: NAME=FOLDER.",
                )
    return found


def _named(spec: str) -> tuple[str, Path]:
    """Name, empty where there is none, and folder of a set; a folder may have a = in its own name."""
    name, sign, folder = spec.partition("=")
    return ("", Path(spec)) if not sign or Path(spec).is_dir() else (name, Path(folder))


def _check_encoder(slide: Found, others: Iterable[Found]) -> None:
    """Refuse features that cannot be compared with those of the set, such as of another encoder of the same name."""
    known = next(iter(others), slide)
    wanted = _made_by(known.store)
    for key, own in _made_by(slide.store).items():
        theirs = wanted[key]
        if own != theirs:
            raise UsageError(
                f"{key} of the encoder is {own} for slide {slide.store.slide_id}, {theirs} for {known.store.slide_id}",
                "one encoder and one normalisation in a set",
                "Give the sets different names: NAME=FOLDER.",
            )


def _made_by(store: FeatureStore) -> dict[str, object]:
    """What features must have in common; of an encoder whose SHA-256 nobody knows, at least its name and its width."""
    encoder = store.attributes["encoder"]
    sha256 = encoder.get("sha256")
    found: dict[str, object] = {"sha256": sha256, "normalised": encoder.get("normalised")}
    return {**found, "name": encoder.get("name") if sha256 is None else "", "width": store.width}


def _slides_of(folder: Path, given: Mapping[str, SlideEntry]) -> list[Found]:
    inside = folder / "features" if (folder / "features").is_dir() else folder
    paths = sorted(inside.glob("*.zarr"))
    if not paths:
        raise UsageError(f"no features in {folder}", "a run folder that embed wrote", "Run 'wsi-lmc embed' first.")
    run = inside.parent
    tiled = tiled_in(run)
    homes = {home: {entry.slide_id: entry for entry in list_slides(home)} for home in {run, *tiled.values()}}
    found: list[Found] = []
    for store in map(FeatureStore.open, paths):
        places = [place for place in (run, tiled.get(store.slide_id)) if place is not None]
        known = [homes[place][store.slide_id] for place in places if store.slide_id in homes[place]]
        entry = given.get(store.slide_id) or next(iter(known), None)
        if entry is None:
            raise UsageError(
                f"slide {store.slide_id} of {folder} stands in no manifest",
                "a row with its site, patient and label",
                "Give one with --manifest (columns slide, slide_id, site, patient, label).",
            )
        tables = [labels_path(place, store.slide_id) for place in places]
        table = next((path for path in tables if path.is_file()), None)
        home = tiled.get(store.slide_id)
        tiles = home / "tiles" / f"{store.slide_id}.zarr" if home else None
        found.append(Found(store, entry, read_labels(table) if table else None, tiles, tuple(places)))
    return found


def tiled_in(run: Path) -> dict[str, Path]:
    """The run folder where a slide's tiles lie, by slide, as ``embed`` was asked for them; the latest counts."""
    homes: dict[str, Path] = {}
    for request in requests(run, "embed"):
        for slide_id, store in request.stores.items():
            homes.setdefault(slide_id, (run / store).parent.parent)
    return homes


def _read(name: str, slides: Sequence[Found], classes: tuple[str, ...], reading: Reading) -> FeatureSet:
    read: list[SlideFeatures] = []
    tiles = 0
    for slide in slides:
        usable = np.nonzero(slide.store.valid != Validity.UNREADABLE)[0]
        tiles += len(usable)
        rows = _drawn(slide.store, usable, reading)
        read.append(
            SlideFeatures(
                slide.store.slide_id,
                slide.entry.patient or slide.store.slide_id,
                slide.entry.site,
                slide.store.features[rows],
                classes_of(slide.store.origins[rows], slide.labels, slide.entry.label, classes),
                slide.store.origins[rows],
                slide.tiles,
            )
        )
        slide.store.__dict__.pop("features", None)  # the store keeps what it read: a sample of it is enough
    return FeatureSet(name, tuple(read), classes, tiles)


def _drawn(store: FeatureStore, usable: Int64[np.ndarray, " n"], reading: Reading) -> Int64[np.ndarray, " m"]:
    """A sample by what the tiles are, not by where they stand: the same one whatever else a store holds."""
    if not 0 < reading.tiles_per_slide < len(usable):
        return usable
    seed = np.array([reading.seed, zlib.crc32(store.slide_id.encode())], np.uint64)
    lots = np.zeros(len(usable), np.uint64)
    for value in (*seed, *store.origins[usable].astype(np.uint64).T):
        lots = _mixed(lots ^ value)
    return np.sort(usable[np.argsort(lots, kind="stable")[: reading.tiles_per_slide]])


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Bits so well mixed that neighbours have nothing in common (the finaliser of splitmix64; Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
