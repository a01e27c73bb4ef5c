"""Bags of tiles for torch: what the stores hold, no more, by as many workers as asked for."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from wsi_lmc.bagdata import Bag, BagDataset, collate_bags
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.runfolder import add_slides, prepare_run
from wsi_lmc.tilestore import TileRows, Validity

_ABOUT = {
    # count of tiles, unreadable ones, site, patient, label
    "a": (5, (2,), "north", "p1", "tumour"),
    "b": (3, (), "north", "", "normal"),
    "c": (2, (0, 1), "south", "p3", "normal"),
    "d": (9, (0, 8), "south", "p4", ""),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with features, float16, of four slides; all tiles of one could not be read."""
    prepare_run(tmp_path)
    add_slides(tmp_path, [SlideEntry(tmp_path / f"{i}.svs", i, None, p, s, y) for i, (_, _, s, p, y) in _ABOUT.items()])
    for slide_id, (count, *_) in _ABOUT.items():
        write(tmp_path, slide_id, np.random.default_rng(count).normal(size=(count, 6)).astype(np.float16))
    return tmp_path


def write(run: Path, slide_id: str, features: np.ndarray, **encoder: str) -> None:
    """A feature store; coordinates differ in x and y."""
    count, bad, *_ = _ABOUT[slide_id]
    valid = np.zeros(count, np.uint8)
    valid[list(bad)] = Validity.UNREADABLE
    origins = np.stack([np.arange(count) * 256, np.arange(count) * 7 + 1], 1).astype(np.int32)
    stated = {"name": "demo", "sha256": "x", "normalised": "none", "dtype": str(features.dtype), **encoder}
    path = run / "features" / f"{slide_id}.zarr"
    path.parent.mkdir(exist_ok=True)
    attributes = {"slide": {"id": slide_id, "mpp": [0.5, 0.5]}, "encoder": stated}
    write_features(path, features, TileRows(origins, np.ones(count, np.float32), valid), attributes)


def stored(run: Path, slide_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and origins of the usable tiles, straight from the store."""
    store = FeatureStore.open(run / "features" / f"{slide_id}.zarr")
    usable = store.valid != Validity.UNREADABLE
    return store.features[usable].astype(np.float32), store.origins[usable]


def test_a_bag_is_what_the_store_holds(run: Path) -> None:
    dataset = BagDataset(run)
    assert dataset.classes == ("normal", "tumour")
    assert (len(dataset), dataset.slide_ids, dataset.empty) == (3, ["a", "b", "d"], ["c"])
    assert (dataset.sizes, dataset.labels, dataset.sites) == ([4, 3, 7], [1, 0, None], ["north", "north", "south"])
    assert dataset.patients == ["p1", "b", "p4"], "a slide without a patient is one of its own"
    for number, slide_id in enumerate(dataset.slide_ids):
        bag = dataset[number]
        features, origins = stored(run, slide_id)
        assert bag.features.dtype == torch.float32
        np.testing.assert_array_equal(bag.features.numpy(), features)
        np.testing.assert_array_equal(bag.coordinates.numpy(), origins)
        expected = (dataset.labels[number], dataset.sites[number], dataset.patients[number], slide_id)
        assert (bag.label, bag.site, bag.patient, bag.slide_id) == expected


def test_a_manifest_goes_first_and_any_column_may_be_the_label(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("slide,site,grade\na.svs,east,2\nb.svs,west,3\nc.svs,west,3\nd.svs,east,1\n")
    dataset = BagDataset([run], table, label="grade", classes=["3", "2"])
    assert dataset.sites == ["east", "west", "east"]
    assert dataset.labels == [1, 0, None]


def test_tiles_are_drawn_by_the_seed(run: Path) -> None:
    dataset = BagDataset(run, max_tiles=3)
    assert [len(dataset[number].features) for number in range(3)] == [3, 3, 3]
    first, again = dataset[2].coordinates, dataset[2].coordinates
    assert torch.equal(first, again)
    drawn = set()
    for dataset.seed in range(8):
        drawn.add(tuple(dataset[2].coordinates[:, 0].tolist()))
    assert len(drawn) > 1
    everything = stored(run, "d")[1][:, 0].tolist()
    assert all(set(tiles) < set(everything) for tiles in drawn)


def test_a_part_keeps_the_classes(run: Path) -> None:
    whole = BagDataset(run, max_tiles=2)
    whole.seed = 3
    part = whole.part(np.asarray([2, 1]))
    assert (part.max_tiles, part.seed, len(part[0].features)) == (2, 3, 2)
    assert part.slide_ids == ["d", "b"]
    assert part.classes == ("normal", "tumour")
    assert part[1].slide_id == "b"


def test_bags_of_several_sizes_are_padded(run: Path) -> None:
    dataset = BagDataset(run)
    batch = collate_bags([dataset[number] for number in range(3)])
    assert batch.features.shape == (3, 7, 6)
    assert batch.mask.sum(1).tolist() == [4, 3, 7]
    assert batch.label.tolist() == [1, 0, -1]
    assert batch.slide_id == ("a", "b", "d")
    for row, slide_id in enumerate(batch.slide_id):
        features, origins = stored(run, slide_id)
        np.testing.assert_array_equal(batch.features[row][batch.mask[row]].numpy(), features)
        np.testing.assert_array_equal(batch.coordinates[row][batch.mask[row]].numpy(), origins)
        assert not batch.features[row][~batch.mask[row]].any()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_give_the_same_bags(run: Path) -> None:
    """Forked after stores were read here, as loaders fork on Linux; what they are sent is pickled below."""
    dataset = BagDataset(run)
    assert len(dataset[0].features) == 4
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate_bags, multiprocessing_context="fork")
    batches = list(loader)
    assert [batch.slide_id for batch in batches] == [("a", "b"), ("d",)]
    np.testing.assert_array_equal(batches[1].features[0].numpy(), stored(run, "d")[0])
    single = list(DataLoader(dataset, batch_size=None))
    assert [type(bag) for bag in single] == [Bag] * 3
    assert [bag.label for bag in single] == [1, 0, None]


def test_nothing_read_stays(run: Path) -> None:
    """What a dataset holds, and sends to its workers, does not grow with what was read."""
    dataset = BagDataset(run)
    before = len(pickle.dumps(dataset))
    for number in range(3):
        dataset[number]
    sent = pickle.dumps(dataset)
    assert len(sent) == before < 2000
    np.testing.assert_array_equal(pickle.loads(sent)[2].features.numpy(), stored(run, "d")[0])  # noqa: S301  our own


def test_what_cannot_be_used_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no features in"):
        BagDataset(tmp_path / "nothing")
    with pytest.raises(UsageError, match="max_tiles = -1"):
        BagDataset(run, max_tiles=-1)
    other = tmp_path / "other"
    prepare_run(other)
    add_slides(other, [SlideEntry(tmp_path / "b.svs", "b", site="east")])
    write(other, "b", np.ones((3, 6), np.float16), sha256="y")
    with pytest.raises(UsageError, match="sha256 of the encoder is y"):
        BagDataset([run, other])
    write(other, "a", np.full((5, 6), np.nan, np.float32))
    with pytest.raises(UsageError, match=r"slide a of .* stands in no manifest"):
        BagDataset(other)


def test_damage_is_told_when_it_is_met(run: Path) -> None:
    features = np.ones((5, 6), np.float32)
    features[4, 1] = np.inf
    (run / "features" / "a.zarr").rename(run / "aside")
    write(run, "a", features)
    dataset = BagDataset(run)
    with pytest.raises(StoreError, match="features of a that are no numbers"):
        dataset[0]
    (run / "features" / "b.zarr" / "features" / "c.0.0").write_bytes(b"x")
    with pytest.raises(StoreError, match="features cannot be read"):
        dataset[1]
