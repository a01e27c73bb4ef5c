"""A training that diverges or collapses says so, before it does harm; and memory that is short halves the batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_TRAIN = [sys.executable, "-m", "wsi_lmc", "train", "--architecture", "vit-demo", "--batch", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def tiled(six_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiled")
    command = [sys.executable, "-m", "wsi_lmc", "tile", str(six_slides), "-o", str(out), "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def train(tiled: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*_TRAIN, str(tiled), "-o", str(out), "-q", *flags]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.row(20)
def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_its_states(tiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoint"
    flags = ("--steps", "8", "--lr", "1e30", "--warmup-share", "0", "--checkpoint-every", "1")
    diverged = train(tiled, out, *flags)
    assert diverged.returncode == 1, diverged.stderr
    assert "expected a finite number" in diverged.stderr
    assert list(out.glob("state-*.pt")), "what was saved before is there"
    assert not (out / "encoder").exists()


@pytest.mark.row(20)
def test_features_that_collapse_are_warned_of(tiled: Path, tmp_path: Path) -> None:
    """Weight decay of ten times the weights a step leaves nothing of them, so all features fall onto one direction."""
    flags = ("--steps", "30", "--lr", "0.1", "--weight-decay", "9.9", "--evaluate-every", "10")
    collapsed = train(tiled, tmp_path / "checkpoint", *flags)
    assert "the features have collapsed onto one direction (effective rank" in collapsed.stderr, collapsed.stderr


_SHORT_OF_MEMORY = """
import resource, sys
import numpy as np, torch
from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.engine import Engine

torch.set_num_threads(1)
encoder = load_encoder("untrained:vit-demo", resolve_device("cpu"))
tiles = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), dtype=np.uint8)
blocks = lambda: iter([(tiles, np.zeros(64, np.uint8))])
expected = np.empty((64, encoder.dim), np.float32)
Engine(encoder, None, 1).embed(blocks(), expected)
engine = Engine(encoder, None, 64)
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + 48_000_000, resource.RLIM_INFINITY))
found = np.empty_like(expected)
engine.embed(blocks(), found)
np.save(sys.argv[1], np.stack([expected, found]))
print(engine.at_once)
"""


@pytest.mark.row(19)
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux counts it")
def test_memory_that_is_short_halves_the_batch_and_changes_no_feature(tmp_path: Path) -> None:
    """Of the processor here, really: a batch of 64 needs more than this process may have."""
    command = [sys.executable, "-c", _SHORT_OF_MEMORY, str(tmp_path / "features.npy")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) < 64
    expected, found = np.load(tmp_path / "features.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


_ONEDNN_GIVES_UP = """
import mmap, os, resource
from pathlib import Path
import numpy as np, torch
from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.engine import Engine

torch.set_num_threads(1)
encoder = load_encoder("untrained:vit-demo", resolve_device("cpu"), tile_px=64)
tiles = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
blocks = lambda: iter([(tiles, np.zeros(8, np.uint8))])
expected, found = np.empty((8, encoder.dim), np.float32), np.empty((8, encoder.dim), np.float32)
Engine(encoder, None, 1).embed(blocks(), expected)
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

encoder.module.register_forward_pre_hook(fill_memory)
engine = Engine(encoder, None, 8)
engine.embed(blocks(), found)
print(attempts[0], engine.at_once, float(np.abs(found - expected).max()))
"""


@pytest.mark.row(19)
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux counts it")
def test_onednn_that_gives_up_for_ever_does_not_end_the_embedding() -> None:
    done = subprocess.run([sys.executable, "-c", _ONEDNN_GIVES_UP], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "oneDNN got no memory" in done.stderr
    first, at_once, difference = (float(word) for word in done.stdout.split())
    assert first == 8
    assert at_once in (4, 2, 1)
    assert difference < 1e-3
