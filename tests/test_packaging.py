"""What users install: a wheel built from the source archive, tried where only what it declares can be imported."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wsi_lmc import __version__
from wsi_lmc.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclass(frozen=True)
class Built:
    """The archives, and the names of the files in them, without the first folder of the source's."""

    wheel: Path
    in_wheel: set[str]
    in_source: set[str]
    metadata: Message


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A source archive of this repository, and a wheel of what it holds, where there is no git any more."""
    folder = tmp_path_factory.mktemp("dist")
    hatch(ROOT, "sdist", folder)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(folder / "source", filter="data")
    hatch(folder / "source" / f"wsi_lmc-{__version__}", "wheel", folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        metadata = Parser().parsestr(packed.read(f"wsi_lmc-{__version__}.dist-info/METADATA").decode())
        return Built(wheel, set(packed.namelist()), in_source, metadata)


def hatch(source: Path, target: str, out: Path) -> None:
    """Build with the backend itself, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    done = subprocess.run(command, cwd=source, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def plain(**more: str) -> dict[str, str]:
    """An environment that does not lead to the repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def clean(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment with the wheel in it, and of all else only what that declares to need."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place / "venv", with_pip=False, symlinks=True)
    program = place / "venv" / "bin" / "python"
    needed = place / "needed"
    needed.mkdir()
    for name in closure(PROJECT["dependencies"]):
        for entry in tops(name):
            link = needed / entry.name
            if not link.exists():
                link.symlink_to(entry)
    pip = [sys.executable, "-m", "pip", "--python", str(program), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(built.wheel)], check=True, env=plain())
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    (packages / "needed.pth").write_text(f"{needed}\n")
    return program.parent


def closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that these requirements lead to, here and without extras that are not asked for."""
    found: set[tuple[str, str]] = set()
    ahead = [Requirement(text) for text in requirements]
    while ahead:
        one = ahead.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras}:
            if (name, extra) in found:
                continue
            found.add((name, extra))
            own = map(Requirement, importlib.metadata.requires(name) or [])
            ahead += [each for each in own if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def tops(name: str) -> Iterator[Path]:
    """Files and folders of a distribution at the top of where it is installed."""
    distribution = importlib.metadata.distribution(name)
    base = Path(str(distribution.locate_file("")))
    for first in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        yield base / first


def run(program: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program of the clean environment, in an empty home."""
    environment = plain(HOME=str(cwd), XDG_CACHE_HOME=str(cwd / "cache"), COLUMNS="120")
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=500)


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    package = ROOT / "wsi_lmc"
    files = {path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    about = f"wsi_lmc-{__version__}.dist-info"
    licences = {path.relative_to(ROOT).as_posix() for text in PROJECT["license-files"] for path in ROOT.glob(text)}
    assert "LICENSE" in licences
    own = {f"{about}/licenses/{name}" for name in licences}
    own |= {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    assert built.in_wheel == files | own
    assert {"wsi_lmc/py.typed", "wsi_lmc/report/templates/page.html"} <= built.in_wheel
    assert built.wheel.name == f"wsi_lmc-{__version__}-py3-none-any.whl"
    assert built.wheel.stat().st_size < 2_000_000


def test_its_metadata_are_the_projects(built: Built) -> None:
    assert built.metadata["Version"] == __version__
    assert built.metadata["License-Expression"] == "Apache-2.0"
    extras = set(built.metadata.get_all("Provides-Extra") or [])
    assert {"diffusion", "onnx", "openvino", "parquet", "report", "scverse", "slurm", "stainfuser"} <= extras
    assert extras == set(PROJECT["optional-dependencies"])


def test_the_source_archive_holds_what_is_needed_to_test_it(built: Built) -> None:
    wanted = {
        *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile", "constraints.txt"),
        *("wsi_lmc/cli.py", "tests/conftest.py", "docs/api.md", "configs/paper.yaml", "pipelines/camelyon16.py"),
        "tests/data/first/zstd/expected.json",
    }
    assert wanted <= built.in_source
    assert not [name for name in built.in_source if "__pycache__" in name or name.startswith((".git/", ".venv"))]


def test_the_program_works_where_only_its_needs_are(clean: Path, small_cohort: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert run(clean / "wsi-lmc", "--version", cwd=home).stdout == f"wsi-lmc {__version__}\n"
    text = run(clean / "wsi-lmc", "--help", cwd=home).stdout
    assert all(name in text for name in COMMANDS)
    where = run(clean / "python", "-c", "import wsi_lmc; print(wsi_lmc.__file__)", cwd=home).stdout
    assert Path(where).is_relative_to(clean.parent), "the installed one, not this repository's"
    assert run(clean / "python", "-c", "import pytest", cwd=home).returncode == 1, "nothing of the developers'"
    arguments = (small_cohort / "manifest.csv", "--steps", 3, "-o", "demo", "--workers", 1, "-q")
    demo = run(clean / "wsi-lmc", "demo", *arguments, cwd=home)
    assert demo.returncode == 0, demo.stderr
    assert "demo/report.html" in demo.stdout
    assert (home / "demo" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (home / "demo" / "checkpoint" / "encoder" / "model.safetensors").is_file()
    assert len(list((home / "demo" / "features").glob("*.zarr"))) == 4


WITHOUT_EXTRAS = """
import tempfile
from pathlib import Path
import torch
from wsi_lmc import Encoder, UsageError
from wsi_lmc.backends import openvino_library
from wsi_lmc.export.onnx import export_onnx
from wsi_lmc.jobqueue import _job_class
from wsi_lmc.normalisers.stainfuser import _classes

encoder = Encoder.load("untrained:vit-demo", "cpu")
for call in (lambda: export_onnx(encoder, Path("x.onnx")), openvino_library, _job_class, _classes):
    try:
        call()
    except UsageError as error:
        print(error)
"""


def test_what_needs_an_extra_names_it_where_it_is_not_installed(clean: Path, tmp_path: Path) -> None:
    found = run(clean / "python", "-c", WITHOUT_EXTRAS, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    named = re.findall(r"pip install 'wsi-lmc\[([a-z]+)\]'", found.stdout)
    assert named == ["onnx", "openvino", "slurm", "diffusion"]


def test_extras_that_are_named_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for name in ("wsi_lmc", "docs") for path in (ROOT / name).rglob("*.[pm]*")
             if path.suffix in (".py", ".md")]  # fmt: skip
    named = {name for text in texts for name in re.findall(r"wsi-lmc\[([a-z]+)\]", text)}
    assert named >= {"onnx", "openvino", "slurm", "diffusion"}
    assert named <= set(PROJECT["optional-dependencies"])


def test_the_version_is_said_once() -> None:
    """The build reads it from the package; the citation repeats it, and a tag on this commit must agree."""
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", __version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    git = ["git", "-C", str(ROOT), "describe", "--exact-match", "--tags", "--match", "v*", "HEAD"]
    tag = subprocess.run(git, capture_output=True, text=True, check=False)
    assert tag.returncode != 0 or tag.stdout.strip() == f"v{__version__}"


def test_the_citation_has_what_its_format_demands() -> None:
    """Keys of the Citation File Format 1.2.0, and the paper whose method this is."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"] == "https://arxiv.org/abs/2602.24251"
    for author in (*citation["authors"], *paper["authors"]):
        assert set(author) in ({"name"}, {"family-names", "given-names"})
