"""``wsi-lmc evaluate`` on real run folders, with pairs of tiles from two scans; tables of pairs that do not fit."""

import json
from pathlib import Path

import click.testing
import cv2
import numpy as np
import pytest
import typer.main

from wsi_lmc.cli import build_app
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.evaluation import FeatureSet, baseline_set, colour_features, read_evaluation
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featuresets import Reading, load_feature_sets
from wsi_lmc.labels import write_labels
from wsi_lmc.patches import write_patches
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores
from wsi_lmc.runfolder import add_slides, prepare_run
from wsi_lmc.tilepairs import load_pairs, read_pairs
from wsi_lmc.tilestore import TileStore

_PX = 64


def _scan(folder: Path, name: str, tint: float, seed: int) -> Path:
    """Twelve tiles: stripes or blobs by turns, tinted as a scanner would."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: 3 * _PX, : 4 * _PX]
    stripes = 60 * np.sin(columns / (1.5 + seed % 3))
    noise = cv2.GaussianBlur(rng.normal(0, 300, rows.shape), (0, 0), 3)
    odd = (rows // _PX + columns // _PX) % 2 == 1
    image = np.where(odd, stripes, noise)[..., None] + np.asarray([180, 120 + tint, 170])
    image = image + rng.normal(0, 4, image.shape)
    path = folder / f"{name}.png"
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same four patients at both sites, embedded by two untrained networks."""
    base = tmp_path_factory.mktemp("runs")
    run = base / "one"
    prepare_run(run, [])
    entries = []
    for site, tint in (("cs2", 0.0), ("s360", 45.0)):
        for patient in range(4):
            slide = f"{site}-{patient}"
            image = _scan(base, slide, tint, patient)
            store = write_patches(run, slide, [image], _PX, 0.5)
            kinds = ["blobs" if number % 2 == (number // 4) % 2 else "stripes" for number in range(12)]
            write_labels(run, slide, store.origins, kinds)
            entries.append(SlideEntry(image, slide, None, f"secret{patient}", site, ""))
    add_slides(run, entries)
    for folder, seed in ((run, 0), (base / "two", 1)):
        stores = EmbedInputs(stores=find_stores([run]))
        embed_cohort(stores, f"untrained:vit-demo@{seed}", folder, EmbedConfig(), RunOptions(SerialExecutor()))
    return run, base / "two"


@pytest.fixture
def pairs(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """Each tile with its second scan."""
    lines = ["slide_a,x_a,y_a,slide_b,x_b,y_b"]
    for patient in range(4):
        origins = TileStore.open(runs[0] / "tiles" / f"cs2-{patient}.zarr").origins.tolist()
        lines += [f"cs2-{patient},{x},{y},s360-{patient},{x},{y}" for x, y in origins]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _run(*words: object) -> click.testing.Result:
    group = typer.main.get_command(build_app("evaluate"))
    command = group.get_command(click.Context(group), "evaluate")  # pyright: ignore
    return click.testing.CliRunner().invoke(command, list(map(str, words)))


def test_slides_seen_in_training_count_in_the_transfer_alone(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    seen = [{"slide_id": f"cs2-{patient}", "trained_on": 12} for patient in (0, 1)]
    seen.append({"slide_id": "elsewhere", "trained_on": 12})
    (tmp_path / "checkpoint" / "provenance.json").write_text(json.dumps({"slides": seen}))
    for name, more in (("all", ()), ("unseen", ("--seen", tmp_path / "checkpoint"))):
        done = _run(f"one={runs[0]}", "-o", tmp_path / name, "--k", "8", *more)
        assert done.exit_code == 0, done.output + str(done.exception)
    assert "seen in training: 2 of 8 slides" in done.output
    every, unseen = (read_evaluation(tmp_path / name) for name in ("all", "unseen"))
    assert (every.settings["seen"], unseen.settings["seen"]) == (0, 2)
    for name, same in (("transfer_auroc", True), ("w2_relative", False), ("silhouette_batch", False)):
        values = [found.encoders[0].find(name) for found in (every, unseen)]
        assert values[0] is not None and values[1] is not None  # noqa: PT018
        assert (values[0].value == values[1].value) == same, name
    refused = _run(f"one={runs[0]}", "-o", tmp_path / "no", "--seen", tmp_path)
    assert isinstance(refused.exception, UsageError)
    assert not (tmp_path / "no").exists()


def test_the_command_measures_encoders_and_baselines_side_by_side(
    runs: tuple[Path, Path], pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = _run(
        f"seed0={runs[0]}", f"seed1={runs[1]}", "--baseline", "colour,texture", "--pairs", pairs, "-o", out, "--k", "8"
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    found = read_evaluation(out)
    assert [encoder.name for encoder in found.encoders] == ["colour", "texture", "seed0", "seed1"]
    assert (found.sites, found.classes) == (("cs2", "s360"), ("blobs", "stripes"))
    for encoder in found.encoders:
        assert (encoder.tiles, encoder.of, encoder.slides, encoder.groups) == (96, 96, 8, 4)
        assert (encoder.find("pair_top1") is not None) == encoder.name.startswith("seed")
        for name in ("w2_relative", "kbet", "robustness_index", "transfer_auroc"):
            assert encoder.find(name) is not None
    shift = [encoder.find("centroid_shift") for encoder in found.encoders[:2]]
    assert shift[0] is not None and shift[1] is not None  # noqa: PT018
    assert shift[0].value > 2 * shift[1].value, "a tint shifts colour and not texture"
    for line in ("Wasserstein distance, scale-free", "measured on 96 of 96 tiles, 4 groups, 2 sites", "metrics.png"):
        assert line in done.output
    written = "".join(path.read_text() for path in (out / "evaluation.json", out / "evaluation.csv"))
    assert "secret" not in written + done.output


def test_baselines_are_of_the_tiles_that_were_embedded(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = _run(f"one={runs[1]}", "--baseline", "colour", "-o", tmp_path, "--tiles-per-slide", "7", "-q")
    assert done.exit_code == 0, done.output + str(done.exception)
    assert json.loads((tmp_path / "evaluation.json").read_text())["encoders"][0]["tiles"] == 56
    slide = load_feature_sets([f"one={runs[1]}"], Reading(tiles_per_slide=7))[0].slides[0]
    assert slide.origins is not None and slide.store is not None  # noqa: PT018
    store = TileStore.open(slide.store)
    rows = [store.origins.tolist().index(origin) for origin in slide.origins.tolist()]
    colours = baseline_set(FeatureSet("x", (slide,), (), 7), "colour").slides[0].features
    raw = colour_features(store.read(np.asarray(rows)))
    np.testing.assert_allclose(colours, (raw - raw.mean(axis=0)) / raw.std(axis=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "scanner"], "scanner without a manifest"),
        (["--source", "west"], "no site west"),
        (["--baseline", "shape"], "baseline shape"),
    ],
)
def test_what_does_not_fit_is_refused(runs: tuple[Path, Path], words: list[str], said: str, tmp_path: Path) -> None:
    done = _run(f"one={runs[0]}", *words, "-o", tmp_path / "out")
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_another_column_is_looked_at(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """By patient parity instead of site, with each slide a group."""
    lines = ["slide,slide_id,lab"]
    lines += [f"{site}-{n}.png,{site}-{n},lab {n % 2}" for site in ("cs2", "s360") for n in range(4)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    done = _run(
        *(f"one={runs[0]}", "--manifest", tmp_path / "manifest.csv", "--by", "lab", "--group", "slide"),
        *("-o", tmp_path / "out", "--k", "8"),
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    found = read_evaluation(tmp_path / "out")
    assert (found.by, found.sites, found.encoders[0].groups) == ("lab", ("lab 0", "lab 1"), 8)


def test_pairs_are_the_features_of_these_tiles(runs: tuple[Path, Path], pairs: Path) -> None:
    sets = load_pairs([f"one={runs[0]}", f"two={runs[1]}"], Reading(), pairs)
    assert list(sets) == ["one", "two"]
    whole = {s.slide_id: s for s in load_feature_sets([f"one={runs[0]}"], Reading())[0].slides}
    first, second = sets["one"].first, sets["one"].second
    for number, (a, b) in enumerate(read_pairs(pairs)):
        for place, row in ((a, first[number]), (b, second[number])):
            slide = whole[place.slide_id]
            assert slide.origins is not None
            here = slide.origins.tolist().index([place.x, place.y])
            np.testing.assert_array_equal(row, slide.features[here].astype(np.float32))
    assert sets["one"].group.tolist() == np.repeat(np.arange(4), 12).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("s360-2,0,", "s360-2,7,"), "no tile of slide s360-2 at x 7"),
        (("s360-1", "s999-1"), "pairs of slide s999-1"),
        (("cs2-0,0,0", "cs2-0,0,-1"), "line 2: x '0', y '-1'"),
        (("x_b", "x_c"), "a column x_b"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(
    runs: tuple[Path, Path], pairs: Path, change: tuple[str, str], said: str
) -> None:
    text = pairs.read_text()
    assert change[0] in text
    pairs.write_text(text.replace(*change))
    with pytest.raises(UsageError, match=said):
        load_pairs([f"one={runs[0]}"], Reading(), pairs)


def test_few_pairs_are_refused(pairs: Path) -> None:
    pairs.write_text("\n".join(pairs.read_text().splitlines()[:4]))
    with pytest.raises(UsageError, match="3 pairs"):
        read_pairs(pairs)


def test_an_evaluation_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        read_evaluation(tmp_path)
