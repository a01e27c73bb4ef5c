"""The model card: true to the encoder, code that runs as it stands, and nothing that names a slide."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from wsi_lmc.checkpoint import read_metrics
from wsi_lmc.encoder import (
    EncoderConfig,
    EncoderMetadata,
    TrainingFacts,
    build_encoder,
    load_encoder,
    save_encoder,
    write_card,
)
from wsi_lmc.stain import ViewConfig
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.training import TrainConfig, train

CANARY = "CANARY-Jane-Doe-1957"
CPU = torch.device("cpu")
ROW = {f"held_out_{name}": 0.5 for name in ("invariance", "redundancy", "mean_diagonal", "effective_rank", "std")}
FACTS = TrainingFacts(ViewConfig(), 3, 1200, "slides", 64, ROW, ROW | {"held_out_effective_rank": 37.25})


def _store(folder: Path, slide_id: str, count: int, seed: int) -> TileStore:
    """A tile store of stained noise."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(2.0, 0.35, (count, 8, 8, 2)).repeat(8, 1).repeat(8, 2)
    density = amounts @ np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    path = folder / f"{slide_id}.zarr"
    writer = TileStoreWriter(path, count, 64, "lossless")
    writer.write(0, (255 * np.exp(-density)).round().astype(np.uint8), Threads())
    origins = np.stack([np.arange(count) * 64, np.full(count, 128)], axis=1).astype(np.int32)
    writer.close(
        TileRows(origins, np.ones(count, np.float32), np.zeros(count, np.uint8)),
        {
            "slide": {"id": slide_id},
            "tile": {"px": 64, "mpp": 0.5, "effective_mpp": [0.5, 0.498]},
            "slide_fingerprint": slide_id,
            "config_fingerprint": "test",
        },
    )
    return TileStore.open(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of a short training on slides whose names must not leak."""
    folder = tmp_path_factory.mktemp(CANARY)
    stores = [_store(folder, f"{CANARY}-{letter}", count, count) for letter, count in (("a", 19), ("b", 34))]
    config = TrainConfig(steps=2, batch=8, device="cpu", architecture="vit-demo", views=ViewConfig(blur=0.7))
    train(stores, folder / "ckpt", config)
    return folder / "ckpt"


def _card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def _front_matter(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def test_its_code_runs_as_it_stands_and_gives_the_trained_features(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (trained / "encoder").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tile = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "tile.png"), tile[..., ::-1])
    code = re.findall(r"^```python\n(.*?)^```$", _card(tmp_path), re.DOTALL | re.MULTILINE)
    assert len(code) == 1
    monkeypatch.chdir(tmp_path)
    made: dict[str, torch.Tensor] = {}
    exec(code[0], made)  # noqa: S102  what a reader of the card does
    with torch.inference_mode():
        encoder = load_encoder(str(trained), CPU)
        scaled = (torch.from_numpy(tile).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        assert torch.equal(made["features"], encoder.module(scaled))
    assert made["features"].shape == (1, encoder.dim)


def test_nothing_in_the_folder_names_a_slide_or_a_path(trained: Path) -> None:
    files = list((trained / "encoder").iterdir())
    assert sorted(file.name for file in files) == ["README.md", "config.json", "model.safetensors"]
    for file in files:
        assert CANARY.encode() not in file.read_bytes(), file.name
        assert str(trained).encode() not in file.read_bytes(), file.name
    assert CANARY in (trained / "provenance.json").read_text(), "which is why that stays out of the folder"


def test_it_says_what_was_trained(trained: Path) -> None:
    card, config = _card(trained / "encoder"), json.loads((trained / "encoder" / "config.json").read_text())
    assert _front_matter(card)["library_name"] == "timm"
    assert _front_matter(card)["pipeline_tag"] == "image-feature-extraction"
    sha256 = config["wsi_lmc"]["weights_sha256"]
    parameters = sum(weight.numel() for weight in load_encoder(str(trained), CPU).module.parameters())
    rows = read_metrics(trained)
    split = json.loads((trained / "provenance.json").read_text())["slides"]
    tiles = sum(slide["trained_on"] for slide in split)
    for said in (
        f"with the arguments in config.json), {parameters:,} parameters",
        "64 a tile (class token)",
        "64 x 64 px, RGB, at 0.499 um/px: 31.94 um a side",
        "(value / 255 - 0.5) / 0.5",
        "| mode | `robust`",
        "H and E each times 0.5 to 2 (uniform); the same flip or rotation for both views",
        "beyond stain strength: blur 0.7",
        f"{tiles} tiles of 2 slides",
        "| length | 2 steps |",
        sha256,
        f"{rows[0]['held_out_effective_rank']:.4g} | {rows[-1]['held_out_effective_rank']:.4g} |",
        "of slides that were",
        "Not a medical device",
        "wsi-lmc tile slides/ --tile-px 64 --tile-mpp 0.499",
    ):
        assert said in card, said


def _written(folder: Path, facts: TrainingFacts = FACTS, mode: str = "paper", licence: str = "unknown") -> str:
    metadata = EncoderMetadata("vit-demo", mode, 0.25, 1234, licence)  # pyright: ignore[reportArgumentType]  plain string
    save_encoder(folder, build_encoder(EncoderConfig("vit-demo"), 96, 0), metadata)
    write_card(folder, facts)
    return _card(folder)


def test_a_licence_is_never_invented(tmp_path: Path) -> None:
    unknown, stated = _written(tmp_path / "a"), _written(tmp_path / "b", licence="cc-by-4.0")
    assert _front_matter(unknown)["license"] == "unknown"
    assert _front_matter(stated)["license"] == "cc-by-4.0"
    assert stated == unknown.replace("license: unknown", "license: cc-by-4.0"), "one place states it"


def test_what_was_not_measured_is_not_claimed(tmp_path: Path) -> None:
    few = {"held_out_effective_rank": 2.0}
    card = _written(tmp_path, replace(FACTS, before=few, after=few, held_out="nothing", slides=1, tiles=9))
    assert "| 2 | 2 |" in card
    assert "invariance term" not in card
    assert "tiles that were also trained on, for want of others" in card
    assert "| trained on | 9 tiles of 1 slide |" in card


@pytest.mark.parametrize(
    ("views", "said"),
    [
        (ViewConfig(mode="paper"), "no flips or rotations; beyond stain strength: nothing"),
        (ViewConfig(scale_low=0.25, scale_law="log-uniform"), "times 0.25 to 2 (log-uniform)"),
        (ViewConfig(geometry="independent"), "flips and rotations, one for each view"),
        (ViewConfig(gamma=0.1, jpeg=40), "beyond stain strength: tone curve 0.1, JPEG 40"),
    ],
)
def test_views_are_told_as_they_were_drawn(views: ViewConfig, said: str, tmp_path: Path) -> None:
    assert said in _written(tmp_path, replace(FACTS, views=views))
