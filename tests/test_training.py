"""Training: exact resume, refusal of mixtures, stops before damage, and that it learns."""

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wsi_lmc.batches import TileBatch, split_rows
from wsi_lmc.checkpoint import newest_valid_state, read_metrics, save_state, saved_steps, state_path
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.encoder import load_encoder, scale_input
from wsi_lmc.errors import TrainingError, UsageError
from wsi_lmc.loss import cross_correlation_loss
from wsi_lmc.publish import exclusive
from wsi_lmc.stain import RUIFROK, ViewConfig
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore, Validity
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.training import StepReport, TrainConfig, Watch, train
from wsi_lmc.training.group import Group
from wsi_lmc.training.learner import Learner, build_schedule

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    steps=6,
    batch=8,
    seed=11,
    device="cpu",
    architecture="vit-demo",
    log_every=1,
    evaluate_every=3,
    checkpoint_every=2,
    held_out_share=0.2,
)


def _write_store(folder: Path, slide_id: str, tiles: np.ndarray, mark: str = "", source: str = "file") -> TileStore:
    """A published tile store; ``mark`` changes nothing but its fingerprint, ``source`` says who knows its scale."""
    path = folder / f"{slide_id}{mark}.zarr"
    writer = TileStoreWriter(path, len(tiles), tiles.shape[1], "lossless")
    writer.write(0, tiles, Threads())
    valid = np.zeros(len(tiles), np.uint8)
    valid[3] = Validity.UNREADABLE
    origins = np.stack([np.arange(len(tiles)) * 64, np.full(len(tiles), 128)], axis=1).astype(np.int32)
    writer.close(
        TileRows(origins, np.ones(len(tiles), np.float32), valid),
        {
            "slide": {"id": slide_id, "mpp_source": source},
            "tile": {"px": tiles.shape[1], "mpp": 0.5, "effective_mpp": [0.5, 0.5]},
            "slide_fingerprint": f"slide {slide_id}{mark}",
            "config_fingerprint": "test",
        },
    )
    return TileStore.open(path)


def _tissue(count: int, seed: int) -> np.ndarray:
    """Stained tiles: smooth concentration fields of H and E mixed in optical density, plus noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.gamma(2.0, 0.35, (count, 2, 9, 7))
    fields = torch.nn.functional.interpolate(torch.from_numpy(coarse), (64, 64), mode="bicubic").clamp(min=0).numpy()
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    density = np.einsum("nkhw,kc->nhwc", fields, vectors) + generator.normal(0, 0.01, (count, 64, 64, 3))
    return (255 * np.exp(-density.clip(0))).round().astype(np.uint8)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[TileStore]:
    """Two slides of 21 and 34 tiles, one of each unreadable."""
    folder = tmp_path_factory.mktemp("tiles")
    return [_write_store(folder, name, _tissue(count, count)) for name, count in (("b", 21), ("a", 34))]


def _interrupt_after(step: int, error: BaseException) -> Watch:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            raise error

    return Watch(on_step)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "wall"} for row in read_metrics(folder)]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return _flat(dict(enumerate(value)), name)
    return {name: value}


def _assert_same_training(first: Path, second: Path) -> None:
    assert _rows(first) == _rows(second)
    states = []
    for folder in (first, second):
        found = newest_valid_state(folder)
        assert found is not None
        states.append(_flat(found.state))
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        other = states[1][name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    for file in ("encoder/model.safetensors", "encoder/config.json", "encoder/README.md", "provenance.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


@pytest.fixture(scope="module")
def straight(stores: list[TileStore], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps without interruption."""
    folder = tmp_path_factory.mktemp("straight") / "ckpt"
    train(stores, folder, CONFIG)
    return folder


def test_three_steps_and_three_resumed_equal_six(stores: list[TileStore], straight: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(stores, tmp_path, CONFIG, watch=_interrupt_after(3, KeyboardInterrupt()))
    assert saved_steps(tmp_path) == [3, 2]
    assert not (tmp_path / "encoder").exists()
    torch.manual_seed(4242)  # nothing may depend on the global generator
    result = train(stores, tmp_path, CONFIG, start="resume")
    assert (result.steps, result.damaged, result.held_out) == (6, (), "tiles")
    _assert_same_training(straight, tmp_path)


def test_a_projector_is_trained_resumed_and_left_behind(
    stores: list[TileStore], straight: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, projector=48)
    train(stores, tmp_path / "straight", config)
    with pytest.raises(KeyboardInterrupt):
        train(stores, tmp_path / "resumed", config, watch=_interrupt_after(3, KeyboardInterrupt()))
    train(stores, tmp_path / "resumed", config, start="resume")
    _assert_same_training(tmp_path / "straight", tmp_path / "resumed")
    found = newest_valid_state(tmp_path / "straight")
    assert found is not None
    projector = Learner(config, 64).projector.state_dict()
    assert found.state["projector"]["0.weight"].shape == projector["0.weight"].shape == (48, 64)
    assert not torch.equal(found.state["projector"]["0.weight"], projector["0.weight"]), "it learns"
    names = [load_file(folder / "encoder" / "model.safetensors").keys() for folder in (straight, tmp_path / "straight")]
    assert names[0] == names[1]


def test_a_projectors_gradient_is_that_of_the_whole_computation(stores: list[TileStore]) -> None:
    """Against autograd through encoder, projector and loss at once; in micro-batches, too."""
    config = replace(CONFIG, projector=48, views=ViewConfig(scale_low=1.0, scale_high=1.0, geometry="none"))
    tiles = torch.from_numpy(stores[0].read(np.arange(8)))
    batch = TileBatch(tiles, torch.tensor(RUIFROK).expand(8, 2, 3).contiguous())
    reference = Learner(config, 64)
    images = scale_input(tiles.permute(0, 3, 1, 2).float() / 255)
    first, second = (reference.projector(reference.model(images)) for _ in range(2))
    cross_correlation_loss(first, second, config.off_diagonal_weight).total.backward()
    expected = _gradient(reference.projector)
    for micro in (0, 3):
        learner = Learner(replace(config, micro_batch=micro, precision="float32"), 64)
        learner.learn(batch, describe=False)
        torch.testing.assert_close(_gradient(learner.projector), expected, atol=2e-4, rtol=2e-2)


def _gradient(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in module.parameters() if weight.grad is not None])


def test_a_projector_and_several_processes_are_refused() -> None:
    with pytest.raises(UsageError, match="a projector and 2 processes"):
        Learner(replace(CONFIG, projector=48), 64, Group(0, 2, CPU))


def test_a_crash_goes_back_to_the_last_state_and_its_metrics(
    stores: list[TileStore], straight: Path, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="crash"):
        train(stores, tmp_path, CONFIG, watch=_interrupt_after(5, OSError("crash")))
    assert saved_steps(tmp_path) == [4, 2]
    assert [row["step"] for row in _rows(tmp_path)] == [0, 1, 2, 3, 4, 5]
    train(stores, tmp_path, CONFIG, start="resume")
    _assert_same_training(straight, tmp_path)


_ALONE = """
import sys
from pathlib import Path
from wsi_lmc.tilestore import TileStore
from wsi_lmc.training import TrainConfig, Watch, train

stores = [TileStore.open(Path(path)) for path in sys.argv[3:]]
config = TrainConfig(steps=30, batch=8, seed=11, device="cpu", architecture="vit-demo", log_every=1, evaluate_every=9,
                     checkpoint_every=4, held_out_share=0.2, prefetch=int(sys.argv[2]))
train(stores, Path(sys.argv[1]), config, "resume", Watch(lambda report: print(report.step, flush=True)))
"""


@pytest.mark.parametrize("prefetch", [0, 2])
def test_killed_at_any_step_it_ends_with_the_same_losses_and_weights(
    prefetch: int, stores: list[TileStore], tmp_path: Path
) -> None:
    """A real process, killed twice where chance has it, and a third that goes on to the end."""
    chance = random.Random()  # noqa: S311  any step will do
    paths = [str(store.path) for store in stores]
    command = [sys.executable, "-c", _ALONE]
    subprocess.run([*command, str(tmp_path / "straight"), "0", *paths], check=True, capture_output=True)
    for _ in range(2):
        arguments = [*command, str(tmp_path / "killed"), str(prefetch), *paths]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            last = chance.randint(1, 12)
            for number, _ in enumerate(process.stdout, start=1):
                if number == last:
                    time.sleep(chance.uniform(0, 0.05))
                    process.kill()
                    break
        assert process.returncode == -signal.SIGKILL, f"killed after {last} of its steps"
    subprocess.run([*command, str(tmp_path / "killed"), str(prefetch), *paths], check=True, capture_output=True)
    first, second = ([*_rows(tmp_path / name)] for name in ("straight", "killed"))
    assert first == second
    weights = [(tmp_path / name / "encoder" / "model.safetensors").read_bytes() for name in ("straight", "killed")]
    assert weights[0] == weights[1]


def test_an_interruption_within_the_weight_update_is_not_saved(
    stores: list[TileStore], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = torch.optim.AdamW.step
    calls = []

    def interrupted(self: torch.optim.AdamW) -> None:
        calls.append(1)
        update(self)
        if len(calls) == 4:  # the weights have moved, step and schedule have not
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(stores, tmp_path, replace(CONFIG, checkpoint_every=3))
    assert saved_steps(tmp_path) == [3]
    train(stores, tmp_path, CONFIG, start="resume")
    _assert_same_training(straight, tmp_path)


def test_a_damaged_state_is_passed_over_on_resuming(
    stores: list[TileStore], straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(stores, tmp_path, CONFIG, watch=_interrupt_after(4, KeyboardInterrupt()))
    path = state_path(tmp_path, 4)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = train(stores, tmp_path, CONFIG, start="resume")
    assert result.damaged == ("state-4.pt",)
    assert "state-4.pt is damaged: going on from the older state of step 2" in caplog.text
    _assert_same_training(straight, tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resuming_is_exact_in_either_precision(
    precision: Literal["float32", "bfloat16"], stores: list[TileStore], tmp_path: Path
) -> None:
    config = replace(CONFIG, precision=precision, steps=4, micro_batch=3)
    train(stores, tmp_path / "straight", config)
    with pytest.raises(KeyboardInterrupt):
        train(stores, tmp_path / "cut", config, watch=_interrupt_after(2, KeyboardInterrupt()))
    train(stores, tmp_path / "cut", config, start="resume")
    _assert_same_training(tmp_path / "straight", tmp_path / "cut")


def test_auto_is_bfloat16_where_the_processor_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, expected in (({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert CONFIG.resolved(CPU).precision == expected
        assert replace(CONFIG, precision="float32").resolved(CPU).precision == "float32"


def test_a_training_never_changes_its_precision_unasked(
    stores: list[TileStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    train(stores, tmp_path, replace(CONFIG, steps=1))
    assert json.loads((tmp_path / "provenance.json").read_text())["config"]["precision"] == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(UsageError, match="setting precision was bfloat16, is float32"):
        train(stores, tmp_path, replace(CONFIG, steps=1), start="resume")
    train(stores, tmp_path, replace(CONFIG, steps=1, precision="bfloat16"), start="resume")


def test_labels_of_held_out_slides_are_probed(stores: list[TileStore], tmp_path: Path) -> None:
    more = [*stores, *(_write_store(tmp_path, name, _tissue(24, 7 + count)) for count, name in enumerate("cd"))]
    slides = [SlideEntry(Path(store.slide_id), store.slide_id, label="xy"[store.slide_id > "b"]) for store in more]
    config = replace(CONFIG, steps=1, held_out_share=0.3, seed=13)  # of which tiles of all four are held out below
    split = split_rows(sorted(more, key=lambda store: store.slide_id), 0.3, 2048, config.seed)
    assert split.unit == "slides"
    train(more, tmp_path / "few", config, watch=Watch(slides=slides))
    assert "held_out_knn_balanced_accuracy" not in _rows(tmp_path / "few")[0], "one slide of a class at the most"
    train(more, tmp_path / "known", replace(config, held_out_share=0.12), watch=Watch(slides=slides))
    for row in _rows(tmp_path / "known"):
        assert 0 <= row["held_out_knn_balanced_accuracy"] <= 1
        assert row["held_out_majority_balanced_accuracy"] == 0.5
    train(more, tmp_path / "unknown", replace(config, held_out_share=0.12))
    weights = [(tmp_path / name / "encoder/model.safetensors").read_bytes() for name in ("known", "unknown")]
    assert weights[0] == weights[1], "labels never train"


def test_order_of_stores_and_reading_ahead_change_nothing(
    stores: list[TileStore], straight: Path, tmp_path: Path
) -> None:
    train(stores[::-1], tmp_path, replace(CONFIG, prefetch=0))
    assert _rows(tmp_path) == _rows(straight)
    assert (tmp_path / "encoder/model.safetensors").read_bytes() == (
        straight / "encoder/model.safetensors"
    ).read_bytes()


def test_seed_changes_everything(stores: list[TileStore], straight: Path, tmp_path: Path) -> None:
    train(stores, tmp_path, replace(CONFIG, seed=12, steps=1))
    assert _rows(tmp_path)[1]["loss"] != _rows(straight)[1]["loss"]


def test_a_finished_training_resumes_to_itself(stores: list[TileStore], straight: Path) -> None:
    before = _rows(straight)
    result = train(stores, straight, CONFIG, start="resume", watch=_interrupt_after(1, AssertionError("no step")))
    assert _rows(straight) == before
    assert (result.before["step"], result.after["step"]) == (0, 6)


def test_resume_where_nothing_is_begins(stores: list[TileStore], tmp_path: Path) -> None:
    assert train(stores, tmp_path / "new", replace(CONFIG, steps=1), start="resume").after["step"] == 1


def test_resume_with_another_configuration_names_what_differs(
    stores: list[TileStore], straight: Path, tmp_path: Path
) -> None:
    before = sorted(path.name for path in straight.iterdir())
    with pytest.raises(UsageError, match=r"setting lr was 0\.0001, is 0\.001; setting mode was robust, is paper"):
        train(stores, straight, replace(CONFIG, lr=1e-3, views=ViewConfig("paper")), start="resume")
    changed = [_write_store(tmp_path, "b", _tissue(21, 21), mark="-retiled"), stores[1]]
    with pytest.raises(UsageError, match=f"tiles of slide b was {stores[0].fingerprint}, is {changed[0].fingerprint}"):
        train(changed, straight, CONFIG, start="resume")
    with pytest.raises(UsageError, match=f"tiles of slide b was {stores[0].fingerprint}, is absent"):
        train(stores[1:], straight, CONFIG, start="resume")
    assert sorted(path.name for path in straight.iterdir()) == before
    train(stores, straight, replace(CONFIG, keep=5, prefetch=0, checkpoint_every=1), start="resume")  # these may


def test_a_state_older_than_a_setting_counts_as_having_its_default(
    stores: list[TileStore], straight: Path, tmp_path: Path
) -> None:
    shutil.copytree(straight, tmp_path / "old")
    found = newest_valid_state(tmp_path / "old")
    assert found is not None
    del found.state["config"]["views"]["hed"]
    save_state(tmp_path / "old", found.step, found.state)
    train(stores, tmp_path / "old", CONFIG, start="resume")
    with pytest.raises(UsageError, match=r"setting hed was 0\.0, is 0\.1"):
        train(stores, tmp_path / "old", replace(CONFIG, views=ViewConfig(hed=0.1)), start="resume")


def test_a_used_folder_is_refused_unless_overwritten(stores: list[TileStore], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("written before training starts")
    one = replace(CONFIG, steps=1)
    train(stores, tmp_path, one)
    with pytest.raises(UsageError, match=r"holds encoder, events, metrics\.jsonl"):
        train(stores, tmp_path, one)
    (tmp_path / "notes.txt").write_text("the user's own")
    train(stores, tmp_path, replace(one, seed=99), start="overwrite")
    assert (tmp_path / "notes.txt").exists()
    assert json.loads((tmp_path / "provenance.json").read_text())["config"]["seed"] == 99
    assert len(_rows(tmp_path)) == 2
    assert len(list((tmp_path / "events").iterdir())) == 1


def test_two_trainings_never_share_a_folder(stores: list[TileStore], tmp_path: Path) -> None:
    with exclusive(tmp_path, "train"), pytest.raises(UsageError, match="another training is writing"):
        train(stores, tmp_path, CONFIG)


def test_the_folder_says_where_the_encoder_came_from(stores: list[TileStore], straight: Path) -> None:
    provenance = json.loads((straight / "provenance.json").read_text())
    assert [(slide["slide_id"], slide["tiles"], slide["fingerprint"]) for slide in provenance["slides"]] == [
        ("a", 34, stores[1].fingerprint),
        ("b", 21, stores[0].fingerprint),
    ]
    assert sum(slide["trained_on"] + slide["held_out"] for slide in provenance["slides"]) == 53
    assert sum(slide["held_out"] for slide in provenance["slides"]) == 10
    assert (provenance["mode"], provenance["trained_mpp"], provenance["steps"]) == ("robust", 0.5, 6)
    assert provenance["augmentation"]["scale_high"] == 2.0
    encoder = load_encoder(str(straight), CPU)
    assert encoder.sha256 == provenance["encoder_sha256"]
    assert (encoder.architecture, encoder.mode, encoder.trained_mpp, encoder.input_px) == (
        "vit-demo",
        "robust",
        0.5,
        64,
    )
    found = newest_valid_state(straight)
    assert found is not None
    for name, weight in encoder.module.state_dict().items():
        assert torch.equal(weight, found.state["model"][name])
    assert str(straight.parent) not in "".join(file.read_text() for file in straight.rglob("*.json"))


def test_features_that_are_all_but_constant_are_warned_of(
    stores: list[TileStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tiles that are nearly one and the same; those of the other tests have an untrained network's spread."""
    alike = np.repeat(_tissue(1, 1), 40, axis=0) ^ np.random.default_rng(0).integers(0, 2, (40, 64, 64, 3), np.uint8)
    config = replace(
        CONFIG, steps=2, evaluate_every=1, views=ViewConfig(scale_low=1.0, scale_high=1.0, geometry="none")
    )
    for name, given in (("alike", [_write_store(tmp_path, "c", alike)]), ("tissue", stores)):
        caplog.clear()
        train(given, tmp_path / name, config)
        assert ("the features are all but constant" in caplog.text) == (name == "alike"), caplog.text


def test_a_pixel_size_that_nobody_knows_is_told_wherever_the_scale_is(
    stores: list[TileStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, steps=1)
    nominal = _write_store(tmp_path, "n", _tissue(20, 5), source="nominal (option --nominal-mpp)")
    for name, given, count in (("known", stores, 0), ("stand-in", [*stores, nominal], 1)):
        caplog.clear()
        train(given, tmp_path / name, config)
        assert ("the pixel size of 1 of 3 slides is nominal" in caplog.text) == bool(count)
        assert json.loads((tmp_path / name / "provenance.json").read_text())["nominal_mpp"] == count
        assert ("nominally" in (tmp_path / name / "encoder" / "README.md").read_text()) == bool(count)


def test_metrics_hold_the_terms_and_the_held_out_terms(straight: Path) -> None:
    rows = _rows(straight)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "held_out_invariance" in row] == [0, 3, 6]
    for row in rows[1:]:
        assert row["loss"] == pytest.approx(row["invariance"] + 0.005 * row["redundancy"], rel=1e-5)
        assert -1 <= row["mean_diagonal"] <= 1
        assert 1 <= row["effective_rank"] <= 8
        assert 0 <= row["clipped_share"] <= 1
    assert list(read_metrics(straight)[0]["wall"]) == ["seconds", "waiting_for_tiles"]


def test_it_learns(stores: list[TileStore], tmp_path: Path) -> None:
    config = replace(CONFIG, steps=80, batch=16, evaluate_every=1, checkpoint_every=80, lr=3e-4, log_every=30)
    train(stores, tmp_path, config)
    held_out = [row["held_out_loss"] for row in _rows(tmp_path)]
    assert len(held_out) == 81
    assert np.mean(held_out[-5:]) < 0.6 * held_out[0]


def _batch(stores: list[TileStore]) -> TileBatch:
    vectors = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return TileBatch(torch.from_numpy(stores[0].read(np.arange(8))), vectors.expand(8, 2, 3).contiguous())


def test_a_non_finite_loss_stops_before_the_weights_are_touched(stores: list[TileStore]) -> None:
    learner = Learner(CONFIG, 64)
    learner.learn(_batch(stores), describe=False)
    with torch.no_grad():
        next(p for name, p in learner.model.named_parameters() if name == "norm.bias")[2] = math.inf
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    with pytest.raises(TrainingError, match="loss nan at step 2; expected a finite number"):
        learner.learn(_batch(stores), describe=False)
    assert all(torch.equal(weight, before[name]) for name, weight in learner.model.state_dict().items())
    assert (learner.step, learner.whole) == (1, True)


def test_a_non_finite_gradient_of_a_finite_loss_stops_too(stores: list[TileStore]) -> None:
    learner = Learner(CONFIG, 64)
    learner.model.get_parameter("norm.weight").register_hook(lambda gradient: gradient * math.nan)
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    with pytest.raises(TrainingError, match="gradient_norm nan at step 1"):
        learner.learn(_batch(stores), describe=False)
    assert all(torch.equal(weight, before[name]) for name, weight in learner.model.state_dict().items())


def test_divergence_ends_the_run_and_leaves_the_saved_states(stores: list[TileStore], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"at step [2-6]; expected a finite number"):
        train(stores, tmp_path, replace(CONFIG, lr=1e30, warmup_share=0.0, checkpoint_every=1))
    assert saved_steps(tmp_path)
    assert not (tmp_path / "encoder").exists()


def test_evaluation_repeats_itself_and_leaves_training_alone(stores: list[TileStore]) -> None:
    learner, other = Learner(CONFIG, 64), Learner(CONFIG, 64)
    first = learner.evaluate([_batch(stores), _batch(stores)])
    assert learner.evaluate([_batch(stores), _batch(stores)]) == first
    assert learner.model.training
    assert learner.learn(_batch(stores), describe=True) == other.learn(_batch(stores), describe=True)


def _rates(config: TrainConfig) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=config.lr)
    schedule = build_schedule(optimizer, config)
    rates = []
    for _ in range(config.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("steps", "warmup", "anneal"), [(200, 0.05, 0.2), (200, 0.0, 0.2), (100, 0.3, 0.0), (20, 0.5, 0.5), (3, 0.0, 0.0)]
)
def test_schedule_equals_its_closed_form(steps: int, warmup: float, anneal: float) -> None:
    config = replace(CONFIG, steps=steps, warmup_share=warmup, anneal_share=anneal)
    rises, falls = round(warmup * steps), round(anneal * steps)

    def rate(step: int) -> float:
        if step < rises:
            return 1e-4 * (step + 1) / (rises + 1)
        if step < steps - falls:
            return 1e-4
        turn = math.pi * (step - (steps - falls)) / falls
        return 1e-7 + (1e-4 - 1e-7) * (1 + math.cos(turn)) / 2

    assert _rates(config) == pytest.approx([rate(step) for step in range(steps)], rel=1e-6)


@pytest.mark.parametrize("steps", range(1, 12))
def test_schedule_of_very_few_steps_is_positive(steps: int) -> None:
    assert all(1e-8 < rate <= 1e-4 * (1 + 1e-9) for rate in _rates(replace(CONFIG, steps=steps)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps = 0; expected at least 1"),
        ({"batch": 1}, "batch = 1; expected at least 2"),
        ({"prefetch": -1}, "prefetch = -1"),
        ({"warmup_share": -0.1}, r"warmup_share = -0\.1"),
        ({"warmup_share": 0.6, "anneal_share": 0.5}, r"together 1\.1; expected at most 1"),
        ({"held_out_share": 1.0}, r"held_out_share = 1\.0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(CONFIG, **change)


def test_too_few_tiles_are_refused(stores: list[TileStore], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="43 tiles to train on; expected at least one batch of 44"):
        train(stores, tmp_path, replace(CONFIG, batch=44))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_training_follows_the_cpu(stores: list[TileStore], straight: Path, tmp_path: Path) -> None:
    train(stores, tmp_path / "float32", replace(CONFIG, device="cuda", precision="float32"))
    train(stores, tmp_path / "bf16", replace(CONFIG, device="cuda"))
    assert len(_rows(tmp_path / "bf16")) == len(_rows(tmp_path / "float32")) == 6
    cpu = _rows(straight)[0]
    assert _rows(tmp_path / "bf16")[0]["mean_diagonal"] == pytest.approx(cpu["mean_diagonal"], abs=0.2)
