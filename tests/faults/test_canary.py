"""Slides that name a patient everywhere, through every stage and export: the name is nowhere in what comes out."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import cv2
import h5py
import numpy as np
import openslide
import pytest
import tifffile
import torch
import typer.main
import zarr

from tests.faults.canaries import FILE, FOLDER, canaries_in, findings, write_canary_svs
from wsi_lmc.cli import build_app
from wsi_lmc.commands.push import _describe
from wsi_lmc.encoder.hub import prepare_publication
from wsi_lmc.errors import WsiLmcError
from wsi_lmc.evaluation import EvaluateConfig, FeatureSet, SlideFeatures, evaluate, write_evaluation
from wsi_lmc.run import find_features
from wsi_lmc.runfolder import list_slides, outcomes
from wsi_lmc.tilestore import CODECS

STAGES = ("tile", "train", "embed")
GOOD = {"north-01": "p1", "north-02": "p2", "south-01": "p3", "south-02": "p4"}
TRAIN = ("--steps", "2", "--batch", "4", "--architecture", "vit-demo", "--device", "cpu", "--quiet")
BROKEN = ("truncated", "no number", "no slide", "order", "gone")


@dataclass(frozen=True)
class Ran:
    """Everything that came of the slides: ``folder`` holds all outputs, ``said`` what was printed."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def slides(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``FOLDER`` with four slides, five broken ones, a manifest, and a map of pseudonyms beside it."""
    folder = tmp_path_factory.mktemp("hospital") / FOLDER
    rows: list[tuple[object, ...]] = []
    ids: list[tuple[object, ...]] = []
    pixels, path = np.zeros((0, 0, 3), np.uint8), folder
    for number, (name, patient) in enumerate(GOOD.items(), 1):
        pixels = tifffile.imread(small_cohort / "slides" / f"{name}.{('svs', 'tif')[number % 2]}", key=0)
        path = write_canary_svs(folder / f"{FILE} {number}.svs", pixels)
        rows.append((path.name, f"CanaryPatient {patient}", name.split("-")[0], number % 2))
        ids.append((path.name, f"s{number}", patient))
    whole = path.read_bytes()
    (folder / f"{FILE} truncated.svs").write_bytes(whole[: len(whole) // 2])
    write_canary_svs(folder / f"{FILE} no number.svs", pixels, mpp="CanaryMpp")
    (folder / f"{FILE} no slide.svs").write_bytes(b"no slide, but a letter of Mrs CanaryLetter")
    strange = "<OME><Image Name='CanaryOme'><Pixels DimensionOrder='CanaryOrder' SizeX='Canary' /></Image></OME>"
    tifffile.imwrite(folder / f"{FILE} order.svs", pixels, photometric="rgb", description=strange, metadata=None)
    for number, name in enumerate(BROKEN, 5):
        rows.append((f"{FILE} {name}.svs", "CanaryPatient", "north", ""))
        ids.append((f"{FILE} {name}.svs", f"s{number}", f"p{number}"))
    _write(folder / "manifest.csv", ("slide", "patient", "site", "label"), rows)
    _write(folder.parent / "map.csv", ("slide", "slide_id", "patient"), ids)
    (folder / "CanaryMask.geojson").write_text('{"type": "Feature", "geometry": {"type": "CanaryShape"}}')
    return folder


@pytest.fixture(scope="module")
def hidden(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All stages and exports of the slides, with pseudonyms."""
    folder = tmp_path_factory.mktemp("hidden")
    run, pseudonyms = folder / "run", slides.parent / "map.csv"
    said = _wsi_lmc(1, "tile", slides / "manifest.csv", "--pseudonyms", pseudonyms, "-o", run, "--workers", 2)
    said += _here(0, "train", run, "-o", run / "checkpoint", *TRAIN)
    said += _here(0, "embed", run, "--ckpt", run / "checkpoint", "-o", run, "--workers", 0)
    straight = ("--workers", 0, "--pseudonyms", pseudonyms)
    said += _here(1, "embed", slides, "--ckpt", run / "checkpoint", "-o", folder / "straight", *straight)
    for to in ("trident", "clam"):
        said += _here(0, "export", run, "--to", to, "-o", folder / "exports" / to)
    said += _here(1, "status", run, "--failures") + _here(1, "status", run, "--json")
    said += _here(0, "verify", run)
    mask = ("--mask", slides / "CanaryMask.geojson", "--workers", 0, "--pseudonyms", pseudonyms)
    said += _here(1, "tile", slides / f"{FILE} 1.svs", "-o", folder / "masked", *mask)
    _evaluate(run)
    publication = prepare_publication(run / "checkpoint", "lab/name", "mit")
    (folder / "exports" / "pushed").mkdir()
    for name, content in publication.files.items():
        (folder / "exports" / "pushed" / name).write_bytes(content)
    return Ran(folder, said + _describe(publication))


def _write(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def _wsi_lmc(code: int, *arguments: object) -> str:
    """What a command printed, in a process of its own."""
    command = [sys.executable, "-m", "wsi_lmc", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def _here(code: int, *arguments: object) -> str:
    """What a command printed, in this process, which has torch already."""
    said, own = io.StringIO(), (sys.stdout, sys.stderr)
    sys.stdout = sys.stderr = said
    left = 0
    try:
        name, *words = map(str, arguments)
        group = typer.main.get_command(build_app(name))
        command = group.get_command(click.Context(group), name)  # pyright: ignore
        command.main(words, name)
    except SystemExit as error:
        left = int(error.code or 0)
    finally:
        sys.stdout, sys.stderr = own
    assert left == code, said.getvalue()
    return said.getvalue()


def _evaluate(run: Path) -> None:
    """Probes and their pictures, of what a run knows."""
    entries = {entry.slide_id: entry for entry in list_slides(run)}
    known = [(entries[store.slide_id], store) for store in find_features(run)]
    described = tuple(
        SlideFeatures(e.slide_id, e.patient, e.site, store.features, np.arange(len(store)) % 2) for e, store in known
    )
    sets = [FeatureSet("LMC", described, ("a", "b"), sum(len(slide.labels) for slide in described))]
    evaluation = evaluate(sets, EvaluateConfig(resamples=20, distance_resamples=2))
    write_evaluation(evaluation, sets, run / "evaluation")


def test_the_canaries_are_where_a_reader_would_see_them(slides: Path) -> None:
    with openslide.OpenSlide(slides / f"{FILE} 1.svs") as slide:
        assert {"label", "macro"} <= set(slide.associated_images)
        assert sum("Canary" in value for value in slide.properties.values()) >= 10
    content = (slides / f"{FILE} 1.svs").read_bytes()
    assert content.count(b"CanaryJpegComment") > 10
    assert content.count(b"CanarylabelPixels") > 100


def test_with_pseudonyms_nothing_names_the_patient(hidden: Ran) -> None:
    assert findings(hidden.folder) == []
    assert canaries_in(hidden.said.encode()) == []


def test_every_stage_has_written_what_it_should(hidden: Ran) -> None:
    """Else there would be nothing to find."""
    run = hidden.folder / "run"
    found = {outcome.slide_id: outcome for outcome in outcomes(run, "tile")}
    assert [found[f"s{number}"].state for number in range(1, 10)] == ["done"] * 4 + ["failed"] * 5
    codes = {found[f"s{number}"].code for number in range(5, 10)}
    assert len(codes) == len(BROKEN), "each for a reason of its own"
    assert "internal" not in codes
    written = {path.name for path in hidden.folder.rglob("*")}
    assert {"run.yaml", "slides.csv", "manifest.csv", "provenance.json", "metrics.jsonl", "evaluation.json"} <= written
    assert {"s1.zarr", "s1.geojson", "s1.jpg", "s1.h5", "s1_patches.h5", "s1.pt", "dataset.csv", "README.md"} <= written
    assert any(name.startswith("events.out") for name in written)
    assert json.loads((run / "tiles" / "s1.zarr" / "zarr.json").read_text())["attributes"]["codec"] == CODECS["kept"]
    assert {outcome.code for outcome in outcomes(hidden.folder / "masked", "tile")} == {"bad_mask"}
    assert len(find_features(hidden.folder / "straight")) == 4


def test_patients_have_their_pseudonyms(hidden: Ran) -> None:
    with (hidden.folder / "exports" / "clam" / "dataset.csv").open(newline="") as file:
        assert {row["slide_id"]: row["case_id"] for row in csv.DictReader(file)} == {
            f"s{number}": f"p{number}" for number in range(1, 5)
        }


def test_exports_hold_no_path_of_this_machine(hidden: Ran, slides: Path) -> None:
    for path in (hidden.folder / "exports").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for folder in (hidden.folder, slides.parent, Path(__file__).parents[2], Path(sys.prefix), Path.home()):
            assert str(folder).encode() + b"/" not in content, f"{folder} in {path}"


def test_an_encoder_as_onnx_holds_no_path_of_this_machine(
    hidden: Ran, tmp_path: Path, oracle: Callable[[str], ModuleType]
) -> None:
    oracle("onnx")
    _here(0, "export", hidden.folder / "run" / "checkpoint", "--to", "onnx", "-o", tmp_path / "encoder.onnx")
    content = (tmp_path / "encoder.onnx").read_bytes()
    assert b"stack_trace" not in content
    for folder in (hidden.folder, Path(__file__).parents[2], Path(sys.prefix)):
        assert str(folder).encode() not in content
    assert findings(tmp_path) == []


def test_no_output_is_a_page_with_parts_from_elsewhere(hidden: Ran) -> None:
    for path in hidden.folder.rglob("*.html"):
        assert b"://" not in path.read_bytes(), f"{path} loads something"


def test_without_pseudonyms_the_name_of_the_file_is_all_that_is_told(slides: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = _here(1, "tile", slides / "manifest.csv", "-o", run, "--workers", 0)
    names = [path.name for path in slides.iterdir()] + [f"{FILE} gone.svs"]
    told = (*(entry.slide_id for entry in list_slides(run)), *names)
    assert canaries_in(said.encode(), told) == []
    # the manifest of a run keeps where slides lie, and the patients that were given; nothing else does
    found = [where for where in findings(run, told) if not where.startswith("manifest.csv")]
    assert found == []
    assert findings(run), "the names themselves are found"


def test_a_slide_that_is_not_in_the_map_stops_everything(slides: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text(f"slide,slide_id\n{FILE} 1.svs,s1\n")
    for command in (["tile"], ["embed", "--encoder", "untrained:vit-demo"]):
        with pytest.raises(WsiLmcError, match=r"no row for 'CanaryFile Doe Jane 2.svs'") as caught:
            _here(2, *command, slides, "-o", tmp_path / "out", "--workers", 0, "--pseudonyms", path)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_slides_with_pseudonyms_are_not_looked_for_by_them(hidden: Ran) -> None:
    with pytest.raises(WsiLmcError, match="pseudonyms only") as caught:
        _here(2, "retry-failed", hidden.folder / "run", "--workers", 0)
    assert caught.value.exit_code == 2


def test_own_names_and_pseudonyms_are_never_mixed(slides: Path, tmp_path: Path) -> None:
    one = slides / f"{FILE} 1.svs"
    pseudonyms = ("--pseudonyms", slides.parent / "map.csv")
    for first, second, said in (((), pseudonyms, "their own names"), (pseudonyms, (), "have pseudonyms")):
        out = tmp_path / said
        common = ("tile", one, "-o", out, "--workers", 0)
        _here(0, *common, *first)
        with pytest.raises(WsiLmcError, match=said):
            _here(2, *common, *second)
        assert len(list((out / "tiles").iterdir())) == 1


# ---------------------------------------------------------------- the search itself


def _plant_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(3)).attrs["name"] = "a Canary"


def _plant_packed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.resize(np.frombuffer(b"Canary", np.uint8), 5000), compression="gzip")


def _plant_zarr(path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    group.create_array("x", data=np.resize(np.frombuffer(b"CanaryPixels ", np.uint8), 9000))


def _plant_tensor(path: Path) -> None:
    torch.save({"name": "Canary"}, path)


def _plant_deflated(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", "Canary " * 1000)


def _plant_picture(path: Path) -> None:
    cv2.imwrite(str(path), np.resize(np.frombuffer(b"Canary", np.uint8), (60, 600)), [cv2.IMWRITE_PNG_FILTER, 8])


PLANTS: dict[str, Callable[[Path], object]] = {
    "a.txt": lambda path: path.write_text("Mrs CANARY"),
    "b.bin": lambda path: path.write_bytes("xCanary".encode("utf-16-le")),
    "c.json": lambda path: path.write_bytes(b"canary".hex().encode()),
    "d.txt": lambda path: path.write_bytes(__import__("base64").b64encode(b"ab the Canary sings")),
    "canary-1.txt": lambda path: path.write_text("nothing"),
    "e.h5": _plant_hdf5,
    "f.h5": _plant_packed,
    "g.zarr": _plant_zarr,
    "h.pt": _plant_tensor,
    "i.zip": _plant_deflated,
    "j.png": _plant_picture,
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_canary_that_is_there_is_found(name: str, tmp_path: Path) -> None:
    PLANTS[name](tmp_path / name)
    assert findings(tmp_path)


def test_nothing_is_found_where_there_is_none(tmp_path: Path) -> None:
    with suppress(OSError):
        (tmp_path / "a.txt").write_text("Mrs Can arrives")
    assert findings(tmp_path) == []
