"""Stages over a cohort: one bad slide never stops the others, the same results however many workers."""

import hashlib
from pathlib import Path

import pytest

from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.cohort import find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import (
    EmbedInputs,
    RunOptions,
    _entries_of,
    embed_cohort,
    find_features,
    find_stores,
    holds_stores,
    open_stores,
    tile_cohort,
    train_cohort,
)
from wsi_lmc.runfolder import outcomes
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import TrainConfig

SERIAL = RunOptions(SerialExecutor())
TRAIN = TrainConfig(steps=3, batch=4, architecture="vit-demo", device="cpu", held_out_share=0.2)


@pytest.fixture(scope="module")
def tiled(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with four tiled slides."""
    out = tmp_path_factory.mktemp("run")
    heard: list[str] = []
    options = RunOptions(SerialExecutor(), on_outcome=lambda outcome: heard.append(outcome.slide_id))
    found = tile_cohort(find_slides([str(small_cohort / "manifest.csv")]), out, TileConfig(), options)
    assert [outcome.state for outcome in found] == ["done"] * 4
    assert heard == [outcome.slide_id for outcome in found]
    return out


def _bytes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_worker_processes_give_the_same_bytes(small_cohort: Path, tiled: Path, tmp_path: Path) -> None:
    with make_executor(LocalWorkers(2)) as executor:
        slides = find_slides([str(small_cohort / "manifest.csv")])
        tile_cohort(slides, tmp_path, TileConfig(), RunOptions(executor))
    for folder in ("tiles", "contours", "overviews"):
        assert _bytes(tmp_path / folder) == _bytes(tiled / folder)
        assert _bytes(tmp_path / folder)


def test_bad_slides_are_explained_and_the_others_done(small_cohort: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.svs").touch()
    (bad / "garbage.svs").write_bytes(b"not a slide at all" * 50)
    whole = (small_cohort / "slides" / "north-02.svs").read_bytes()
    (bad / "half.svs").write_bytes(whole[: len(whole) // 2])
    good = small_cohort / "slides" / "south-01.tif"
    inputs = [str(bad), str(good), str(tmp_path / "missing.svs")]
    found = tile_cohort(find_slides(inputs), tmp_path / "out", TileConfig(), SERIAL)
    assert {outcome.slide_id: outcome.code or outcome.state for outcome in found} == {
        "empty": "empty_file",
        "garbage": "not_a_slide",
        "half": "truncated",
        "south-01": "done",
        "missing": "missing",
    }
    assert all(outcome.remedy for outcome in found if outcome.state == "failed")
    assert [path.name for path in (tmp_path / "out" / "tiles").iterdir()] == ["south-01.zarr"]
    table = (tmp_path / "out" / "slides.csv").read_text().splitlines()
    assert len(table) == 6
    assert len(outcomes(tmp_path / "out", "tile")) == 5


def test_an_interruption_keeps_what_was_done(small_cohort: Path, tmp_path: Path) -> None:
    def stop(outcome: Outcome) -> None:
        raise KeyboardInterrupt

    slides = find_slides([str(small_cohort / "manifest.csv")])
    with pytest.raises(KeyboardInterrupt):
        tile_cohort(slides, tmp_path, TileConfig(), RunOptions(SerialExecutor(), on_outcome=stop))
    assert len((tmp_path / "slides.csv").read_text().splitlines()) == 2
    again = tile_cohort(slides, tmp_path, TileConfig(), SERIAL)
    assert [outcome.fresh for outcome in again] == [False, True, True, True]


def test_train_then_embed(tiled: Path, small_cohort: Path, tmp_path: Path) -> None:
    stores = find_stores([tiled])
    steps: list[int] = []
    north = [store for store in stores if store.name.startswith("north")]
    how = ("new", lambda report: steps.append(report.step))
    result = train_cohort(north, tmp_path / "ckpt", TRAIN, SerialExecutor(), how)
    assert steps == [1, 2, 3]
    assert [entry.slide_id for entry in _entries_of(north)] == ["north-01", "north-02"], "their labels are known"
    assert result.steps == 3
    slide = find_slides([str(small_cohort / "slides" / "south-01.tif")])
    inputs = EmbedInputs([store for store in stores if "south-01" not in store.name], slide)
    config = EmbedConfig(device="cpu")
    found = embed_cohort(inputs, str(tmp_path / "ckpt"), tmp_path / "out", config, SERIAL)
    assert [outcome.state for outcome in found] == ["done"] * 4
    features = find_features(tmp_path / "out")
    assert [store.slide_id for store in features] == ["north-01", "north-02", "south-01", "south-02"]
    assert {store.attributes["encoder"]["sha256"] for store in features} == {result.encoder_sha256}
    with pytest.raises(UsageError, match="named twice"):
        embed_cohort(EmbedInputs(stores, slide), str(tmp_path / "ckpt"), tmp_path / "out", config, SERIAL)


def test_stores_are_found_wherever_they_are_named(tiled: Path, tmp_path: Path) -> None:
    single = tiled / "tiles" / "north-01.zarr"
    everything = find_stores([tiled])
    assert len(everything) == 4
    assert find_stores([tiled / "tiles"]) == everything
    assert find_stores([single, single]) == [single.resolve()]
    assert all(holds_stores(path) for path in (tiled, tiled / "tiles", single))
    assert not holds_stores(tmp_path)
    assert [len(store) > 0 for store in open_stores(everything)] == [True] * 4
    with pytest.raises(UsageError, match="no tile stores"):
        find_stores([tmp_path])
    with pytest.raises(UsageError, match="no features"):
        find_features(tmp_path)


def test_masks_must_fit(small_cohort: Path, tiled: Path, tmp_path: Path) -> None:
    slides = find_slides([str(small_cohort / "manifest.csv")])
    outline = tiled / "contours" / "north-01.geojson"
    for mask, said in ((outline, "one mask for 4 slides"), (tmp_path / "none", "no mask")):
        with pytest.raises(UsageError, match=said):
            tile_cohort(slides, tmp_path, TileConfig(), RunOptions(SerialExecutor(), mask=mask))
    found = tile_cohort(slides, tmp_path, TileConfig(), RunOptions(SerialExecutor(), mask=tiled / "contours"))
    assert [outcome.tiles for outcome in found] == [outcome.tiles for outcome in outcomes(tiled, "tile")]
