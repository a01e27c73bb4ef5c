"""Compiled code is used where it works and agrees, and nothing is lost where it does not."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsi_lmc.compiling import Checked, CheckedNetwork
from wsi_lmc.encoder import EncoderConfig, build_encoder

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def _double(values: Tensor) -> tuple[Tensor, ...]:
    return (values * 2 + 1,)


@needs_compiler
def test_compiled_code_that_agrees_is_used() -> None:
    checked = Checked(_double, 1e-6)
    assert checked.used == "undecided"
    for _ in range(3):
        torch.testing.assert_close(checked(torch.arange(5.0))[0], torch.arange(5.0) * 2 + 1)
    assert checked.used == "compiled"


_VIEWS = """
import torch
from wsi_lmc.compiling import Checked
from wsi_lmc.stain import RUIFROK, ViewConfig, draw_views, turned_planes
from wsi_lmc.training.learner import view_images

for config in (ViewConfig("paper"), ViewConfig("robust", gamma=0.1, white_point=0.05, blur=1.0, jpeg=40)):
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (4, 32, 32, 3), generator=generator).to(torch.uint8)
    stains = torch.tensor(RUIFROK).expand(4, 2, 3).contiguous()
    checked = Checked(view_images, 2e-2 if config.jpeg else 1e-3)
    for _ in range(2):
        drawn = draw_views(4, config, generator)
        planes = turned_planes(tiles, drawn)
        found, expected = (call(planes, stains, drawn, config.mode)[0] for call in (checked, view_images))
        print(float((found - expected).abs().mean()), checked.used)
"""


@needs_compiler
def test_compiled_views_are_the_plain_ones() -> None:
    """In a process of its own: the type checks that pytest adds to every function cannot be compiled."""
    result = subprocess.run([sys.executable, "-c", _VIEWS], capture_output=True, text=True, check=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [used for _, used in lines] == ["compiled"] * 4
    assert all(float(difference) < 1e-4 for difference, _ in lines), "rounding may tip a coefficient of JPEG"


def test_code_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: lambda values: (values * 2 + 1.5,))
    checked = Checked(_double, 0.1)
    with caplog.at_level(logging.WARNING):
        assert float(checked(torch.ones(1))[0]) == 3
    assert float(checked(torch.ones(1))[0]) == 3
    assert checked.used == "eager"
    assert "differs by 0.5" in caplog.text


def test_a_compiler_that_fails_costs_speed_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(values: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: refuse)
    checked = Checked(_double, 0.1)
    with caplog.at_level(logging.WARNING):
        assert float(checked(torch.ones(1))[0]) == 3
    assert checked.used == "eager"
    assert "no C++ compiler" in caplog.text


def test_off_is_off() -> None:
    assert Checked(_double, 0.1, compiled=False).used == "eager"


def _network() -> tuple[nn.Module, Tensor]:
    images = torch.rand((6, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return build_encoder(EncoderConfig("vit-demo"), 64, 0), images


@needs_compiler
def test_a_compiled_network_gives_the_plain_ones_features_and_gradient() -> None:
    network, images = _network()
    checked, plain = (CheckedNetwork(network, torch.float32, compiled) for compiled in (True, False))
    assert (checked.used, plain.used) == ("undecided", "eager")
    gradients = []
    for each in (checked, plain):
        features = each(images)
        assert features.dtype == torch.float32
        gradients.append(torch.autograd.grad(features.square().sum(), network.get_parameter("blocks.1.mlp.fc1.weight")))
    assert checked.used == "compiled"
    cosine = nn.functional.cosine_similarity(*(gradient[0].flatten() for gradient in gradients), dim=0)
    assert float(cosine) > 0.999
    with torch.no_grad():
        torch.testing.assert_close(checked(images), plain(images), rtol=0, atol=1e-5)


class _GradientHalved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.cat([gradients[0][:3], gradients[0][3:] / 2])


def _features_of_others(features: Tensor) -> Tensor:
    return features.roll(1, 0)


@pytest.mark.parametrize(("change", "what"), [(_features_of_others, "features"), (_GradientHalved.apply, "gradient")])
def test_a_network_compiled_wrongly_is_not_used(
    change: Callable[[Tensor], Tensor], what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network, images = _network()
    monkeypatch.setattr(torch, "compile", lambda model, dynamic, mode: lambda given: change(model(given)))
    checked = CheckedNetwork(network, torch.float32, compiled=True)
    with caplog.at_level(logging.WARNING):
        found = checked(images)
    assert torch.equal(found, network(images))
    assert checked.used == "eager"
    assert f"the compiled network's {what} differs" in caplog.text


def test_a_network_that_cannot_be_compiled_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(images: Tensor) -> Tensor:
        raise RuntimeError("no C++ compiler")

    network, images = _network()
    monkeypatch.setattr(torch, "compile", lambda model, dynamic, mode: refuse)
    checked = CheckedNetwork(network, torch.float32, compiled=True)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(checked(images), network(images))
    assert "no C++ compiler" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(checked, "_compiled", _out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):  # is for who can make the batch smaller
            checked(images[:2])


def _out_of_memory(images: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory.")
