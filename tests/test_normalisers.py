"""Normalisers against torchstain and its own golden picture, networks by their published parameter names, bad input."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wsi_lmc.errors import UsageError
from wsi_lmc.normalisers import Normaliser, load_normaliser, normaliser_fingerprint
from wsi_lmc.normalisers.colour import Macenko, Reinhard
from wsi_lmc.normalisers.generators import StainGan, StainNet, load_generator
from wsi_lmc.patches import read_image

CPU = torch.device("cpu")


def _tile(seed: int, stains: object = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    share, strength = rng.beta(0.5, 0.5, (64, 80, 1)), rng.gamma(5.0, 0.2, (64, 80, 1))
    density = strength * (share * np.asarray(stains)[0] + (1 - share) * np.asarray(stains)[1])
    return torch.from_numpy(np.clip(np.rint(255 * np.exp(-density)), 0, 255).astype(np.uint8))


REFERENCE = _tile(0, ((0.56, 0.76, 0.33), (0.18, 0.89, 0.42)))
SOURCES = torch.stack([_tile(1), _tile(2)])


def test_macenko_is_torchstains(oracle: Callable[[str], ModuleType]) -> None:
    theirs = oracle("torchstain.torch.normalizers.macenko").TorchMacenkoNormalizer()
    theirs.fit(REFERENCE.permute(2, 0, 1))
    ours = Macenko.fit(REFERENCE)(SOURCES)
    for row, tile in enumerate(SOURCES):
        expected, _, _ = theirs.normalize(tile.permute(2, 0, 1))
        assert float((ours[row].int() - expected).abs().float().mean()) < 0.7, "its percentiles take the nearest rank"


@pytest.mark.parametrize("name", ["macenko", "reinhard"])
def test_real_tissue_comes_out_as_torchstains(name: str, test_data: Path, oracle: Callable[[str], ModuleType]) -> None:
    golden = test_data / "golden" / "torchstain"
    source, target = (torch.from_numpy(read_image(golden / f"{name}.png")) for name in ("source", "target"))
    module = oracle(f"torchstain.torch.normalizers.{name}")
    theirs = getattr(module, f"Torch{name.capitalize()}Normalizer")()
    theirs.fit(target.permute(2, 0, 1))
    expected = theirs.normalize(source.permute(2, 0, 1))
    if name == "macenko":
        expected = expected[0]
    ours = (Macenko if name == "macenko" else Reinhard).fit(target)(source[None])[0]
    assert float((ours.int() - expected.reshape(ours.shape).int()).abs().float().mean()) < 1.0


def test_reinhard_is_torchstains(oracle: Callable[[str], ModuleType]) -> None:
    theirs = oracle("torchstain.torch.normalizers.reinhard").TorchReinhardNormalizer()
    theirs.fit(REFERENCE.permute(2, 0, 1))
    ours = Reinhard.fit(REFERENCE)(SOURCES)
    for row, tile in enumerate(SOURCES):
        expected = theirs.normalize(tile.permute(2, 0, 1))
        if expected.shape[0] == 3:
            expected = expected.permute(1, 2, 0)
        assert float((ours[row].int() - expected.int()).abs().float().mean()) < 1.0


@pytest.mark.parametrize("kind", [Reinhard, Macenko])
def test_neighbours_and_hopeless_tiles_change_nothing(kind: type[Reinhard] | type[Macenko]) -> None:
    normalise = kind.fit(REFERENCE)
    blank, black, green = (torch.full((64, 80, 3), value, dtype=torch.uint8) for value in (255, 0, 0))
    green[..., 1] = 180
    together = normalise(torch.stack([blank, SOURCES[0], black, green]))
    assert together.dtype == torch.uint8
    assert torch.equal(together[1], normalise(SOURCES[:1])[0])
    for row, tile in ((0, blank), (2, black), (3, green)):
        assert torch.equal(together[row], tile), "as it came"


def test_normalised_tiles_look_like_the_reference() -> None:
    for kind in (Reinhard, Macenko):
        before, after = (
            (tiles.float().mean((0, 1, 2)) - REFERENCE.float().mean((0, 1))).abs().sum()
            for tiles in (SOURCES, kind.fit(REFERENCE)(SOURCES))
        )
        assert float(after) < 0.5 * float(before)


PUBLISHED = {
    StainNet: {"rgb_trans.0.weight": (32, 3, 1, 1), "rgb_trans.2.bias": (32,), "rgb_trans.4.weight": (3, 32, 1, 1)},
    StainGan: {
        "model.1.weight": (64, 3, 7, 7), "model.4.weight": (128, 64, 3, 3), "model.7.weight": (256, 128, 3, 3),
        "model.10.conv_block.1.weight": (256, 256, 3, 3), "model.18.conv_block.5.bias": (256,),
        "model.19.weight": (256, 128, 3, 3), "model.22.weight": (128, 64, 3, 3), "model.26.weight": (3, 64, 7, 7),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", [StainNet, StainGan])
def test_parameters_are_the_published_ones(kind: type[StainNet] | type[StainGan]) -> None:
    state = kind().state_dict()
    for name, shape in PUBLISHED[kind].items():
        assert tuple(state[name].shape) == shape, name
    assert len(state) == {StainNet: 6, StainGan: 48}[kind]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("small", [lambda: StainNet(3, 8), lambda: StainGan(4, 2)])
def test_weights_of_a_user_repaint_tiles(small: Callable[[], torch.nn.Module], suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network, path = small(), tmp_path / f"w{suffix}"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}  # as DataParallel saves it
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = load_generator(small, path, CPU)(SOURCES)
    with torch.inference_mode():
        shown = network.eval()(SOURCES.permute(0, 3, 1, 2).float() / 127.5 - 1)
    expected = ((shown + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert float((found.float() - expected).abs().max()) <= 1


def test_weights_from_staingans_own_script_load(tmp_path: Path) -> None:
    """It trains with dropout by default, and old PyTorch saved statistics that instance norm never used."""

    def small() -> StainGan:
        return StainGan(4, 2)

    torch.manual_seed(4)
    state = small().state_dict()
    theirs = {name.replace("conv_block.5.", "conv_block.6."): value for name, value in state.items()}
    assert theirs.keys() != state.keys()
    save_file(theirs | {"model.2.running_mean": torch.ones(4)}, tmp_path / "theirs.safetensors")
    save_file(state, tmp_path / "ours.safetensors")
    found = [load_generator(small, tmp_path / f"{whose}.safetensors", CPU)(SOURCES) for whose in ("theirs", "ours")]
    assert torch.equal(*found)


def test_code_in_weights_is_never_run(tmp_path: Path) -> None:
    torch.save(StainNet(), tmp_path / "whole.pth")
    with pytest.raises(UsageError, match="cannot be read"):
        load_normaliser("stainnet", None, str(tmp_path / "whole.pth"), CPU)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(StainNet().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match="weights of another network"):
        load_normaliser("staingan", None, str(tmp_path / "net.safetensors"), CPU)


@pytest.mark.parametrize(
    ("name", "reference", "weights", "said"),
    [
        ("macenko", None, None, "macenko without --reference"),
        ("stainnet", None, None, "stainnet without --weights"),
        ("none", "here", None, "--reference with --normalise none"),
        ("reinhard", "nowhere.png", None, "does not exist"),
    ],
)
def test_what_is_missing_or_given_in_vain_is_said(name: str, reference: str, weights: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_normaliser(name, reference, weights, CPU)  # pyright: ignore[reportArgumentType]  pytest gives plain strings


def test_by_name(tmp_path: Path) -> None:
    path = tmp_path / "reference.png"
    cv2.imwrite(str(path), REFERENCE.numpy()[..., ::-1])
    assert load_normaliser("none", None, None, CPU) is None
    for name in ("reinhard", "macenko"):
        normalise = load_normaliser(name, str(path), None, CPU)
        assert isinstance(normalise, Normaliser)
        assert normalise(SOURCES).shape == SOURCES.shape
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(UsageError, match="no two stains"):
        load_normaliser("macenko", str(tmp_path / "blank.png"), None, CPU)


def test_what_decides_pixels_decides_the_fingerprint(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / f"{name}").mkdir()
        (tmp_path / name / "r.png").write_bytes(bytes([value]))
    first, same, other = (normaliser_fingerprint("macenko", str(tmp_path / n / "r.png"), None) for n in "abc")
    assert first == same != other
    assert normaliser_fingerprint("reinhard", str(tmp_path / "a" / "r.png"), None) != first
