"""Every command and every Python line of the README runs, in its order, on synthetic slides; shipped configs load."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.forked import Commands
from wsi_lmc.cli import COMMANDS
from wsi_lmc.config import SECTIONS, build, read_config
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.synthetic import write_cohort
from wsi_lmc.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKE = ["make demo", "make test"]  # CI runs the second, whose set-up is the first's; the demo has its own test
FEW_STEPS = {"train": ["--steps", "2", "--architecture", "vit-demo"], "demo": ["--steps", "2"]}
CONFIGS = {"tile": TileConfig, "train": TrainConfig, "embed": EmbedConfig}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def _commands() -> list[str]:
    return [line for block in _blocks("sh") for line in block.splitlines() if line]


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, program: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = write_cohort(tmp_path / "drawn", {"north": 3, "south": 2}, seed=5, size=(1536, 1280)).parent
    for folder, site in (("slides", "north"), ("elsewhere", "south")):
        (tmp_path / folder).mkdir()
        for slide in (cohort / "slides").glob(f"{site}-*"):
            shutil.copy(slide, tmp_path / folder)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for label, shade in (("normal", 200), ("tumour", 120)):
        (tmp_path / "patches" / label).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(shade - 60, shade + 50, (256, 256, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "patches" / label / f"{label}-{number}.png"), pixels)
    (tmp_path / "manifest.csv").write_text(_manifest(cohort / "manifest.csv", cohort))
    commands = _commands()
    assert commands[:2] == MAKE
    for line in commands[2:]:
        name, *words = line.split()
        assert name == "wsi-lmc"
        done = program(*words, *FEW_STEPS.get(words[0], []), cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert len(list((tmp_path / "for-clam" / "pt_files").glob("*.pt"))) == 2
    for stored, straight in zip(*(sorted((tmp_path / run / "features").iterdir()) for run in _SAME), strict=True):
        chunks = [(store / "features/c.0.0").read_bytes() for store in (stored, straight)]
        assert chunks[0] == chunks[1], "features from a store and straight from the slide differ"
    monkeypatch.chdir(tmp_path)
    for code in _blocks("python"):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102  what a reader does


_SAME = ("elsewhere-run", "straight-run")


def _manifest(path: Path, folder: Path) -> str:
    """A cohort's manifest with absolute paths, as it is read from another folder."""
    return re.sub(r"^slides/", f"{folder}/slides/", path.read_text(), flags=re.MULTILINE)


def test_every_command_of_the_program_is_in_the_table_of_stages() -> None:
    for name in COMMANDS:
        assert f"| `wsi-lmc {name}` |" in README


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=str)
def test_shipped_configs_load_and_differ_from_the_defaults(path: Path) -> None:
    sections = read_config(path)
    assert sections.keys() <= set(SECTIONS)
    for section, values in sections.items():
        assert build(CONFIGS[section], values, str(path)) != CONFIGS[section]()


def test_there_are_shipped_configs() -> None:
    assert (ROOT / "configs" / "paper.yaml").is_file()
