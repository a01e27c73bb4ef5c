"""One device, many readers: features are those of a plain loop, to the byte, however tiles come in and meet."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wsi_lmc.encoder import Encoder, Precision, load_encoder, resolve_device
from wsi_lmc.engine import Block, Engine, Valid

PX = 64


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("untrained:vit-demo@3", resolve_device("cpu"), tile_px=PX)


def _tiles(count: int, seed: int, px: int = PX) -> Block:
    return np.random.default_rng(seed).integers(0, 256, (count, px, px, 3), dtype=np.uint8)


def _blocks(tiles: Block, size: int) -> Iterator[tuple[Block, Valid]]:
    """Blocks in memory that is used again at once, as real readers' is."""
    memory = np.empty((size, *tiles.shape[1:]), np.uint8)
    for start in range(0, len(tiles), size):
        part = tiles[start : start + size]
        memory[: len(part)] = part
        yield memory[: len(part)], (np.arange(start, start + len(part)) % 4).astype(np.uint8)
    memory[:] = 0


def _embed(engine: Engine, tiles: Block, size: int = 5) -> np.ndarray:
    features = np.full((len(tiles), engine.encoder.dim), np.nan, np.float32)
    valid = engine.embed(_blocks(tiles, size), features)
    np.testing.assert_array_equal(valid, np.arange(len(tiles)) % 4)
    return features


def _plainly(encoder: Encoder, tiles: Block, batch: int) -> np.ndarray:
    """A loop over whole batches; the last one is filled up, for a matrix of another height is multiplied otherwise."""
    whole = np.concatenate([tiles, np.zeros((-len(tiles) % batch, *tiles.shape[1:]), np.uint8)])
    parts = [encoder.embed(torch.from_numpy(whole[start : start + batch])) for start in range(0, len(whole), batch)]
    return torch.cat(parts).numpy()[: len(tiles)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_are_a_plain_loops(encoder: Encoder, precision: Precision) -> None:
    tiles = _tiles(27, 0)
    own = replace(encoder, precision=precision)
    found = _embed(Engine(own, None, 8), tiles)
    np.testing.assert_array_equal(found, _plainly(own, tiles, 8))
    for row in (0, 7, 26):
        alone = own.embed(torch.from_numpy(tiles[row : row + 1]))[0]
        assert float(torch.cosine_similarity(torch.from_numpy(found[row]), alone, dim=0)) > 0.9999


@settings(max_examples=15)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    batch=st.sampled_from([1, 3, 8, 16]),
    size=st.integers(1, 17),
    readers=st.integers(1, 4),
    lanes=st.integers(1, 3),
)
def test_readers_side_by_side_change_no_byte(
    encoder: Encoder, counts: list[int], batch: int, size: int, readers: int, lanes: int
) -> None:
    slides = [_tiles(count, seed) for seed, count in enumerate(counts)]
    engine = Engine(encoder, None, batch, lanes)
    with ThreadPoolExecutor(readers) as pool:
        found = list(pool.map(lambda tiles: _embed(engine, tiles, size), slides))
    for tiles, features in zip(slides, found, strict=True):
        np.testing.assert_array_equal(features, _plainly(encoder, tiles, batch) if len(tiles) else features)


class _Counted(nn.Module):
    """Means of the tiles' channels, which notes what came in; ``most`` tiles fit into its memory."""

    def __init__(self, most: int = 10**6) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.mean((2, 3))


def _counting(encoder: Encoder, most: int = 10**6) -> tuple[Encoder, _Counted]:
    module = _Counted(most)
    return replace(encoder, module=module, dim=3, fixed_input=False, patch=1), module


def test_batches_are_filled_across_slides(encoder: Encoder) -> None:
    """Ten slides of three tiles, four at a time, are 30 tiles: four batches of 8, not ten."""
    counting, module = _counting(encoder)
    engine = Engine(counting, None, 8)
    together = threading.Barrier(10)

    def read(seed: int) -> Iterator[tuple[Block, Valid]]:
        together.wait()  # all of them have begun before the first has ended
        yield _tiles(3, seed), np.zeros(3, np.uint8)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda seed: engine.embed(read(seed), np.empty((3, 3), np.float32)), range(10)))
    assert [shape[0] for shape in module.seen] == [8] * 4


def test_lanes_compute_at_the_same_time(encoder: Encoder) -> None:
    class Meeting(nn.Module):
        """Goes on only once two batches are here."""

        def __init__(self) -> None:
            super().__init__()
            self.both = threading.Barrier(2)

        def forward(self, images: Tensor) -> Tensor:
            self.both.wait(30)
            return images.mean((2, 3))

    engine = Engine(replace(encoder, module=Meeting(), dim=3), None, 4, lanes=2)
    assert np.isfinite(_embed(engine, _tiles(16, 0))).all()


def test_a_reader_that_fails_harms_nobody(encoder: Encoder) -> None:
    engine = Engine(encoder, None, 8)
    tiles = _tiles(20, 1)

    def broken() -> Iterator[tuple[Block, Valid]]:
        yield tiles[:3], np.zeros(3, np.uint8)
        raise OSError("the disk is gone")

    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(engine.embed, broken(), np.empty((20, encoder.dim), np.float32))
        good = pool.submit(_embed, engine, tiles)
        with pytest.raises(OSError, match="the disk is gone"):
            bad.result()
        np.testing.assert_array_equal(good.result(), _plainly(encoder, tiles, 8))


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_the_encoder_raises_reaches_every_reader_and_the_next_one_starts_anew(
    encoder: Encoder, lanes: int
) -> None:
    class Broken(nn.Module):
        broken = True

        def forward(self, images: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("device-side assert")
            return images.mean((2, 3))

    module = Broken()
    engine = Engine(replace(encoder, module=module, dim=3), None, 4, lanes)
    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(_embed, engine, _tiles(30, seed)) for seed in range(3)]:
            with pytest.raises(RuntimeError, match="device-side assert"):
                job.result()
    module.broken = False
    np.testing.assert_allclose(_embed(engine, _tiles(9, 0)), _plainly(engine.encoder, _tiles(9, 0), 4))


def test_tiles_of_another_size_get_a_batch_of_their_own(encoder: Encoder) -> None:
    engine = Engine(encoder, None, 8)
    slides = [_tiles(5 + seed, seed, (64, 96)[seed % 2]) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda tiles: _embed(engine, tiles, 4), slides))
    for tiles, features in zip(slides, found, strict=True):
        np.testing.assert_array_equal(features, _plainly(encoder, tiles, 8))


def test_short_memory_halves_what_goes_through_at_once(encoder: Encoder) -> None:
    counting, module = _counting(encoder, most=3)
    engine = Engine(counting, None, 16)
    tiles = _tiles(40, 2)
    np.testing.assert_array_equal(_embed(engine, tiles), _embed(Engine(_counting(encoder)[0], None, 16), tiles))
    assert engine.at_once == 2
    assert [shape[0] for shape in module.seen[:4]] == [16, 8, 4, 2]
    with pytest.raises(torch.OutOfMemoryError):
        _embed(Engine(_counting(encoder, most=0)[0], None, 4), tiles)


def test_tiles_are_changed_before_they_are_embedded(encoder: Encoder) -> None:
    engine = Engine(encoder, lambda tiles: 255 - tiles, 8)
    tiles = _tiles(11, 3)
    np.testing.assert_array_equal(_embed(engine, tiles), _plainly(encoder, 255 - tiles, 8))


def test_half_precision_features_are_the_others_rounded(encoder: Encoder) -> None:
    tiles = _tiles(9, 4)
    half = np.empty((9, encoder.dim), np.float16)
    Engine(encoder, None, 8).embed(_blocks(tiles, 4), half)
    np.testing.assert_array_equal(half, _plainly(encoder, tiles, 8).astype(np.float16))


def test_no_tiles_no_features(encoder: Encoder) -> None:
    features: Any = np.empty((0, encoder.dim), np.float32)
    assert Engine(encoder, None, 8).embed([], features).shape == (0,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_readers_side_by_side_get_the_cpus_features(encoder: Encoder) -> None:
    there = load_encoder("untrained:vit-demo@3", torch.device("cuda"), tile_px=PX)
    engine = Engine(there, None, 32)
    slides = [_tiles(17 * seed, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda tiles: _embed(engine, tiles, 7), slides))
    for tiles, features in zip(slides[1:], found[1:], strict=True):
        expected = torch.from_numpy(_plainly(encoder, tiles, 8))
        assert float(torch.cosine_similarity(torch.from_numpy(features), expected).min()) > 0.9999
