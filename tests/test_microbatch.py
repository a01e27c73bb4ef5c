"""Micro-batches give the whole batch's loss and gradients, shrink where memory is short, and give up with a reason."""

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wsi_lmc.batches import TileBatch
from wsi_lmc.errors import TrainingError
from wsi_lmc.loss import cross_correlation_loss
from wsi_lmc.stain import RUIFROK
from wsi_lmc.training import TrainConfig
from wsi_lmc.training.learner import Learner
from wsi_lmc.training.microbatch import PairedBatch

CONFIG = TrainConfig(steps=4, batch=10, seed=5, device="cpu", architecture="vit-demo", precision="float32")


def _batch(count: int = 10) -> TileBatch:
    tiles = torch.randint(40, 256, (count, 64, 64, 3), generator=torch.Generator().manual_seed(count))
    return TileBatch(tiles.to(torch.uint8), torch.tensor(RUIFROK).expand(count, 2, 3).contiguous())


@pytest.mark.parametrize("micro", [1, 3, 5, 9, 10, 50])
def test_loss_and_gradient_are_those_of_the_plain_formula(micro: int) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 10, 6, generator=generator)
    network = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    expected = cross_correlation_loss(network(first), network(second), 0.005).total
    gradients = torch.autograd.grad(expected, list(network.parameters()))

    def render(part: slice) -> tuple[Tensor, Tensor]:
        return torch.cat([first[part], second[part]]), first[part].mean()

    pairs = PairedBatch(network, render, 10)
    embedded, share = pairs.embed(micro)
    one, other = embedded.requires_grad_().chunk(2)
    loss = cross_correlation_loss(one, other, 0.005).total
    loss.backward()
    assert embedded.grad is not None
    pairs.propagate(embedded.grad, micro)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(share, first.mean())
    for weight, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-5)


def _steps(config: TrainConfig, count: int = 2) -> tuple[list[dict[str, float]], Learner]:
    learner = Learner(config, 64)
    return [learner.learn(_batch(), describe=True) for _ in range(count)], learner


@pytest.mark.parametrize("micro", [3, 5])
def test_a_step_in_micro_batches_is_the_step_of_the_whole(micro: int) -> None:
    whole, of_whole = _steps(CONFIG)
    parts, of_parts = _steps(replace(CONFIG, micro_batch=micro))
    for one, other in zip(whole, parts, strict=True):
        assert one.pop("micro_batch") == 10
        assert other.pop("micro_batch") == micro
        assert one == pytest.approx(other, rel=1e-4)
    assert of_whole.evaluate([_batch(7)]) == pytest.approx(of_parts.evaluate([_batch(7)]), rel=1e-3)


def _short_above(learner: Learner, images: int, backward: bool = False) -> None:
    """Memory that holds ``images`` images: more make the network fail, as a GPU's allocator does."""

    def refuse(values: Tensor) -> None:
        if len(values) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def refuse_gradient(module: nn.Module, given: object, result: Tensor) -> None:
        if result.requires_grad:
            result.register_hook(refuse)

    if backward:
        learner.model.register_forward_hook(refuse_gradient)
    else:
        learner.model.register_forward_pre_hook(lambda module, given: refuse(given[0]))


@pytest.mark.parametrize("backward", [False, True])
def test_the_same_step_is_repeated_in_parts_that_fit(backward: bool, caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = _steps(CONFIG)
    learner = Learner(CONFIG, 64)
    _short_above(learner, 6, backward)
    with caplog.at_level(logging.WARNING):
        found = [learner.learn(_batch(), describe=True) for _ in range(2)]
    assert [metrics.pop("micro_batch") for metrics in found] == [3, 3], "10, 5, then 3 tiles, two views of each"
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx({k: v for k, v in one.items() if k != "micro_batch"}, rel=1e-4)
    assert caplog.messages == [
        f"out of memory at step 1: going on with {tiles} tiles at a time; the loss is still the whole batch's"
        for tiles in (5, 3)
    ]


def test_a_resumed_training_goes_on_in_the_parts_that_fitted() -> None:
    learner = Learner(CONFIG, 64)
    _short_above(learner, 6)
    learner.learn(_batch(), describe=False)
    resumed, asked = Learner(CONFIG, 64), Learner(replace(CONFIG, micro_batch=4), 64)
    resumed.restore(learner.state())
    asked.restore(learner.state())
    assert (resumed.micro, asked.micro) == (3, 4)
    assert resumed.learn(_batch(), describe=True) == learner.learn(_batch(), describe=True)


def test_memory_too_short_for_one_tile_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    learner = Learner(CONFIG, 64)
    _short_above(learner, 1)
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    with pytest.raises(TrainingError, match="out of memory on cpu at step 1, with one tile at a time"):
        learner.learn(_batch(), describe=False)
    assert all(torch.equal(weight, before[name]) for name, weight in learner.model.state_dict().items())
    assert (learner.step, learner.whole) == (0, True)


def test_other_failures_are_not_taken_for_a_shortage() -> None:
    learner = Learner(CONFIG, 64)
    learner.model.register_forward_pre_hook(lambda module, arguments: torch.ones(2, 3) @ torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        learner.learn(_batch(), describe=False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_trains_as_the_plain_one_does() -> None:
    config = replace(CONFIG, precision="bfloat16")
    plain, _ = _steps(config, 3)
    compiled, learner = _steps(replace(config, compile_model="yes"), 3)
    assert learner.compiled == "compiled"
    for one, other in zip(plain, compiled, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.02)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=0.1)


_LIMITED = """
import resource, sys
from pathlib import Path
import torch
from wsi_lmc.batches import TileBatch
from wsi_lmc.stain import RUIFROK
from wsi_lmc.training import TrainConfig
from wsi_lmc.training.learner import Learner

torch.set_num_threads(1)
count = 256
tiles = torch.randint(40, 256, (count, 64, 64, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
batch = TileBatch(tiles, torch.tensor(RUIFROK).expand(count, 2, 3).contiguous())
config = TrainConfig(steps=4, batch=count, device="cpu", precision="float32")

def learn():
    learner = Learner(config, 64)
    return learner.learn(batch, describe=False)

Learner(config, 64).evaluate([batch])  # whatever libraries set up at their first use
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (used + 800_000_000, resource.RLIM_INFINITY))
metrics = learn()
print(metrics["loss"], metrics["gradient_norm"], metrics["micro_batch"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_a_real_shortage_changes_nothing_but_the_parts() -> None:
    found = []
    for limit in ("free", "limited"):
        command = [sys.executable, "-c", _LIMITED, limit]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr[-2000:]
        found.append([float(word) for word in result.stdout.split()])
    (loss, norm, whole), (limited_loss, limited_norm, micro) = found
    assert whole == 256
    assert micro in (128, 64, 32, 16, 8)
    assert (limited_loss, limited_norm) == pytest.approx((loss, norm), rel=1e-4)


_FILLED = """
import mmap, os, resource, sys
from pathlib import Path
import torch
from wsi_lmc.batches import TileBatch
from wsi_lmc.stain import RUIFROK
from wsi_lmc.training import TrainConfig
from wsi_lmc.training.learner import Learner

torch.set_num_threads(1)
tiles = torch.randint(40, 256, (8, 32, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
batch = TileBatch(tiles, torch.tensor(RUIFROK).expand(8, 2, 3).contiguous())

def new_learner():
    return Learner(TrainConfig(steps=4, batch=8, device="cpu", precision=sys.argv[1], architecture="vit-demo"), 32)

expected = new_learner().learn(batch, describe=False)
learner, small = new_learner(), batch.tiles[:3]
learner.evaluate([TileBatch(small, batch.stains[:3])])
held, attempts = [], []

def fill_memory(module, arguments):
    attempts.append(len(arguments[0]))
    if len(attempts) > 1:
        held.clear()
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, resource.RLIM_INFINITY))
    for size in (1 << 20, 1 << 16, 1 << 12):
        while True:
            try:
                held.append(mmap.mmap(-1, size))
            except OSError:
                break

learner.model.register_forward_pre_hook(fill_memory)
learner.micro = 6  # a size that no primitive was made for
metrics = learner.learn(batch, describe=False)
print(attempts[0], metrics["micro_batch"], metrics["loss"] / expected["loss"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_onednn_that_gives_up_for_ever_does_not_end_the_training(precision: str, rounding: float) -> None:
    command = [sys.executable, "-c", _FILLED, precision]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "oneDNN got no memory" in result.stderr
    first, micro, ratio = (float(word) for word in result.stdout.split())
    assert first == 12
    assert micro in (3, 2, 1)
    assert ratio == pytest.approx(1, abs=rounding)
