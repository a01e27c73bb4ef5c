"""A large slide is embedded block by block: each is kept, each is done once, and the whole is as if done at once."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.errors import SlideError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.steps.embed import EmbedTask, embed_slide
from wsi_lmc.steps.outcome import Outcome, Split
from wsi_lmc.steps.parts import FOLDER, Parts
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tilestore import TileStore

ENCODER = "untrained:vit-demo"
SMALL = EmbedConfig(batch=4, block=3, device="cpu")


@pytest.fixture(scope="module")
def tiles(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> TileTask:
    entry = SlideEntry(small_cohort / "slides" / "north-02.svs", "north-02")
    task = TileTask(entry, tmp_path_factory.mktemp("run"), TileConfig())
    assert tile_slide(task).tiles > 11
    return task


def _task(tiles: TileTask, out: Path, config: EmbedConfig, from_slide: bool) -> EmbedTask:
    source = replace(tiles, out=out) if from_slide else tiles.out / "tiles" / "north-02.zarr"
    sha256 = load_encoder(ENCODER, resolve_device("cpu")).sha256
    return EmbedTask("north-02", source, out, ENCODER, sha256, config)


def _content(out: Path) -> dict[str, str]:
    folder = out / "features" / "north-02.zarr"
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _split(task: EmbedTask) -> list[EmbedTask]:
    result = embed_slide(task)
    assert isinstance(result, Split)
    return list(result.parts)


@pytest.mark.parametrize("from_slide", [False, True])
def test_in_blocks_the_bytes_are_those_of_all_at_once(tiles: TileTask, tmp_path: Path, from_slide: bool) -> None:
    tasks = [
        _task(tiles, tmp_path / name, config, from_slide)
        for name, config in (("whole", replace(SMALL, block=10**6)), ("blocks", SMALL))
    ]
    for task in tasks:
        (outcome,) = SerialExecutor().run(embed_slide, [task])
        assert (outcome.state, outcome.fresh) == ("done", True)
    whole, blocks = (_content(tmp_path / name) for name in ("whole", "blocks"))
    assert blocks == whole
    assert not list((tmp_path / "blocks" / FOLDER).iterdir()), "blocks are kept until the slide is published"
    left = tmp_path / "blocks" / FOLDER / "north-02" / "left.safetensors"
    left.parent.mkdir()
    left.touch()
    (again,) = SerialExecutor().run(embed_slide, [tasks[1]])
    assert not again.fresh
    assert not left.exists(), "whoever published the slide may have been killed before it tidied up"


def test_only_blocks_that_are_not_there_are_done(tiles: TileTask, tmp_path: Path) -> None:
    task = _task(tiles, tmp_path, SMALL, from_slide=False)
    parts = _split(task)
    tiles_of_slide = len(TileStore.open(tiles.out / "tiles" / "north-02.zarr"))
    assert [part.part for part in parts] == list(range(-(-tiles_of_slide // 3)))
    for part in (parts[2], parts[0]):
        outcome = embed_slide(part)
        assert isinstance(outcome, Outcome)
        assert outcome.tiles == 3
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER / "north-02").iterdir()}
    assert [part.part for part in _split(task)] == [1, *range(3, len(parts))]
    embed_slide(parts[0])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "shorter"])
def test_a_damaged_block_is_done_again(tiles: TileTask, tmp_path: Path, how: str) -> None:
    task = _task(tiles, tmp_path, SMALL, from_slide=False)
    parts = _split(task)
    for part in parts:
        embed_slide(part)
    path = sorted((tmp_path / FOLDER / "north-02").iterdir())[1]
    content = path.read_bytes()
    match how:
        case "flipped":
            path.write_bytes(content[:-50] + bytes([content[-50] ^ 4]) + content[-49:])
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case _:
            save_file({name: values[:2] for name, values in load_file(path).items()}, path)
    assert [part.part for part in _split(task)] == [1]


def test_blocks_of_other_settings_are_not_taken(tiles: TileTask, tmp_path: Path) -> None:
    task = _task(tiles, tmp_path, SMALL, from_slide=True)
    for part in _split(task):
        embed_slide(part)
    for config in (replace(SMALL, dtype="float16"), replace(SMALL, block=4)):
        other = replace(task, config=config)
        assert [part.part for part in _split(other)][:2] == [0, 1]
    resized = replace(SMALL, batch=7)  # changes no byte of a feature
    assert isinstance(embed_slide(replace(task, config=resized)), Outcome)


def test_a_slide_that_cannot_be_tiled_is_refused_before_it_is_split(tiles: TileTask, tmp_path: Path) -> None:
    task = _task(tiles, tmp_path, SMALL, from_slide=True)
    grid = replace(tiles.config.grid, max_tiles=3)
    coarse = replace(task, source=replace(tiles, config=TileConfig(grid=grid)))
    with pytest.raises(SlideError, match="tiles at most"):
        embed_slide(coarse)
    assert not (tmp_path / FOLDER).exists()


def test_rows_of_blocks_cover_the_slide_once() -> None:
    for count, size in ((0, 4), (1, 4), (4, 4), (5, 4), (11, 3)):
        parts = Parts(Path(), "s", "x", count, size)
        assert [row for number in range(len(parts)) for row in parts.rows(number)] == list(range(count))


def test_a_part_that_fails_fails_the_slide_and_the_others_are_kept(tiles: TileTask, tmp_path: Path) -> None:
    task = _task(tiles, tmp_path, SMALL, from_slide=False)

    def step(job: EmbedTask) -> Outcome | Split[EmbedTask]:
        if job.part == 1:
            raise OSError("no space left on device")
        return embed_slide(job)

    (outcome,) = SerialExecutor().run(step, [task])
    assert (outcome.state, outcome.code) == ("failed", "io")
    assert [path.name[-18:-12] for path in (tmp_path / FOLDER / "north-02").iterdir()] == ["000000"]
    (outcome,) = SerialExecutor().run(embed_slide, [task])
    assert outcome.state == "done"
    found = FeatureStore.open(tmp_path / "features" / "north-02.zarr")
    assert np.isfinite(found.features).all()
