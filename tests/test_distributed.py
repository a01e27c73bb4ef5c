"""Two processes that train on one batch do what one process does: the loss, its gradient, and the whole training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wsi_lmc.loss import cross_correlation_loss

_GRADIENT = """
import sys
from pathlib import Path
import torch
from wsi_lmc.loss import cross_correlation_loss
from wsi_lmc.training.group import joined

def work(group):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(32, 12, generator=generator) for _ in range(2))
    network = torch.nn.Linear(12, 7, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.randn(7, 12, generator=torch.Generator().manual_seed(1)))
    part = group.share(32)
    both = network(torch.cat([first[part], second[part]]))
    terms = cross_correlation_loss(*both.chunk(2), 0.005, group.total)
    terms.total.backward()
    group.average(network.weight.grad)
    torch.save({"loss": terms.total.detach(), "gradient": network.weight.grad}, f"{sys.argv[1]}/{group.rank}.pt")

with joined("cpu", 32) as group:
    work(group)
names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
assert not any("gloo" in name for name in names), names  # such a thread can abort the process at its end
"""


def _torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_gradient_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    script = tmp_path / "gradient.py"
    script.write_text(_GRADIENT)
    result = _torchrun(2, str(script), str(tmp_path))
    assert result.returncode == 0, result.stderr[-2000:]
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(32, 12, generator=generator) for _ in range(2))
    weight = torch.randn(7, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
    expected = cross_correlation_loss(first @ weight.T, second @ weight.T, 0.005).total
    expected.backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["loss"], expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["gradient"], weight.grad, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def tiled(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiles of four synthetic slides."""
    run = tmp_path_factory.mktemp("two") / "run"
    tile = ["-m", "wsi_lmc", "tile", str(small_cohort / "manifest.csv"), "-o", str(run), "--workers", "0", "--quiet"]
    subprocess.run([sys.executable, *tile], check=True, capture_output=True)
    return run


def test_a_training_of_two_processes_is_that_of_one(tiled: Path, tmp_path: Path) -> None:
    settings = ["--steps", "6", "--batch", "8", "--architecture", "vit-demo", "--log-every", "1", "--device", "cpu"]
    settings += ["--precision", "float32"]
    for processes in (1, 2):
        out = tmp_path / str(processes)
        result = _torchrun(processes, "-m", "wsi_lmc", "train", str(tiled), "-o", str(out), *settings, "--quiet")
        assert result.returncode == 0, result.stderr[-2000:]
        assert result.stdout.count("encoder in") == 1, "said once"
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("1", "2")
    )
    np.testing.assert_allclose([row["loss"] for row in one[1:]], [row["loss"] for row in two[1:]], rtol=2e-3)
    weights = [load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("1", "2")]
    for name, value in weights[0].items():
        if value.ndim > 1:  # some biases have no gradient but rounding, of which AdamW makes whole steps
            assert float((value - weights[1][name]).abs().mean()) < 1e-5, name


def test_a_batch_that_cannot_be_shared_is_refused(tiled: Path, tmp_path: Path) -> None:
    arguments = ["train", str(tiled), "-o", str(tmp_path / "c"), "--batch", "9", "--steps", "2", "--device", "cpu"]
    result = _torchrun(2, "-m", "wsi_lmc", *arguments)
    assert result.returncode != 0
    assert "a batch of 9 for 2 processes" in result.stderr
