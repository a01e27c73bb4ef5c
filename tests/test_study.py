"""Studies on small tiles of known stain: what rows are, that they are made once, and that their scores are right."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, recall_score, roc_auc_score

from tests.tissue import mix
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.encoder import EncoderConfig, build_encoder, embedding_width
from wsi_lmc.errors import UsageError
from wsi_lmc.heads import Examples, fit
from wsi_lmc.heads.tiles import TileKind
from wsi_lmc.labels import write_labels
from wsi_lmc.normalisers.colour import Macenko
from wsi_lmc.patches import write_patches
from wsi_lmc.publish import exclusive
from wsi_lmc.run import find_stores, open_stores
from wsi_lmc.runfolder import add_slides, prepare_run
from wsi_lmc.stain import RUIFROK
from wsi_lmc.study import COMPARATORS, Study, StudyConfig, compare_all, make_features, open_workshop, run_study
from wsi_lmc.study.comparators import ABLATIONS, ROWS, SPREAD
from wsi_lmc.study.data import LabelledTiles, labelled_tiles, normalise_run, typical_tile
from wsi_lmc.study.features import SOURCE
from wsi_lmc.study.run import read_features
from wsi_lmc.study.scoring import BLIND, Marking, Predicted, metrics_of, score_rows
from wsi_lmc.study.supervised import train_supervised
from wsi_lmc.tilestore import TileStore
from wsi_lmc.training import TrainConfig

PX, CLASSES = 32, ("even", "coarse")
OTHER = ((0.560, 0.760, 0.330), (0.180, 0.890, 0.419))


def _tile(label: int, seed: int, stains: object) -> np.ndarray:
    """Class 0 is fine-grained, class 1 coarse: texture alone tells them."""
    if label == 0:
        return mix(stains, seed, (PX, PX))
    return np.repeat(np.repeat(mix(stains, seed, (PX // 8, PX // 8)), 8, 0), 8, 1)


def _write_run(out: Path, site: str, stains: object, patients: int, first_seed: int) -> Path:
    """A run folder with a store a patient, tiles of both classes in each."""
    prepare_run(out)
    entries = []
    for patient in range(patients):
        slide_id, paths, labels = f"{site}-{patient}", [], []
        for number in range(8):
            path = out.parent / "images" / f"{slide_id}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            tile = _tile(number % 2, first_seed + 100 * patient + number, stains)
            cv2.imwrite(str(path), cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))
            paths.append(path)
            labels.append(CLASSES[number % 2])
        store = write_patches(out, slide_id, paths, PX, 0.5)
        labels[-1] = "" if patient == 0 else labels[-1]  # one tile without a label
        write_labels(out, slide_id, store.origins, labels)
        entries.append(SlideEntry(paths[0], slide_id, patient=f"p{patient}", site=site))
    add_slides(out, entries)
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "a": _write_run(folder / "a", "a", RUIFROK, 5, 0),
        "b": _write_run(folder / "b", "b", OTHER, 4, 5000),
        "c": _write_run(folder / "c", "c", OTHER, 3, 9000),
    }


def _study(runs: Mapping[str, Path]) -> Study:
    return Study(runs["a"], runs["a"], {"b": runs["b"], "c": runs["c"]}, CLASSES)


CONFIG = StudyConfig(
    comparators=("colour", "texture", "untrained", "lmc", "geometry-macenko", "geometry-macenko-target", "supervised",
                 "geometry-staingan"),
    seeds=2, steps=3, batch=8, architecture="vit-demo", lr=1e-3, device="cpu", precision="float32",
)  # fmt: skip


def test_rows_that_should_differ_in_one_thing_do() -> None:
    plain, stained = COMPARATORS["geometry"].views, COMPARATORS["lmc-turned"].views
    assert {name for name, value in asdict(plain).items() if value != asdict(stained)[name]} == {
        "scale_low", "scale_high",
    }  # fmt: skip
    assert COMPARATORS["geometry-macenko"].views == plain
    assert COMPARATORS["supervised-macenko"].normalise == "macenko"
    for name, row in COMPARATORS.items():
        assert not row.encoder_of or row.views == COMPARATORS[row.encoder_of].views, name


def test_an_ablation_differs_from_lmc_in_one_thing() -> None:
    lmc = asdict(COMPARATORS["lmc"])
    for name, row in ABLATIONS.items():
        given = asdict(row)
        changed = [
            f"{part} {key}" for part in ("views", "change") for key in lmc[part] if given[part][key] != lmc[part][key]
        ]
        assert len(changed) == (2 if "range" in name else 1), name
        assert (row.teacher, row.normalise, row.encoder_of) == ("views", "none", ""), name
    for name, row in SPREAD.items():
        same = COMPARATORS[name.replace("-spread", "")]
        assert row == replace(same, change=replace(same.change, spread_weight=1.0)), name
    assert ROWS.keys() == COMPARATORS.keys() | ABLATIONS.keys() | SPREAD.keys()
    for architecture in ("vit-tiny", "vit-demo"):
        network = build_encoder(EncoderConfig(architecture), 32, 0)
        assert embedding_width(architecture) == network(torch.zeros(1, 3, 32, 32)).shape[1]


def test_rows_without_weights_are_left_out_and_unknown_ones_refused() -> None:
    assert CONFIG.left_out == ("geometry-staingan",)
    assert "geometry-staingan" in replace(CONFIG, staingan="weights.pth").rows
    with pytest.raises(UsageError, match="lmx"):
        StudyConfig(comparators=("lmx",))
    with pytest.raises(UsageError, match="seeds = 0"):
        StudyConfig(seeds=0)


def test_labelled_tiles_are_those_with_a_label_and_know_their_patient(runs: Mapping[str, Path]) -> None:
    tiles = labelled_tiles(runs["a"], CLASSES)
    assert len(tiles) == 39
    assert sorted(set(tiles.groups)) == ["p0", "p1", "p2", "p3", "p4"]
    assert np.bincount(tiles.labels).tolist() == [20, 19]
    pixels = np.concatenate(list(tiles.blocks(5)))
    expected = [tiles.stores[i].read(np.asarray([r]))[0] for i, r in zip(tiles.index, tiles.row, strict=True)]
    np.testing.assert_array_equal(pixels, expected)
    only = labelled_tiles(runs["a"], ("coarse",))
    assert len(only) == 19
    with pytest.raises(UsageError, match="no tile"):
        labelled_tiles(runs["a"], ("tumour",))


def test_normalised_stores_hold_what_the_normaliser_gives(runs: Mapping[str, Path], tmp_path: Path) -> None:
    stores = open_stores(find_stores([runs["b"]]))
    look = Macenko.fit(torch.from_numpy(typical_tile(open_stores(find_stores([runs["a"]])))))
    made = normalise_run(runs["b"], tmp_path, look, "macenko", torch.device("cpu"))
    assert [store.slide_id for store in made] == [store.slide_id for store in stores]
    every = np.arange(len(stores[1]))
    expected = look(torch.from_numpy(stores[1].read(every))).numpy()
    np.testing.assert_array_equal(made[1].read(every), expected)
    np.testing.assert_array_equal(made[1].origins, stores[1].origins)
    assert made[1].fingerprint != stores[1].fingerprint
    before = made[1].path.stat().st_mtime_ns
    normalise_run(runs["b"], tmp_path, look, "macenko", torch.device("cpu"))
    assert TileStore.open(made[1].path).path.stat().st_mtime_ns == before


def test_supervised_training_learns_labels_and_depends_on_its_seed_alone(
    runs: Mapping[str, Path], tmp_path: Path
) -> None:
    tiles = _by_darkness(labelled_tiles(runs["a"], CLASSES))
    config = TrainConfig(steps=60, batch=16, device="cpu", architecture="vit-demo", lr=3e-3,
                         views=COMPARATORS["supervised"].views)  # fmt: skip
    losses = train_supervised(tiles, 2, tmp_path / "long", config)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        train_supervised(tiles, 2, tmp_path / name, replace(config, steps=2, seed=seed))
    weights = {path.parent.parent.name: path.read_bytes() for path in tmp_path.rglob("model.safetensors")}
    assert weights["one"] == weights["again"]
    assert weights["one"] != weights["other"]


def test_supervised_training_has_the_precision_that_is_asked_for(runs: Mapping[str, Path], tmp_path: Path) -> None:
    tiles = labelled_tiles(runs["a"], CLASSES)
    config = TrainConfig(steps=3, batch=8, device="cpu", architecture="vit-demo", precision="float32",
                         views=COMPARATORS["supervised"].views)  # fmt: skip
    exact = train_supervised(tiles, 2, tmp_path / "float32", config)
    halved = train_supervised(tiles, 2, tmp_path / "bfloat16", replace(config, precision="bfloat16"))
    assert halved == pytest.approx(exact, abs=0.02)
    assert halved != exact


def _by_darkness(tiles: LabelledTiles) -> LabelledTiles:
    """The same tiles, of which the darker half is one class: what so small a network learns in so few steps."""
    light = np.concatenate([block.mean(axis=(1, 2, 3)) for block in tiles.blocks()])
    return replace(tiles, labels=(light < np.median(light)).astype(np.int64))


@pytest.fixture(scope="module")
def done(runs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out, heard = tmp_path_factory.mktemp("study"), []
    run_study(_study(runs), CONFIG, out, heard.append)
    return out, heard


def test_a_study_makes_every_row_and_says_what_it_left_out(done: tuple[Path, list[str]]) -> None:
    out, heard = done
    assert any("geometry-staingan" in line and "left out" in line for line in heard)
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in document["rows"]}
    assert set(rows) == {*CONFIG.rows, BLIND}
    assert {name: row["seeds"] for name, row in rows.items() if name != BLIND} == {
        "colour": 1, "texture": 1, "untrained": 2, "lmc": 2, "geometry-macenko": 2, "geometry-macenko-target": 2,
        "supervised": 2,
    }  # fmt: skip
    assert rows["texture"]["mean"]["AUROC"]["value"] > 0.95, "classes differ in texture"
    assert rows["lmc"]["gain"] == {}
    assert set(rows["colour"]["gain"]) == set(metrics_of(CLASSES))
    for row in rows.values():
        assert set(row["at"]) == {"b", "c"}
        mean = np.mean([row["at"][site]["AUROC"]["value"] for site in "bc"])
        assert row["mean"]["AUROC"]["value"] == pytest.approx(mean)
    assert "/" not in json.dumps(document["stated"]), "no paths"
    tables = (out / "table.md").read_text(encoding="utf-8")
    assert tables.count("\n| lmc | ") == 2
    assert "accuracy of coarse" in tables
    assert sum(line.startswith("| ") for line in tables.splitlines()) == 2 * (1 + len(rows))
    for name in ("roc.png", "embedding.png", "scores.png"):
        assert (out / name).stat().st_size > 10_000


def test_a_row_that_normalises_targets_has_the_plain_rows_encoder_and_source(
    runs: Mapping[str, Path], tmp_path: Path
) -> None:
    rows = ("geometry", "geometry-macenko-target", "geometry-macenko")
    run_study(_study(runs), replace(CONFIG, comparators=rows, seeds=1), tmp_path, lambda _: None)
    plain, target, all_tiles = (read_features(tmp_path / "features" / f"{row}-0.npz") for row in rows)
    np.testing.assert_array_equal(target[SOURCE], plain[SOURCE])
    assert np.abs(target["b"] - plain["b"]).max() > 1e-3
    assert np.abs(all_tiles[SOURCE] - plain[SOURCE]).max() > 1e-3
    assert {path.name for path in (tmp_path / "encoders").glob("geo*")} == {"geometry-0", "geometry-macenko-0"}


def test_a_study_that_is_there_is_not_made_again(runs: Mapping[str, Path], done: tuple[Path, list[str]]) -> None:
    out, _ = done
    before = {path: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    table = (out / "table.md").read_text(encoding="utf-8")
    heard: list[str] = []
    run_study(_study(runs), CONFIG, out, heard.append)
    assert {path: path.stat().st_mtime_ns for path in (out / "features").iterdir()} == before
    assert not any("seed" in line for line in heard)
    assert (out / "table.md").read_text(encoding="utf-8") == table


def test_features_can_be_asked_for_seed_by_seed(runs: Mapping[str, Path], tmp_path: Path) -> None:
    config = replace(CONFIG, comparators=("colour", "untrained"), seeds=3)
    workshop, said = open_workshop(_study(runs), config, tmp_path), list[str]()
    assert make_features(workshop, said.append, [1])
    assert said == ["untrained, seed 1"], "colour has no seed but the first"
    assert make_features(workshop, said.append)
    assert said[1:] == ["colour, seed 0", "untrained, seed 0", "untrained, seed 2"]


def test_other_settings_or_tiles_are_refused(runs: Mapping[str, Path], done: tuple[Path, list[str]]) -> None:
    out, _ = done
    with pytest.raises(UsageError, match="other settings"):
        open_workshop(_study(runs), replace(CONFIG, steps=4), out)
    with pytest.raises(UsageError, match="other settings"):
        open_workshop(replace(_study(runs), source=runs["b"]), CONFIG, out)
    open_workshop(_study(runs), replace(CONFIG, seeds=9), out)


def test_a_row_in_work_elsewhere_is_not_made_twice(runs: Mapping[str, Path], done: tuple[Path, list[str]]) -> None:
    out, _ = done
    path = out / "features" / "untrained-1.npz"
    kept = path.read_bytes()
    path.unlink()
    with exclusive(out, "untrained-1"), pytest.raises(UsageError, match="another process"):
        run_study(_study(runs), CONFIG, out, lambda _: None)
    path.write_bytes(b"damaged")
    with pytest.raises(UsageError, match="cannot be read"):
        run_study(_study(runs), CONFIG, out, lambda _: None)
    path.unlink()
    run_study(_study(runs), CONFIG, out, lambda _: None)
    assert path.read_bytes() == kept, "the same seed gives the same features"


def _marking(runs: Mapping[str, Path]) -> Marking:
    study = _study(runs)
    sites = {SOURCE: study.source, **study.targets}
    return Marking({name: labelled_tiles(folder, CLASSES) for name, folder in sites.items()}, CLASSES)


def _features(marking: Marking, signal: float, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.normal(0, 1, (len(tiles), 6)) + signal * tiles.labels[:, None], np.float32)
        for name, tiles in marking.sites.items()
    }


def test_scores_are_scikit_learns(runs: Mapping[str, Path]) -> None:
    marking = _marking(runs)
    found = marking.mark(_features(marking, 0.5), 0)
    for target in ("b", "c"):
        truth, chances = marking.sites[target].labels, found.chances[target][:, 1]
        scores = dict(zip(metrics_of(CLASSES), found.scores[target][:, 0], strict=True))
        assert scores["AUROC"] == pytest.approx(roc_auc_score(truth, chances))
        assert scores["average precision"] == pytest.approx(average_precision_score(truth, chances))
        threshold = marking_threshold(marking, 0.5)
        assert scores["F1"] == pytest.approx(f1_score(truth, chances >= threshold))
        assert scores["balanced accuracy"] == pytest.approx(balanced_accuracy_score(truth, chances >= threshold))
        assert scores["accuracy"] == pytest.approx(float(((chances >= threshold) == truth).mean()))
        by_class = [recall_score(truth, chances >= threshold, pos_label=label) for label in (0, 1)]
        np.testing.assert_allclose([scores[f"accuracy of {name}"] for name in CLASSES], by_class)


def test_beside_every_score_stands_that_of_looking_at_nothing(runs: Mapping[str, Path]) -> None:
    marking = _marking(runs)
    (row,) = score_rows({BLIND: [marking.blind()]}, "lmc", CLASSES)
    share = float((marking.sites["b"].labels == 1).mean())
    expected = {"AUROC": 0.5, "average precision": share, "balanced accuracy": 0.5, "F1": 2 * share / (1 + share),
                "accuracy": share, "accuracy of even": 0.0, "accuracy of coarse": 1.0}  # fmt: skip
    assert {name: cell.value for name, cell in row.at["b"].items()} == pytest.approx(expected)


def test_a_class_that_a_target_lacks_counts_at_the_others(runs: Mapping[str, Path]) -> None:
    whole = _marking(runs)
    one_class = labelled_tiles(runs["c"], CLASSES[1:])
    lacking = replace(one_class, labels=np.ones(len(one_class), np.int64))
    marking = replace(whole, sites={**whole.sites, "c": lacking})
    (row,) = score_rows({"lmc": [marking.mark(_features(marking, 1.0), 0)]}, "lmc", CLASSES)
    assert "accuracy of even" not in row.at["c"]
    assert row.mean["accuracy of even"].value == row.at["b"]["accuracy of even"].value
    coarse = np.mean([row.at[name]["accuracy of coarse"].value for name in "bc"])
    assert row.mean["accuracy of coarse"].value == pytest.approx(coarse)


def marking_threshold(marking: Marking, signal: float) -> float:
    from wsi_lmc.evaluation.transfer import learn

    return learn(marking._sample(_features(marking, signal), (SOURCE,)), 0).threshold


@pytest.mark.parametrize("head", ["knn", "mlp"])
def test_another_head_is_really_another_one(runs: Mapping[str, Path], head: TileKind) -> None:
    marking = _marking(runs)
    features = _features(marking, 1.5)
    plain, other = (each.mark(features, 0) for each in (marking, replace(marking, head=head)))
    assert np.abs(plain.chances["b"] - other.chances["b"]).max() > 0.01
    tiles = marking.sites[SOURCE]
    groups = np.unique(tiles.groups, return_inverse=True)[1]
    expected = fit(head, Examples(features[SOURCE], tiles.labels, groups, 2), 0).probabilities(features["b"])
    np.testing.assert_array_equal(other.chances["b"], expected)
    assert other.within is not None
    assert other.within > 0.8


def test_a_better_row_has_a_gain_whose_interval_is_paired(runs: Mapping[str, Path]) -> None:
    marking = _marking(runs)
    predicted: dict[str, list[Predicted]] = {
        "lmc": [marking.mark(_features(marking, 1.5, seed), seed) for seed in range(3)],
        "noise": [marking.mark(_features(marking, 0.0, seed), seed) for seed in range(3)],
        "same": [marking.mark(_features(marking, 1.5, seed), seed) for seed in range(3)],
    }
    rows = {row.row: row for row in score_rows(predicted, "lmc", CLASSES)}
    gain = rows["noise"].gain["AUROC"]
    assert gain.low is not None
    assert gain.low > 0.1
    same = rows["same"].gain["AUROC"]
    assert same.value == pytest.approx(0)
    assert same.low == same.high == pytest.approx(0), "the same patients and seeds are drawn for both rows"
    noise = rows["noise"].mean["AUROC"]
    assert noise.low is not None
    assert noise.high is not None
    assert noise.low < 0.5 < noise.high
    assert noise.seed_sd > 0
    assert rows["lmc"].site is not None


def test_all_pairs_are_the_studies_of_all_sources(runs: Mapping[str, Path], tmp_path: Path) -> None:
    config = replace(CONFIG, comparators=("colour", "lmc"), seeds=1, steps=1)
    results = {}
    for source in "ab":
        targets = {name: runs[name] for name in "ab" if name != source}
        study = Study(runs[source], runs[source], targets, CLASSES)
        results[source] = run_study(study, config, tmp_path / source, lambda _: None)
    rows = {row.row: row for row in compare_all(results, tmp_path)}
    assert set(rows["lmc"].at) == {"a > b", "b > a"}
    each = [results["a"].rows[1].at["b"]["AUROC"].value, results["b"].rows[1].at["a"]["AUROC"].value]
    assert rows["lmc"].mean["AUROC"].value == pytest.approx(np.mean(each))
    assert "a > b" in (tmp_path / "table.md").read_text(encoding="utf-8")
