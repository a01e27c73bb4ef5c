"""The security list: no code from data, no door open, nothing written where a link leads, no formula in a table."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.canaries import write_canary_svs
from tests.faults.dangers import dangers
from tests.faults.listening import listening_of
from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import SerialExecutor, attempt
from wsi_lmc.export import export_features
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_features, find_stores, tile_cohort, train_cohort
from wsi_lmc.runfolder import add_slides, list_slides, prepare_run, record, write_table
from wsi_lmc.slide import open_slide
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tilestore import CODECS, TileStore
from wsi_lmc.training import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("wsi_lmc", "pipelines", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
SERIAL = RunOptions(SerialExecutor())
LOOPBACK = {"127.0.0.1", "::1"}

# ---------------------------------------------------------------- no code from data

BAD = [
    "import pickle",
    "import cloudpickle as safe",
    "from pickle import loads, UnpicklingError",
    "from joblib import load",
    "import torch\ntorch.serialization.pickle.loads(x)",
    "import torch\ntorch.load(path)",
    "import torch\ntorch.load(path, weights_only=False)",
    "import torch\ntorch.load(path, weights_only=trusted)",
    "from torch import load\nload(path)",
    "import numpy as np\nnp.load(path)",
    "import numpy as np\nnp.load(path, allow_pickle=True)",
    "from numpy import load as read\nread(path)",
    "import yaml\nyaml.load(text, Loader)",
    "from yaml import unsafe_load\nunsafe_load(text)",
    "timm.create_model(name, trust_remote_code=True)",
    "eval(text)",
    "exec(text)",
    "import os\nos.system('ls')",
    "import subprocess\nsubprocess.run('ls', shell=True)",
    "import subprocess as s\ns.getoutput('ls')",
    "Server(host='0.0.0.0:8787')",
    "Server(host=f'tcp://[::]:{port}')",
    "from jinja2 import Environment\nEnvironment()",
    "import jinja2\njinja2.Environment(autoescape=False)",
    "import jinja2\njinja2.Template(text)",
]
FINE = [
    "from pickle import UnpicklingError",
    "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
    "import numpy\nnumpy.load(path, allow_pickle=False)",
    "import yaml\nyaml.safe_load(text)",
    "model.eval()",
    "import jinja2\njinja2.Environment(autoescape=True)",
    "Server(host='127.0.0.1:0')",
]


@pytest.mark.parametrize("source", BAD)
def test_what_is_dangerous_is_seen(source: str) -> None:
    assert dangers(source)


@pytest.mark.parametrize("source", FINE)
def test_what_is_not_dangerous_is_let_through(source: str) -> None:
    assert dangers(source) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous_is_in_the_code(path: Path) -> None:
    assert dangers(path.read_text(encoding="utf-8")) == []


def test_there_is_code_to_look_at_and_ruff_looks_too() -> None:
    assert len(SOURCES) > 80
    rules = re.findall(r'^select = .*"S"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(rules) == 1


# ---------------------------------------------------------------- no door open


@pytest.fixture(scope="module")
def tiled(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with four tiled slides."""
    out = tmp_path_factory.mktemp("tiled")
    tile_cohort(find_slides([str(small_cohort / "manifest.csv")]), out, TileConfig(), SERIAL)
    return out


@pytest.mark.parametrize("command", ["tile", "train", "embed", "embed by workers", "status", "export"])
def test_every_command_listens_on_loopback_alone(command: str, small_cohort: Path, tiled: Path, tmp_path: Path) -> None:
    slides, encoder = str(small_cohort / "slides"), ("--encoder", "untrained:vit-demo")
    quick = ("--steps", "2", "--batch", "4", "--architecture", "vit-demo", "--device", "cpu")
    features = tmp_path / "features"
    if command == "export":
        embed_cohort(EmbedInputs(find_stores([tiled])[:1]), encoder[1], features, EmbedConfig(device="cpu"), SERIAL)
    words = {
        "tile": ("tile", slides, "--workers", "2"),
        "train": ("train", str(tiled), *quick),
        "embed": ("embed", str(tiled), *encoder, "--workers", "0"),
        "embed by workers": ("embed", str(tiled), *encoder, "--workers", "1"),
        "status": ("status", str(tiled)),
        "export": ("export", str(features), "--to", "clam"),
    }[command]
    output = () if command == "status" else ("-o", str(tmp_path / "out"))
    addresses, code, said = listening_of("-m", "wsi_lmc", *words, *output)
    assert code == 0, said
    assert addresses <= LOOPBACK
    assert bool(addresses) == (command in ("tile", "embed by workers")), "only schedulers and workers listen"


def test_who_listens_elsewhere_is_seen() -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.9', 0)); time.sleep(1)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    assert listening_of("-c", child)[0] == {"127.0.0.9"}


# ---------------------------------------------------------------- links in the output

TILE_LINKS = [
    ".tmp", ".locks", ".working", "tiles", "tiles/{}.zarr", "contours", "contours/{}.geojson", "overviews",
    "overviews/{}.jpg", "records", "records/tile", "records/tile/{}.json", "records/planned", "logs",
    "logs/tile-{}.txt", "slides.csv", "manifest.csv", "run.yaml", ".locks/manifest.lock",
]  # fmt: skip
EMBED_LINKS = ["features", "features/{}.zarr", ".parts", "records/embed", "records/embed/{}.json", "logs/embed-{}.txt"]
TRAIN_LINKS = [".tmp", ".locks", "encoder", "events", "metrics.jsonl", "provenance.json"]
EXPORT_LINKS = [".tmp", "h5_files", "pt_files", "h5_files/{}.h5", "dataset.csv"]


def _link(out: Path, place: str, kind: str) -> tuple[Path, Callable[[], object]]:
    """Put a link at a place of an output folder; gives what it leads to, and a look at that."""
    target = out.parent / "elsewhere"
    if kind == "folder":
        target.mkdir()
        (target / "witness").write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    link = out / place.format("north-01")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)

    def look() -> object:
        if target.is_dir():
            return sorted((path.name, path.read_text()) for path in target.iterdir())
        return target.read_text() if target.exists() else None

    return link, look


@pytest.mark.parametrize("kind", ["folder", "file", "nothing"])
@pytest.mark.parametrize("place", TILE_LINKS)
def test_tiling_refuses_links_in_its_output(place: str, kind: str, small_cohort: Path, tmp_path: Path) -> None:
    link, look = _link(tmp_path / "out", place, kind)
    before = look()
    with pytest.raises(UsageError, match="is a link"):
        tile_cohort(
            find_slides([str(small_cohort / "slides" / "north-01.tif")]), tmp_path / "out", TileConfig(), SERIAL
        )
    assert look() == before
    assert link.is_symlink()
    assert not list((tmp_path / "out").rglob("zarr.json")), "refused before any work"


@pytest.mark.parametrize("place", EMBED_LINKS)
def test_embedding_refuses_links_in_its_output(place: str, tiled: Path, tmp_path: Path) -> None:
    link, look = _link(tmp_path / "out", place, "folder")
    before = look()
    stores = [store for store in find_stores([tiled]) if store.stem == "north-01"]
    with pytest.raises(UsageError, match="is a link"):
        embed_cohort(EmbedInputs(stores), "untrained:vit-demo", tmp_path / "out", EmbedConfig(device="cpu"), SERIAL)
    assert look() == before
    assert link.is_symlink()


@pytest.mark.parametrize("start", ["new", "overwrite"])
@pytest.mark.parametrize("place", TRAIN_LINKS)
def test_training_refuses_links_in_its_output(place: str, start: str, tiled: Path, tmp_path: Path) -> None:
    link, look = _link(tmp_path / "out", place, "folder")
    before = look()
    config = TrainConfig(steps=1, batch=4, architecture="vit-demo", device="cpu")
    how = ("overwrite" if start == "overwrite" else "new", lambda report: None)
    with pytest.raises(UsageError, match="is a link"):
        train_cohort(find_stores([tiled]), tmp_path / "out", config, SerialExecutor(), how)
    assert look() == before
    assert link.is_symlink()


@pytest.mark.parametrize("place", EXPORT_LINKS)
def test_exports_refuse_links_in_their_output(place: str, tiled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stores = [store for store in find_stores([tiled]) if store.stem == "north-01"]
    embed_cohort(EmbedInputs(stores), "untrained:vit-demo", run, EmbedConfig(device="cpu"), SERIAL)
    _, look = _link(tmp_path / "out", place, "folder")
    before = look()
    entries = [SlideEntry(Path("north-01"), "north-01", patient="p1", label="tumor")]
    with pytest.raises(UsageError, match="is a link"):
        export_features(find_features(run), "clam", tmp_path / "out", entries)
    assert look() == before


def test_a_link_that_appears_later_fails_its_slide_alone(small_cohort: Path, tmp_path: Path) -> None:
    link, look = _link(tmp_path / "out", "tiles/{}.zarr", "folder")
    before = look()
    entry = SlideEntry(small_cohort / "slides" / "north-01.tif", "north-01")
    outcome = attempt(tile_slide, TileTask(entry, tmp_path / "out", TileConfig()))
    assert isinstance(outcome, Outcome)
    assert outcome.code == "environment"
    assert f"{link} is a link" in outcome.reason
    assert look() == before


def test_a_link_is_one_message_and_exit_code_2(small_cohort: Path, tmp_path: Path) -> None:
    _, look = _link(tmp_path / "out", "tiles", "folder")
    before = look()
    command = [sys.executable, "-m", "wsi_lmc", "tile", str(small_cohort / "slides"), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "tiles is a link to" in done.stderr
    assert "name that folder with -o" in done.stderr
    assert "Traceback" not in done.stderr
    assert look() == before


@pytest.mark.parametrize("place", [".tmp", ".working"])
def test_sweeping_up_removes_nothing_behind_a_link(place: str, tmp_path: Path) -> None:
    _, look = _link(tmp_path / "out", place, "folder")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = {".tmp": "x", ".working": "tile-a.json"}[place]
    (tmp_path / "elsewhere" / left).write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid}))
    before = look()
    with pytest.raises(UsageError, match="is a link"):
        prepare_run(tmp_path / "out")
    assert look() == before


def test_an_output_that_is_reached_by_a_link_is_fine(small_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to("scratch")
    found = tile_cohort(
        find_slides([str(small_cohort / "slides" / "north-01.tif")]), tmp_path / "out", TileConfig(), SERIAL
    )
    assert [outcome.state for outcome in found] == ["done"]
    assert (tmp_path / "scratch" / "tiles" / "north-01.zarr").is_dir()


# ---------------------------------------------------------------- tables

CELL = st.text(max_size=10) | st.text("=+-@'\t\r\n019.ab\"", max_size=8)
_RUNS = ("=", "+", "-", "@", "\t", "\r")


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=3))
def test_the_manifest_of_a_run_has_no_formula_and_reads_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    out = tmp_path_factory.mktemp("run", numbered=True)
    entries = [
        SlideEntry(out / f"{number}.svs", f"id-{number}", None, patient.strip(), site.strip(), label.strip())
        for number, (patient, site, label) in enumerate(rows)
    ]
    add_slides(out, entries)
    assert list_slides(out) == entries
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in list(csv.reader(file))[1:]:
            for cell in row:
                assert not cell.startswith(_RUNS) or re.fullmatch(r"[+-][0-9.,eE+-]+", cell), cell


def test_the_table_of_slides_has_no_formula(tmp_path: Path) -> None:
    record(tmp_path, Outcome("a", "tile", "failed", "damaged", '=cmd|" /C calc"!A0', "@SUM(1)", mpp=0.5))
    record(tmp_path, Outcome("b", "tile", "failed", "damaged", "\t=1", "-1.5"))
    write_table(tmp_path)
    with (tmp_path / "slides.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["reason"], first["remedy"], first["mpp"]) == ('\'=cmd|" /C calc"!A0', "'@SUM(1)", "0.5")
    assert (second["reason"], second["remedy"]) == ("\\t=1", "-1.5"), "what cannot be printed is escaped"


# ---------------------------------------------------------------- what slides say of patients


def test_tiles_that_are_kept_lose_their_comments_and_no_pixel(small_cohort: Path, tmp_path: Path) -> None:
    with open_slide(small_cohort / "slides" / "north-01.tif") as slide:
        pixels = slide.overview(0.5).pixels
    path = write_canary_svs(tmp_path / "a.svs", pixels)
    out = tmp_path / "out"
    tile_slide(TileTask(SlideEntry(path, "a"), out, TileConfig()))
    kept = TileStore.open(out / "tiles" / "a.zarr")
    assert kept.attributes["codec"] == CODECS["kept"]
    assert not any(b"Canary" in file.read_bytes() for file in kept.path.rglob("*") if file.is_file())
    tile_slide(TileTask(SlideEntry(path, "b"), out, TileConfig(codec="lossless")))
    rows = np.arange(len(kept))
    assert len(rows) > 5
    np.testing.assert_array_equal(kept.read(rows), TileStore.open(out / "tiles" / "b.zarr").read(rows))


def test_label_and_macro_change_nothing_in_what_is_cut(small_cohort: Path, tmp_path: Path) -> None:
    """They are not read: with other ones, the tiles, the outline and the picture are the same bytes."""
    with open_slide(small_cohort / "slides" / "north-01.tif") as slide:
        pixels = slide.overview(0.5).pixels
    path = write_canary_svs(tmp_path / "a.svs", pixels)
    content = path.read_bytes()
    other = tmp_path / "other" / "a.svs"
    other.parent.mkdir()
    other.write_bytes(content.replace(b"CanarylabelPixels", b"\xff" * 17).replace(b"CanarymacroPixels", b"\0" * 17))
    assert other.read_bytes() != content
    for source in (path, other):
        tile_slide(TileTask(SlideEntry(source, "a"), source.parent / "out", TileConfig()))
    for name in ("tiles/a.zarr/tiles/c.0.0.0.0", "contours/a.geojson", "overviews/a.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / "out" / name).read_bytes()


# ---------------------------------------------------------------- the audit


@pytest.mark.skipif(os.name != "posix", reason="make")
def test_the_audit_fails_where_it_can_say_nothing() -> None:
    """pip-audit passes over what it cannot look up, unless it is strict."""
    recipe = (ROOT / "Makefile").read_text().split("\naudit:")[1].split("\n\n")[0]
    assert "--strict" in recipe
    assert "exit 1" in recipe
