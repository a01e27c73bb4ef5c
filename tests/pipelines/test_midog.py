"""MIDOG 2021 from its JSON and images to a table."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.common import main
from pipelines.midog import PIPELINE
from wsi_lmc.annotations import centred_on, midog2021_scanner, read_midog
from wsi_lmc.labels import labels_path, read_labels
from wsi_lmc.runfolder import list_slides
from wsi_lmc.tilestore import TileStore

FOLDERS = {"Aperio CS2": "Aperio-CS2", "Hamamatsu S360": "Hamamatsu-S360", "Hamamatsu XR": "Hamamatsu-XR"}


def _call(config: Path, data: Path, out: Path, *more: str) -> int:
    return main(PIPELINE, ["--config", str(config), "--data", str(data), "-o", str(out), "--workers", "0", *more])


@pytest.fixture(scope="module")
def run(downloads: Path, configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("midog")
    assert _call(configs / "midog" / "smoke.yaml", downloads / "midog", out) == 0
    return out


def test_from_images_and_cells_to_a_table(run: Path) -> None:
    table = (run / "study" / "table.md").read_text(encoding="utf-8")
    assert "Hamamatsu S360" in table
    assert "Hamamatsu XR" in table


def test_features_alone_can_be_asked_for(run: Path, downloads: Path, configs: Path, tmp_path: Path) -> None:
    """Of a single study, too; encoders that are there are used."""
    shutil.copytree(run, tmp_path / "out", ignore=shutil.ignore_patterns("features", "table.md", "results.json"))
    assert _call(configs / "midog" / "smoke.yaml", downloads / "midog", tmp_path / "out", "--features-only") == 0
    made = {path.name for path in (tmp_path / "out" / "study" / "features").iterdir()}
    assert made == {path.name for path in (run / "study" / "features").iterdir()}
    assert not (tmp_path / "out" / "study" / "results.json").exists()


def test_a_tile_lies_around_each_cell(run: Path, downloads: Path) -> None:
    for image in read_midog(downloads / "midog" / "MIDOG.json"):
        scanner = midog2021_scanner(image.file_name)
        if scanner not in FOLDERS:
            continue
        folder, slide_id = run / FOLDERS[scanner], Path(image.file_name).stem
        origins = centred_on(image.centres, (128.0, 128.0), (image.width, image.height))
        wanted = {(x, y): label for (x, y), label in zip(origins.tolist(), image.labels, strict=True)}
        assert read_labels(labels_path(folder, slide_id)) == wanted
        store = TileStore.open(folder / "tiles" / f"{slide_id}.zarr")
        pixels = cv2.imread(str(downloads / "midog" / image.file_name))
        assert pixels is not None
        for tile, (x, y) in zip(store.read(np.arange(len(store))), store.origins.tolist(), strict=True):
            difference = np.abs(tile.astype(int) - pixels[y : y + 128, x : x + 128, ::-1])
            assert difference.mean() < 1.5  # two decoders of JPEG


def test_scanners_and_cases_stay_apart(run: Path) -> None:
    slides = {name: list_slides(run / folder) for name, folder in FOLDERS.items()}
    for name, entries in slides.items():
        assert [entry.site for entry in entries] == [name] * 2
        assert len({entry.patient for entry in entries}) == 2
    assert {entry.slide_id for entry in list_slides(run / "unlabelled")} == {"101", "102"}


def test_check_names_missing_images(downloads: Path, configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(configs / "midog" / "paper.yaml", downloads / "midog", Path("out"), "--check") == 1
    assert "144 of 150 missing" in capsys.readouterr().out


def test_scanners_without_cells_or_names_are_refused(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    for targets, said in (("Leica GT450", "no cells annotated"), ("Aperio CS2", "different ones"), ("X", "different")):
        config.write_text(f"data:\n  targets: [{targets}]\n", encoding="utf-8")
        assert _call(config, downloads / "midog", tmp_path / "out") == 2
        assert said in capsys.readouterr().err


@pytest.mark.real
def test_every_published_cell_has_a_tile_of_its_own(test_data: Path) -> None:
    for image in read_midog(test_data / "annotations" / "MIDOG2021.json"):
        origins = centred_on(image.centres, (256.0, 256.0), (image.width, image.height))
        assert len(np.unique(origins, axis=0)) == len(origins), image.file_name
