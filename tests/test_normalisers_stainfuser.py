"""StainFuser on tiny random networks of its own architecture, in files of its own layout, end to end on the CPU."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wsi_lmc.encoder import load_encoder
from wsi_lmc.engine import Engine
from wsi_lmc.errors import UsageError
from wsi_lmc.normalisers import load_normaliser, normaliser_fingerprint
from wsi_lmc.normalisers.stainfuser import StainFuser, load_networks

CPU = torch.device("cpu")
WIDTHS = [8, 8, 16, 16]
UNET: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4,
    "block_out_channels": WIDTHS, "attention_head_dim": [1, 1, 2, 2], "cross_attention_dim": 12,
    "use_linear_projection": True, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
VAE: dict[str, Any] = {
    "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "block_out_channels": WIDTHS,
    "scaling_factor": 0.18215, "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


@pytest.fixture
def weights(oracle: Callable[[str], ModuleType], tmp_path: Path) -> Path:
    """A folder as the authors' files make it, of random networks under the authors' names of parameters."""
    diffusers = oracle("diffusers")
    torch.manual_seed(7)
    unet = diffusers.UNet2DConditionModel(**UNET)
    control = diffusers.ControlNetModel.from_unet(unet)
    parts = {"encoder": diffusers.AutoencoderKL(**VAE), "conditioner": control, "noise_predictor": unet}
    for part in (unet, control):
        part.encoder_projector = nn.Linear(4, 12)
    state = nn.ModuleDict(parts).state_dict()
    # a new ControlNet ends in zeros, which would hide that it is used at all
    state = {name: value + 0.05 * torch.randn_like(value) for name, value in state.items()}
    folder = tmp_path / "stainfuser"
    folder.mkdir()
    save_file(state, folder / "checkpoint.safetensors")
    for part, config in (("unet", UNET), ("vae", VAE), ("scheduler", SCHEDULER)):
        (folder / f"sd21b_{part}_config.json").write_text(json.dumps(config))
    return folder


def _tiles(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


REFERENCE = _tiles(1, 72, 64, 1)[0]


def test_the_same_seed_gives_the_same_pixels_whatever_the_neighbours(weights: Path) -> None:
    tiles = _tiles(3, 64, 72, 2)
    normalise = StainFuser(*load_networks(weights), REFERENCE, steps=4)
    first = normalise(tiles)
    assert (first.dtype, first.shape) == (torch.uint8, tiles.shape)
    assert torch.equal(normalise(tiles), first), "a second call starts from the same noise"
    assert torch.equal(StainFuser(*load_networks(weights), REFERENCE, steps=4)(tiles), first)
    alone = normalise(tiles[1:2])
    assert int((alone[0].int() - first[1].int()).abs().max()) <= 1, "within rounding of another batch size"
    assert not torch.equal(StainFuser(*load_networks(weights), REFERENCE, steps=4, seed=1)(tiles), first)


def test_source_reference_and_every_network_count(weights: Path) -> None:
    tiles = _tiles(1, 64, 64, 3)
    before = StainFuser(*load_networks(weights), REFERENCE, steps=2)(tiles)
    assert not torch.equal(StainFuser(*load_networks(weights), 255 - REFERENCE, steps=2)(tiles), before)
    assert not torch.equal(StainFuser(*load_networks(weights), REFERENCE, steps=2)(255 - tiles), before)
    for part in ("encoder.decoder.conv_out.bias", "conditioner.encoder_projector.bias"):
        networks, scheduler = load_networks(weights)
        networks.get_parameter(part).data += 1.0
        assert not torch.equal(StainFuser(networks, scheduler, REFERENCE, steps=2)(tiles), before), part


def test_it_is_the_published_loop(weights: Path, oracle: Callable[[str], ModuleType]) -> None:
    """Written out once more, plainly, for one tile: control, noise, PNDM step; then the decoder."""
    networks, _ = load_networks(weights)
    tile = _tiles(1, 64, 64, 4)
    found = StainFuser(*load_networks(weights), REFERENCE[:64], steps=5)(tile)
    parts: dict[str, Any] = dict(networks.named_children())
    vae, control, unet = parts["encoder"], parts["conditioner"], parts["noise_predictor"]
    scheduler = oracle("diffusers").PNDMScheduler(**{k: v for k, v in SCHEDULER.items() if k[0] != "_"})
    generator = torch.Generator().manual_seed(0)
    image, reference = (tiles.permute(0, 3, 1, 2) / 255 for tiles in (tile, REFERENCE[None, :64]))
    with torch.inference_mode():
        words = vae.encode(reference).latent_dist.sample(generator) * 0.18215
        latents = torch.randn(words.shape, generator=generator)
        words = words.reshape(1, 4, 64).permute(0, 2, 1)
        scheduler.set_timesteps(5)
        for step in scheduler.timesteps:
            down, middle = control(latents, step, control.encoder_projector(words), image, return_dict=False)
            residual = unet(latents, step, unet.encoder_projector(words), down_block_additional_residuals=down,
                            mid_block_additional_residual=middle).sample  # fmt: skip
            latents = scheduler.step(residual, step, latents).prev_sample
        shown = (vae.decode(latents / 0.18215).sample.clamp(-1, 1) + 1) * 127.5
    assert int((found[0].permute(2, 0, 1) - shown[0]).abs().max()) <= 1


@pytest.mark.parametrize(("height", "width"), [(61, 64), (64, 69), (75, 90)])
def test_a_tile_of_any_size_keeps_it(height: int, width: int, weights: Path) -> None:
    tiles = _tiles(9, height, width, 5)  # more than are painted at once
    found = StainFuser(*load_networks(weights), REFERENCE, steps=1)(tiles)
    assert found.shape == tiles.shape


def test_by_name_before_an_encoder(weights: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    cv2.imwrite(str(reference), REFERENCE.numpy()[..., ::-1])
    normalise = load_normaliser("stainfuser", str(reference), str(weights), CPU)
    assert isinstance(normalise, StainFuser)
    encoder = load_encoder("untrained:vit-demo", CPU, tile_px=64)
    tiles = _tiles(2, 64, 64, 6)
    features = np.empty((2, encoder.dim), np.float32)
    Engine(encoder, normalise, 2).embed([(tiles.numpy(), np.zeros(2, np.uint8))], features)
    np.testing.assert_allclose(features, encoder.embed(normalise(tiles)).numpy(), rtol=1e-5)

    before = normaliser_fingerprint("stainfuser", str(reference), str(weights))
    assert normaliser_fingerprint("stainfuser", str(reference), str(weights)) == before
    config = weights / "sd21b_scheduler_config.json"
    config.write_text(config.read_text() + " ")
    assert normaliser_fingerprint("stainfuser", str(reference), str(weights)) != before


@pytest.mark.parametrize(
    "name", ["checkpoint.safetensors", "sd21b_unet_config.json", "sd21b_vae_config.json", "sd21b_scheduler_config.json"]
)
def test_a_missing_file_is_named(name: str, weights: Path) -> None:
    (weights / name).unlink()
    with pytest.raises(UsageError, match=f"no {name} in .*R-J/StainFuser"):
        load_networks(weights)


@pytest.mark.parametrize("name", ["checkpoint.pth", "diffusion_pytorch_model.bin"])
def test_pickles_are_never_read(name: str, weights: Path) -> None:
    torch.save(load_file(weights / "checkpoint.safetensors"), weights / name)
    (weights / "checkpoint.safetensors").unlink()
    with pytest.raises(UsageError, match=f"{name}, a pickle.*pickles are never read"):
        load_networks(weights)


def test_a_missing_component_another_network_and_torn_files_are_refused(weights: Path) -> None:
    path, whole = weights / "checkpoint.safetensors", load_file(weights / "checkpoint.safetensors")
    save_file({name: value for name, value in whole.items() if not name.startswith("conditioner.")}, path)
    with pytest.raises(UsageError, match=r"holds no StainFuser .*Missing key"):
        load_networks(weights)
    save_file(whole | {"noise_predictor.conv_in.bias": torch.zeros(9)}, path)
    with pytest.raises(UsageError, match=r"holds no StainFuser .*size mismatch"):
        load_networks(weights)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UsageError, match="holds no StainFuser"):
        load_networks(weights)
    save_file(whole, path)
    (weights / "sd21b_unet_config.json").write_text('{"in_channels":')
    with pytest.raises(UsageError, match="holds no StainFuser"):
        load_networks(weights)


def test_without_the_extra_it_says_how_to_get_it(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as Python itself marks what cannot be imported
    with pytest.raises(UsageError, match=r"pip install 'wsi-lmc\[diffusion\]'"):
        load_networks(weights)
