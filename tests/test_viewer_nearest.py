"""The nearest tiles against brute force; components and clusters against a reference; what cannot be compared."""

from pathlib import Path

import numpy as np
import pytest

from tests.views import DIM, write_features_of, write_view
from wsi_lmc.errors import StoreError
from wsi_lmc.featurestore import ROWS_PER_CHUNK, FeatureStore, write_features
from wsi_lmc.tilestore import TileRows, Validity
from wsi_lmc.viewer.blocks import FeatureBlocks
from wsi_lmc.viewer.nearest import MOST, PER_SLIDE, Search, Source, Wanted, cosines, scores
from wsi_lmc.viewer.sights import UnknownError
from wsi_lmc.viewer.space import CLUSTERS, fit_space
from wsi_lmc.viewer.viewing import ViewConfig, Viewer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    return write_view(tmp_path_factory.mktemp("nearest"), small_cohort)


def _store(path: Path, features: np.ndarray, encoder: str = "e", valid: np.ndarray | None = None) -> Path:
    count = len(features)
    origins = np.stack([np.arange(count) * 10, np.zeros(count)], axis=1).astype(np.int32)
    rows = TileRows(origins, np.ones(count, np.float32), np.zeros(count, np.uint8) if valid is None else valid)
    slide, tile = {"id": path.stem, "mpp": [0.5, 0.5]}, {"px": 10}
    write_features(path, features, rows, {"slide": slide, "tile": tile, "encoder": {"sha256": encoder}})
    return path


def _searched(sources: list[Source], wanted: Wanted) -> Search:
    own = next(source.path for source in sources if source.slide_id == wanted.slide_id)
    search = Search(FeatureBlocks(), wanted, sources, own)
    search.run()
    return search


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_nearest_are_those_of_brute_force(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(1)
    features = {
        name: rng.normal(size=(count, DIM)).astype(dtype)
        for name, count in zip("abcdefghijk", range(4, 48, 4), strict=True)
    }
    sites = dict(zip(features, "nnnsssnnsse", strict=True))
    sources = [
        Source(name, sites[name], _store(tmp_path / f"{name}.zarr", values)) for name, values in features.items()
    ]
    found = _searched(sources, Wanted("c", 7, "n")).found()
    vector = features["c"][7].astype(np.float64)
    every: list[tuple[float, str, int]] = []
    for name, values in features.items():
        exact = values.astype(np.float64)
        cosine = exact @ vector / np.linalg.norm(exact, axis=1) / np.linalg.norm(vector)
        own = [(value, name, row) for row, value in enumerate(cosine) if (name, row) != ("c", 7)]
        every += sorted(own, reverse=True)[:PER_SLIDE]
    expected = sorted(every, reverse=True)[:MOST]
    assert [(hit.slide_id, hit.row) for hit in found.nearest] == [(name, row) for _, name, row in expected]
    np.testing.assert_allclose(
        [hit.similarity for hit in found.nearest], [value for value, _, _ in expected], atol=1e-5
    )
    others = sorted((each for each in every if sites[each[1]] != "n"), reverse=True)[:MOST]
    assert [(hit.slide_id, hit.row) for hit in found.elsewhere] == [(name, row) for _, name, row in others]
    assert found.done
    assert (found.looked, found.of, found.skipped) == (11, 11, 0)


def test_slides_of_more_than_one_block_are_searched_to_their_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(2 * ROWS_PER_CHUNK + 5, 4)).astype(np.float32)
    features[[9, ROWS_PER_CHUNK + 1, 2 * ROWS_PER_CHUNK + 4]] = [[9, 0, 0, 0.1], [9, 0, 0, 0], [9, 0, 0, 0.2]]
    found = _searched(
        [Source("a", "", _store(tmp_path / "a.zarr", features))], Wanted("a", ROWS_PER_CHUNK + 1, "")
    ).found()
    assert [hit.row for hit in found.nearest][:2] == [9, 2 * ROWS_PER_CHUNK + 4]
    assert len(found.nearest) == PER_SLIDE
    assert found.elsewhere == ()


def test_what_cannot_be_compared_or_read_is_skipped_and_counted(tmp_path: Path) -> None:
    values = np.eye(4, dtype=np.float32) + 0.1
    broken = _store(tmp_path / "broken.zarr", values)
    (broken / "features" / "c.0.0").write_bytes(b"torn")
    sources = [
        Source("a", "", _store(tmp_path / "a.zarr", values)),
        Source("other", "", _store(tmp_path / "other.zarr", values, encoder="f")),
        Source("long", "", _store(tmp_path / "long.zarr", np.ones((2, 7), np.float32))),
        Source("broken", "", broken),
        Source("gone", "", tmp_path / "gone.zarr"),
        Source("b", "", _store(tmp_path / "b.zarr", values)),
    ]
    found = _searched(sources, Wanted("a", 1, "")).found()
    assert (found.skipped, found.done) == (4, True)
    assert {hit.slide_id for hit in found.nearest} == {"a", "b"}
    assert found.nearest[0].slide_id == "b"
    assert found.nearest[0].similarity == pytest.approx(1)


def test_unreadable_tiles_and_those_without_a_direction_are_never_found(tmp_path: Path) -> None:
    features = np.asarray([[1, 0], [1, 0.1], [0, 0], [np.nan, 1], [1, 0.2]], np.float32)
    valid = np.asarray([0, Validity.UNREADABLE, 0, 0, 0], np.uint8)
    path = _store(tmp_path / "a.zarr", features, valid=valid)
    assert [hit.row for hit in _searched([Source("a", "", path)], Wanted("a", 0, "")).found().nearest] == [4]


def test_a_stopped_search_ends_early_and_says_so(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.zarr", np.eye(3, dtype=np.float32))
    search = Search(FeatureBlocks(), Wanted("a", 0, ""), [Source("a", "", path)] * 3, path)
    search.stop()
    search.run()
    assert not search.found().done
    assert search.found().looked == 0


def test_a_search_for_a_tile_that_cannot_be_read_ends(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.zarr", np.eye(3, dtype=np.float32))
    search = Search(FeatureBlocks(), Wanted("a", 0, ""), [Source("a", "", path)], tmp_path / "gone.zarr")
    search.run()
    assert (search.found().done, search.found().skipped) == (True, 1)


def test_memory_for_blocks_is_bounded_and_a_store_made_anew_is_read_anew(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(3 * ROWS_PER_CHUNK, 8)).astype(np.float32)
    path = _store(tmp_path / "a.zarr", features)
    blocks = FeatureBlocks(most=2 * ROWS_PER_CHUNK * 8 * 4)
    read = np.concatenate([block for _, block in blocks.each(path)])
    assert (read == features).all()
    assert len(blocks._blocks) == 2
    assert (blocks.row(path, ROWS_PER_CHUNK + 3) == features[ROWS_PER_CHUNK + 3]).all()
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    path.rmdir()
    _store(path, np.ones((2, 8), np.float32))
    assert blocks.row(path, 1).tolist() == [1.0] * 8


def test_cosines_have_no_direction_of_zeros() -> None:
    found = cosines(np.asarray([[0.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 5.0]]), np.asarray([1.0, 0.0]))
    assert found.tolist() == [-np.inf, 1.0, -1.0, 0.0]


def test_features_of_another_length_are_an_error(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.zarr", np.eye(3, dtype=np.float32))
    with pytest.raises(StoreError, match="length 3"):
        list(scores(FeatureBlocks(), path, np.ones(4, np.float32)))


# ---------------------------------------------------------------- components and clusters


def test_components_are_those_of_the_covariance_and_clusters_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(3, 6)) * 20
    sizes = (50, 30, 10)
    features = np.concatenate(
        [centre + rng.normal(size=(size, 6)) for centre, size in zip(centres, sizes, strict=True)]
    )
    paths = [
        _store(tmp_path / f"{name}.zarr", part.astype(np.float32))
        for name, part in zip("ab", (features[::2], features[1::2]), strict=True)
    ]
    space = fit_space(FeatureBlocks(), paths)
    assert (space.tiles, space.slides) == (90, 2)
    values, axes = np.linalg.eigh(np.cov(features.astype(np.float32).T))
    for number in range(3):
        assert abs(axes[:, -1 - number] @ space.axes[number]) == pytest.approx(1, abs=1e-4)
        assert space.shares[number] == pytest.approx(values[-1 - number] / values.sum(), abs=1e-4)
    components = space.components(features.astype(np.float32))
    shown = space.coloured(components)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert np.corrcoef(shown[:, 0], components[:, 0])[0, 1] > 0.95
    truth = np.repeat([0, 1, 2], sizes)
    numbers = space.clusters(components)
    assert all(len(set(truth[numbers == number].tolist())) == 1 for number in set(numbers.tolist())), "none is mixed"
    assert len(space.centres) <= CLUSTERS
    again = fit_space(FeatureBlocks(), paths)
    assert (again.centres == space.centres).all(), "a seed decides"


@pytest.mark.parametrize("features", [np.ones((5, 4)), np.eye(1, 4), np.asarray([[0.0, 1, 2, 3], [3, 2, 1, 0]])])
def test_few_or_equal_tiles_have_a_space(tmp_path: Path, features: np.ndarray) -> None:
    path = _store(tmp_path / "a.zarr", features.astype(np.float32))
    space = fit_space(FeatureBlocks(), [path])
    components = space.components(features.astype(np.float32))
    assert np.isfinite(space.coloured(components)).all()
    assert space.clusters(components).min() == 0


def test_a_space_needs_one_slide_that_can_be_read_and_is_of_one_encoder(tmp_path: Path) -> None:
    good = _store(tmp_path / "good.zarr", np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    other = _store(tmp_path / "other.zarr", np.ones((9, 4), np.float32), encoder="f")
    assert fit_space(FeatureBlocks(), [tmp_path / "gone.zarr", good, other]).slides == 1
    with pytest.raises(StoreError, match="no features that can be read"):
        fit_space(FeatureBlocks(), [tmp_path / "gone.zarr"])


# ---------------------------------------------------------------- of a real run


def test_a_run_s_nearest_and_its_map_of_similarity_agree(run: Path) -> None:
    viewer = Viewer(ViewConfig((run,)))
    viewer.nearest("north-01", 10)
    while not (found := viewer.nearest("north-01", 10))["done"]:
        pass
    viewer.close()
    assert found["of"] == 4
    assert {hit["site"] for hit in found["elsewhere"]} == {"south"}
    hit = next(hit for hit in found["nearest"] if hit["slide_id"] == "south-01")
    layer = viewer.values.layer(viewer._sights.of("south-01"), "similarity", ("north-01", 10))
    assert layer.values is not None
    assert layer.values[hit["row"]] == pytest.approx(hit["similarity"], abs=1e-5)
    assert np.nanmax(layer.values) == pytest.approx(hit["similarity"], abs=1e-5), "its best tile was listed"


def test_each_tile_has_a_map_of_its_own(run: Path) -> None:
    viewer = Viewer(ViewConfig((run,)))
    maps = [viewer.layer("south-01", "similarity", ("north-01", row)) for row in (3, 4, 3)]
    assert maps[0] == maps[2]
    assert maps[0]["picture"] != maps[1]["picture"]


def test_slides_of_another_encoder_are_not_mixed_in(run: Path, tmp_path: Path) -> None:
    viewer = Viewer(ViewConfig((run,)))
    for name in ("components", "clusters"):
        assert viewer.layer("north-02", name, None)["legend"]["note"].count("4 slides") == 1
    copy = tmp_path / "features" / "north-02.zarr"
    (run / "features" / "north-02.zarr").rename(run / "features" / "kept.away")
    try:
        write_features_of(run, "north-02", 9, encoder="cd" * 32)
        with pytest.raises(StoreError, match="another encoder"):
            Viewer(ViewConfig((run,))).layer("north-02", "similarity", ("north-01", 1))
        with pytest.raises(StoreError, match="another encoder"):
            Viewer(ViewConfig((run,))).layer("north-02", "clusters", None)
    finally:
        copy.parent.mkdir(exist_ok=True)
        (run / "features" / "north-02.zarr").rename(copy)
        (run / "features" / "kept.away").rename(run / "features" / "north-02.zarr")
    with pytest.raises(UnknownError):
        viewer.nearest("north-02", 10_000)


def test_tiles_without_features_have_no_nearest(run: Path, tmp_path: Path) -> None:
    FeatureStore.open(run / "features" / "north-01.zarr")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tiles").symlink_to(run / "tiles")
    viewer = Viewer(ViewConfig((tmp_path / "bare",)))
    assert viewer.tile("north-01", 3)["searchable"] is False
    assert [each["name"] for each in viewer.slide("north-01")["values"]] == ["kept", "tissue"]
    with pytest.raises(UnknownError):
        viewer.nearest("north-01", 3)
