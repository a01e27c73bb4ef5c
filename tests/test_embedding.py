"""Features do not depend on how tiles come in, and other scales are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wsi_lmc.embedding import EmbedConfig, check_mpp, embed_blocks
from wsi_lmc.encoder import Encoder, load_encoder, resolve_device
from wsi_lmc.errors import SlideError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("untrained:vit-demo@3", resolve_device("cpu"))


def test_rows_keep_their_order_and_are_the_encoders(encoder: Encoder) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (11, 256, 256, 3), dtype=np.uint8)
    validity = (np.arange(11) % 4).astype(np.uint8)
    blocks = [(tiles[:6], validity[:6]), (tiles[6:], validity[6:])]
    found, valid = embed_blocks(encoder, blocks, 11, EmbedConfig(batch=4))
    assert (found.dtype, found.shape) == (np.float32, (11, encoder.dim))
    np.testing.assert_array_equal(valid, validity)
    for row in (0, 5, 6, 10):
        alone = encoder.embed(torch.from_numpy(tiles[row : row + 1]))[0].numpy()
        np.testing.assert_allclose(found[row], alone, atol=1e-4)
    half, _ = embed_blocks(encoder, blocks, 11, EmbedConfig(batch=4, dtype="float16"))
    np.testing.assert_array_equal(half, found.astype(np.float16))


def test_no_tiles_give_an_empty_array(encoder: Encoder) -> None:
    features, valid = embed_blocks(encoder, [], 0, EmbedConfig())
    assert features.shape == (0, encoder.dim)
    assert valid.shape == (0,)


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
    assert EmbedConfig().precision_on(cpu) == "float32"
    for precision in ("float32", "bfloat16"):
        assert EmbedConfig(precision=precision).precision_on(cpu) == precision
    assert EmbedConfig(backend="openvino").device_here() == cpu
    assert EmbedConfig().device_here() == resolve_device("auto")
