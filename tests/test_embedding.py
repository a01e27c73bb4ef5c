"""A store's tiles come in order, whichever rows are asked for; settings are resolved; other scales are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_lmc.embedding import EmbedConfig, check_mpp, store_blocks
from wsi_lmc.encoder import Encoder, computes_bfloat16, load_encoder, resolve_device
from wsi_lmc.errors import SlideError, UsageError
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore, Validity
from wsi_lmc.tilewriter import TileStoreWriter


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("untrained:vit-demo@3", resolve_device("cpu"))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [range(600), range(0), range(10, 11), range(200, 590), range(256, 512)])
def test_rows_of_a_store_come_in_order(tmp_path: Path, threads: int, rows: range) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (600, 16, 16, 3), dtype=np.uint8)
    valid = np.where(np.arange(600) % 7 == 0, Validity.PADDED, Validity.OK).astype(np.uint8)
    writer = TileStoreWriter(tmp_path / "s.zarr", len(tiles), 16, "lossless")
    writer.write(0, tiles, Threads())
    about = {"slide": {"id": "s"}, "tile": {"px": 16}, "slide_fingerprint": "a", "config_fingerprint": "b"}
    writer.close(TileRows(np.zeros((600, 2), np.int32), np.ones(600, np.float32), valid), about)
    pixels, said = [np.empty((0, 16, 16, 3), np.uint8)], [np.empty(0, np.uint8)]
    with Threads(threads) as pool:
        for block, block_valid in store_blocks(TileStore.open(tmp_path / "s.zarr"), rows, pool):
            pixels.append(block.copy())
            said.append(block_valid)
    np.testing.assert_array_equal(np.concatenate(pixels), tiles[rows.start : rows.stop])
    np.testing.assert_array_equal(np.concatenate(said), valid[rows.start : rows.stop])


def test_tiles_of_another_scale_are_refused(encoder: Encoder) -> None:
    trained = replace(encoder, trained_mpp=0.5)
    check_mpp(trained, 0.505, EmbedConfig())
    check_mpp(trained, 0.25, EmbedConfig(any_mpp=True))
    check_mpp(encoder, 0.25, EmbedConfig())
    with pytest.raises(SlideError) as caught:
        check_mpp(trained, 0.25, EmbedConfig())
    assert caught.value.code == "mpp_mismatch"
    assert "--tile-mpp 0.5" in caught.value.remedy


def test_precision_is_resolved_by_the_device_and_the_device_by_the_backend() -> None:
    cpu = torch.device("cpu")
    assert EmbedConfig().precision_on(cpu) == ("bfloat16" if computes_bfloat16(cpu) else "float32")
    for precision in ("float32", "bfloat16"):
        assert EmbedConfig(precision=precision).precision_on(cpu) == precision
    assert EmbedConfig(backend="openvino").device_here() == cpu
    assert EmbedConfig().device_here() == resolve_device("auto")


def test_batches_fit_the_device() -> None:
    assert EmbedConfig().batch_on(torch.device("cpu")) < EmbedConfig().batch_on(torch.device("cuda"))
    assert EmbedConfig(batch=5).batch_on(torch.device("cuda")) == 5
    for batch, block in ((-1, 1), (1, 0)):
        with pytest.raises(UsageError, match="batch"):
            EmbedConfig(batch=batch, block=block)
