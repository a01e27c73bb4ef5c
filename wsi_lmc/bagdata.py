"""Slides as bags of tiles for multiple-instance learning in torch: a ``Dataset`` over feature stores.

A bag is read when it is asked for, anew each time, so a cohort need not fit into memory: a loader holds the bags of the
batches it has ahead. Datasets know paths and small tables alone, so workers of a ``DataLoader`` get them cheaply.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from wsi_lmc.classification.cohort import Selection, class_names, find_slides
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featuresets import Found
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.heads.examples import draw_rows
from wsi_lmc.labels import NO_CLASS
from wsi_lmc.tilestore import Validity


class Bag(NamedTuple):
    """One slide: features of its N usable tiles, and what is known of it.

    ``coordinates`` are x, y of the tiles' top-left corners in level-0 pixels. ``label`` is the index of the slide's
    class in :attr:`BagDataset.classes`, None where it has none of these.
    """

    features: Float32[Tensor, "n d"]
    coordinates: Int32[Tensor, "n 2"]
    label: int | None
    site: str
    patient: str
    slide_id: str


class BagBatch(NamedTuple):
    """Several bags, padded with zeros to the N of the largest; ``mask`` is True where there is a tile.

    ``label`` is -1 where a slide has none.
    """

    features: Float32[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]
    coordinates: Int32[Tensor, "b n 2"]
    label: Int64[Tensor, " b"]
    site: tuple[str, ...]
    patient: tuple[str, ...]
    slide_id: tuple[str, ...]


@dataclass(frozen=True)
class _Slide:
    """Where a slide's features lie and what is known of it; ``usable`` tiles are those that could be read."""

    path: Path
    slide_id: str
    label: int | None
    site: str
    patient: str
    usable: int


class BagDataset(Dataset[Bag]):
    """The slides of one encoder's features that have a usable tile, in the order of their ids.

    Tiles that could not be read are left out. Lists by slide serve to split and to sample: ``labels`` (indices into
    ``classes``, None where unknown), ``sites``, ``patients``, ``slide_ids``, ``sizes`` (usable tiles, before any are
    drawn). ``empty`` names the slides that were left out because no tile is usable. ``seed`` decides which of a slide's
    tiles are drawn where it has more than ``max_tiles``; set it between epochs to draw others.
    """

    def __init__(
        self,
        features: str | Path | Sequence[str | Path],
        manifest: str | Path | None = None,
        label: str = "label",
        classes: Sequence[str] = (),
        max_tiles: int = 0,
    ) -> None:
        """Look through tables and stores; no feature is read yet.

        Args:
            features: run folders that ``embed`` wrote, all with features of one encoder.
            manifest: CSV with columns slide, slide_id, site, patient, label; goes before those of the run folders.
            label: the manifest's column that holds the labels of slides.
            classes: labels that count, in the order of their indices; by default all, in alphabetical order.
            max_tiles: of a slide with more usable tiles so many are drawn, by :attr:`seed`; 0: all.

        Raises:
            UsageError: no features, those of several encoders, or a slide that no manifest knows.
            StoreError: a store cannot be opened.
        """
        if max_tiles < 0:
            raise UsageError(f"max_tiles = {max_tiles}", "0 (all tiles) or more", "Correct it.")
        named = [features] if isinstance(features, str | Path) else features
        specs = tuple(f"bags={folder}" for folder in named)
        selection = Selection(specs, Path(manifest) if manifest else None, label, tuple(classes))
        found = sorted(find_slides(selection), key=lambda slide: slide.store.slide_id)
        self.classes = tuple(classes) or class_names(found, "slide")
        self.max_tiles, self.seed = max_tiles, 0
        self._use([_slide(slide, self.classes) for slide in found])

    def part(self, numbers: Sequence[int] | np.ndarray) -> "BagDataset":
        """Some of the slides, by number, with the same classes."""
        chosen = object.__new__(BagDataset)
        chosen.classes, chosen.max_tiles, chosen.seed = self.classes, self.max_tiles, self.seed
        chosen._use([self._slides[int(number)] for number in numbers])
        return chosen

    def __len__(self) -> int:
        return len(self._slides)

    def __getitem__(self, number: int) -> Bag:
        """Read one bag.

        Raises:
            StoreError: its features are damaged, gone, or not finite.
        """
        slide = self._slides[number]
        store = FeatureStore.open(slide.path)  # anew: an open store would keep what it read
        usable = np.flatnonzero(store.valid != Validity.UNREADABLE)
        rows = draw_rows(usable, self.max_tiles, (self.seed, slide.slide_id))
        features = np.asarray(store.features[rows], np.float32)
        if not np.isfinite(features).all():
            raise StoreError(f"features of {slide.slide_id} that are no numbers", "finite ones", "Embed it again.")
        coordinates = torch.from_numpy(np.ascontiguousarray(store.origins[rows]))
        return Bag(torch.from_numpy(features), coordinates, slide.label, slide.site, slide.patient, slide.slide_id)

    def _use(self, slides: Sequence[_Slide]) -> None:
        self._slides = [slide for slide in slides if slide.usable]
        self.empty = [slide.slide_id for slide in slides if not slide.usable]
        self.labels = [slide.label for slide in self._slides]
        self.sites = [slide.site for slide in self._slides]
        self.patients = [slide.patient for slide in self._slides]
        self.slide_ids = [slide.slide_id for slide in self._slides]
        self.sizes = [slide.usable for slide in self._slides]


def collate_bags(bags: Sequence[Bag]) -> BagBatch:
    """Bags of different sizes as one batch: the ``collate_fn`` of a ``DataLoader``."""
    sizes = torch.tensor([len(bag.features) for bag in bags])
    return BagBatch(
        pad_sequence([bag.features for bag in bags], batch_first=True),
        torch.arange(int(sizes.max())) < sizes[:, None],
        pad_sequence([bag.coordinates for bag in bags], batch_first=True),
        torch.tensor([NO_CLASS if bag.label is None else bag.label for bag in bags]),
        tuple(bag.site for bag in bags),
        tuple(bag.patient for bag in bags),
        tuple(bag.slide_id for bag in bags),
    )


def _slide(found: Found, classes: tuple[str, ...]) -> _Slide:
    entry, store = found.entry, replace(found.store)  # a copy: a store keeps what it has read
    label = classes.index(entry.label) if entry.label in classes else None
    usable = int(np.count_nonzero(store.valid != Validity.UNREADABLE))
    return _Slide(store.path.resolve(), store.slide_id, label, entry.site, entry.patient or store.slide_id, usable)
