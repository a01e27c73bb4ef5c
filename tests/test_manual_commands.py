"""Every command and every Python line of the manual runs, in the order of its pages, on small synthetic slides.

What cannot run in a test has a reason in ``NOT_RUN``; its flags are checked all the same (``test_docs``).
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr

from tests.forked import Commands
from tests.manual import DOCS, PAGES, ROOT, blocks, commands, text_of
from wsi_lmc.cohort import read_rows
from wsi_lmc.spreadsheets import to_csv
from wsi_lmc.synthetic import write_cohort
from wsi_lmc.tilestore import TileStore

FIRST = ("first-steps", "howto")
OWN_TESTS = {name: f"test_{name}*.py" for name in ("api", "import", "viewer")}
"""Pages whose commands and code are run by tests of their own."""

NOT_RUN = {
    # how a command begins: why it is not run here, and what runs it
    "pip install": "would change the environment; .ci/run installs",
    "make ": ".ci/run",
    "wsi-lmc doctor": "takes half a minute; tests/test_readme.py",
    "torchrun ": "needs GPUs; tests/test_distributed.py runs two processes",
    "wsi-lmc embed --encoder hf-hub:": "needs a network; tests/test_encoder.py loads what would come",
    "wsi-lmc embed --ckpt wsi-lmc-run/checkpoint --backend openvino": "an extra; tests/test_backends.py",
    "wsi-lmc export wsi-lmc-run/checkpoint --to onnx": "an extra; tests/test_export_onnx.py",
    "wsi-lmc push ": "needs the Hub; tests/test_encoder_hub.py has one",
    "wsi-lmc tile /data/slides -o /data/run --cluster": "needs SLURM; tests/test_jobqueue.py has one",
    "wsi-lmc train /data/run -o /data/run/checkpoint --cluster": "needs SLURM; tests/test_jobqueue.py has one",
    "wsi-lmc embed /data/run --ckpt /data/run/checkpoint -o /data/run --cluster": "the same",
    "wsi-lmc tile /data/slides -o /data/run --scheduler": "needs a cluster with TLS; tests/test_cluster.py",
    "wsi-lmc embed /data/run --ckpt /data/run/checkpoint -o /data/run --scheduler": "the same",
    "wsi-lmc status /data/run --watch": "goes on until Ctrl-C; tests/test_status.py",
    "umask ": "openssl's, below",
    "openssl ": "makes a certificate in the user's folder; tests/test_jobqueue.py makes its own",
    "export DASK_": "dask's settings; tests/test_jobqueue.py uses them",
    "for role in": "the same",
    "done": "the same",
    "dask ": "starts what runs until it is stopped; tests/test_cluster.py",
    "python -m pipelines.": "data sets of hundreds of gigabytes; tests/pipelines runs each on small ones",
    "aws s3 ": "700 GB",
    "SLIDES=/data/slides RUN=/data/run bash docs/examples/slurm": "tests/test_workflows.py",
    "snakemake ": "tests/test_workflows.py",
    "nextflow ": "not installed; tests/test_workflows.py checks its commands",
    "kubectl ": "needs a cluster; tests/test_workflows.py checks the manifests",
    "docker ": "needs a daemon; tests/test_workflows.py checks the Dockerfile",
    "apptainer ": "needs an image",
}
FEW = {"train": ["--steps", "2", "--architecture", "vit-demo"], "classify": ["--seeds", "1"]}
ONE_PROCESS = {"tile", "embed", "plan", "pack", "verify", "retry-failed"}
TASK = {f"SLURM_ARRAY_TASK_{name}": value for name, value in {"ID": "1", "COUNT": "1", "MIN": "1", "MAX": "1"}.items()}


@dataclass(frozen=True)
class Ran:
    """The folder that the manual's commands were run in, and what each gave, by page and line."""

    folder: Path
    given: dict[tuple[str, str], subprocess.CompletedProcess[str]]


def _pages() -> list[Path]:
    """Pages in the order in which they are run."""
    names = [page.stem for page in PAGES if page.stem not in FIRST]
    return [DOCS / f"{name}.md" for name in (*FIRST, *names) if name not in OWN_TESTS]


def _reason(line: str) -> str | None:
    return next((start for start in NOT_RUN if line.startswith(start)), None)


LINES = [(page.stem, line) for page in _pages() for line in commands(page) if _reason(line) is None]


@pytest.fixture(scope="module")
def ran(program: Commands, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Runs every command of the manual."""
    folder = tmp_path_factory.mktemp("manual")
    _prepare(folder)
    given: dict[tuple[str, str], subprocess.CompletedProcess[str]] = {}
    for page in _pages():
        BEFORE.get(page.stem, lambda folder, run: None)(folder, lambda line: _run(program, line, folder))
        for line in commands(page):
            if _reason(line) is None:
                earlier = (done for (_, other), done in given.items() if other == line)
                given[page.stem, line] = next(earlier, None) or _run(program, line, folder)
    return Ran(folder, given)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), LINES)
def test_every_command_runs(page: str, line: str, ran: Ran) -> None:
    done = ran.given[page, line]
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("start", NOT_RUN)
def test_what_is_not_run_is_there_and_has_a_reason(start: str) -> None:
    assert any(line.startswith(start) for page in PAGES for line in commands(page)) or start == "make "
    for file in re.findall(r"tests/\w+\.py", NOT_RUN[start]):
        assert (ROOT / file).is_file(), file


def test_a_page_with_a_test_of_its_own_is_named_there() -> None:
    for page in (page.stem for page in PAGES if page.stem in OWN_TESTS):
        files = (ROOT / "tests").rglob(OWN_TESTS[page])
        assert any(f"{page}.md" in file.read_text(encoding="utf-8") for file in files), f"nothing runs {page}.md"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page.stem for page in _pages() if blocks(page, "python")])
def test_python_of_a_page_runs(page: str, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran.folder)
    for code in blocks(DOCS / f"{page}.md", "python"):
        exec(compile(code, page, "exec"), {})  # noqa: S102  what a reader does


@pytest.mark.slow
def test_the_formats_page_names_all_that_is_in_a_store(ran: Ran) -> None:
    said = set(re.findall(r"`([^`\s]+)`", text_of(DOCS / "formats.md")))
    for kind in ("tiles", "features", "stains"):
        path = ran.folder / "wsi-lmc-run" / kind / "north-01.zarr"
        group = zarr.open_group(path, mode="r")
        found = {name for name, _ in group.arrays()} | _keys(group.attrs.asdict())
        if kind == "stains":
            found -= {"slide_trusted"}
        assert found <= said, f"{kind}: {sorted(found - said)}"
    run = ran.folder / "wsi-lmc-run"
    for name in (path.name for path in run.iterdir() if not path.name.startswith(".")):
        assert any(name in word for word in said), name
    for name in (path.name for path in (run / "checkpoint" / "encoder").iterdir()):
        assert f"encoder/{name}" in said


def _keys(attributes: Any) -> set[str]:
    """Names of all attributes, nested ones too, but of checksums, whose names are those of arrays."""
    found: set[str] = set()
    for key, value in attributes.items():
        found |= {key} | (_keys(value) if isinstance(value, dict) and "sha256" not in key else set())
    return found


def _run(program: Commands, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as it stands, but in the test's folder, in one process, with a small network and few steps."""
    here = re.sub(r"(?<![\w.])/data/", f"{folder}/data/", re.sub(r"\bRUN\b", "wsi-lmc-run", line))
    here = here.replace("untrained:vit-tiny", "untrained:vit-demo")
    expanded = subprocess.run(
        ["bash", "-c", f"set -- {here}\nprintf '%s\\n' \"$@\""],
        env=os.environ | {"JOB_COMPLETION_INDEX": "0"},
        text=True,
        capture_output=True,
        check=True,
    )
    first, *words = expanded.stdout.splitlines()
    assert first == "wsi-lmc", f"{line} is neither run nor has it a reason not to be"
    words += FEW.get(words[0], [])
    if words[0] in ONE_PROCESS:
        words = [*_without_workers(words), "--workers", "0"]
    return program(*words, cwd=folder, environment=TASK)


def _without_workers(words: list[str]) -> list[str]:
    if "--workers" not in words:
        return words
    at = words.index("--workers")
    return words[:at] + words[at + 2 :]


def _prepare(folder: Path) -> None:
    """What a reader is supposed to have: slides of two sites, a manifest, patches, a map, settings."""
    cohort = write_cohort(folder / "drawn", {"north": 3, "south": 2}, seed=5, size=(1536, 1280)).parent
    for name, site in (("slides", "north"), ("elsewhere", "south"), ("data/slides", "north")):
        (folder / name).mkdir(parents=True)
        for slide in (cohort / "slides").glob(f"{site}-*"):
            shutil.copy(slide, folder / name)
    rows = [row.cells for row in read_rows(cohort / "manifest.csv", ("slide",), ())]
    for row in rows:
        row["slide"] = str((cohort / row["slide"]).resolve())
        row["scanner"] = "CS2" if row["site"] == "north" else "XR"
    (folder / "manifest.csv").write_text(to_csv(list(rows[0]), [list(row.values()) for row in rows]))
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "coarse.yaml").write_text(next(b for b in blocks(DOCS / "howto.md", "yaml") if b.startswith("tile:")))
    slides = sorted(path.name for path in (folder / "slides").iterdir())
    pseudonyms = [(f"slides/{name}", f"case-{number}") for number, name in enumerate(slides)]
    (folder / "map.csv").write_text(to_csv(("slide", "slide_id"), pseudonyms))
    for label, shade in (("normal", 200), ("tumour", 120)):
        (folder / "patches" / label).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(number).integers(shade - 60, shade + 50, (256, 256, 3), np.uint8)
            cv2.imwrite(str(folder / "patches" / label / f"{label}-p{number // 2}-{number}.png"), pixels)
    shutil.copy(folder / "patches" / "normal" / "normal-p0-0.png", folder / "tile.png")


def _two_sites(folder: Path, run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """Run folders of two sites, and pairs of tiles in them, for the page on evaluation."""
    for line in (
        "wsi-lmc tile manifest.csv -o runs/lmc",
        "wsi-lmc embed runs/lmc --ckpt wsi-lmc-run/checkpoint -o runs/lmc",
        "wsi-lmc embed runs/lmc --encoder untrained:vit-demo -o runs/untrained",
    ):
        done = run(line)
        assert done.returncode == 0, done.stderr
    stores = [TileStore.open(folder / "runs" / "lmc" / "tiles" / f"{name}.zarr") for name in ("north-01", "south-01")]
    rows = [
        (stores[0].slide_id, *a, stores[1].slide_id, *b)
        for a, b in zip(*(store.origins[:12].tolist() for store in stores), strict=True)
    ]
    columns = ("slide_a", "x_a", "y_a", "slide_b", "x_b", "y_b")
    (folder / "pairs.csv").write_text(to_csv(columns, rows))


def _data_run(folder: Path, run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """A checkpoint where the page on clusters has it."""
    del run
    shutil.copytree(folder / "wsi-lmc-run" / "checkpoint", folder / "data" / "run" / "checkpoint")


BEFORE = {"evaluation": _two_sites, "cluster": _data_run}
