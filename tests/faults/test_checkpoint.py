"""Training states: exact round trips, damage of every kind, retention, no pickle."""

import hashlib
import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsi_lmc.checkpoint import (
    MetricsLog,
    newest_valid_state,
    read_metrics,
    save_state,
    saved_steps,
    state_path,
)
from wsi_lmc.errors import StoreError

pytestmark = pytest.mark.row(21)


def _state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {
        "step": step,
        "model": {"w": torch.randn(3, 5, generator=generator)},
        "optimizer": {"state": {0: {"exp_avg": torch.randn(7, generator=generator)}}, "lrs": [1e-4, 0.1 + 0.2]},
        "note": "µm",
    }


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 0b100
    elif how == "torn":
        del content[len(content) // 3 :]
    elif how == "empty":
        content.clear()
    path.write_bytes(bytes(content))


def test_round_trip_is_exact(tmp_path: Path) -> None:
    save_state(tmp_path, 40, _state(40))
    found = newest_valid_state(tmp_path)
    assert found is not None
    assert (found.step, found.damaged) == (40, ())
    assert torch.equal(found.state["model"]["w"], _state(40)["model"]["w"])
    assert found.state["optimizer"]["lrs"] == [1e-4, 0.1 + 0.2]
    assert found.state["note"] == "µm"


def test_newest_is_newest_by_number_and_only_the_last_are_kept(tmp_path: Path) -> None:
    for step in (8, 9, 10, 100):
        save_state(tmp_path, step, _state(step), keep=3)
    assert saved_steps(tmp_path) == [100, 10, 9]
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {f"state-{step}.pt{end}" for step in (9, 10, 100) for end in ("", ".sha256")}
    save_state(tmp_path, 101, _state(101), keep=0)  # at least the state just written stays
    assert saved_steps(tmp_path) == [101]


def test_checksum_file_is_what_sha256sum_reads(tmp_path: Path) -> None:
    path = save_state(tmp_path, 7, _state(7))
    digest, name = (tmp_path / "state-7.pt.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(path.read_bytes()).hexdigest(), "state-7.pt")
    subprocess.run(["sha256sum", "--check", "--quiet", "state-7.pt.sha256"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("how", ["flipped", "torn", "empty"])
def test_a_damaged_state_is_passed_over_and_named(how: str, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, step, _state(step), keep=3)
    _damage(state_path(tmp_path, 3), how)
    found = newest_valid_state(tmp_path)
    assert found is not None
    assert (found.step, found.damaged) == (2, ("state-3.pt",))
    assert torch.equal(found.state["model"]["w"], _state(2)["model"]["w"])


def test_every_single_flipped_bit_of_a_small_state_is_seen(tmp_path: Path) -> None:
    path = save_state(tmp_path, 1, {"w": torch.arange(3)})
    content = path.read_bytes()
    for position in range(0, len(content), 97):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(StoreError, match=r"state-1\.pt"):
            newest_valid_state(tmp_path)


def test_missing_or_damaged_checksum_is_damage(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, step, _state(step), keep=3)
    (tmp_path / "state-3.pt.sha256").unlink()
    (tmp_path / "state-2.pt.sha256").write_bytes(b"\xff\xfe")
    found = newest_valid_state(tmp_path)
    assert found is not None
    assert (found.step, found.damaged) == (1, ("state-3.pt", "state-2.pt"))


def test_no_state_is_none_and_foreign_names_are_no_states(tmp_path: Path) -> None:
    assert newest_valid_state(tmp_path) is None
    for name in ("state-12.pt.sha256", "state-x.pt", "state-3.pt.bak", "state-.pt"):
        (tmp_path / name).write_bytes(b"")
    assert newest_valid_state(tmp_path) is None


def test_writing_a_damaged_step_again_mends_it(tmp_path: Path) -> None:
    save_state(tmp_path, 5, _state(4))
    _damage(state_path(tmp_path, 5), "torn")
    save_state(tmp_path, 5, _state(5))
    found = newest_valid_state(tmp_path)
    assert found is not None
    assert torch.equal(found.state["model"]["w"], _state(5)["model"]["w"])


def test_going_on_from_an_older_state_drops_the_damaged_newer_ones(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_state(tmp_path, step, _state(step), keep=3)
    _damage(state_path(tmp_path, 30), "flipped")
    save_state(tmp_path, 25, _state(25), keep=2)
    assert saved_steps(tmp_path) == [25, 20]


class _Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_state_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    save_state(tmp_path, 1, {"w": _Payload(marker)})  # writes a valid checksum over a hostile file
    with pytest.raises(StoreError, match="other than tensors"):
        newest_valid_state(tmp_path)
    assert not marker.exists()


def test_a_refusing_file_system_is_named_and_older_states_survive(tmp_path: Path) -> None:
    save_state(tmp_path, 1, _state(1))
    (tmp_path / ".tmp").rmdir()
    (tmp_path / ".tmp").write_text("a file where the workplace should be")
    with pytest.raises(StoreError, match=r"cannot write .*state-2\.pt"):
        save_state(tmp_path, 2, _state(2))
    found = newest_valid_state(tmp_path)
    assert found is not None
    assert found.step == 1


def test_metrics_continue_after_the_state_that_was_resumed(tmp_path: Path) -> None:
    with closing(MetricsLog(tmp_path, 0)) as log:
        for step in (1, 2, 3, 4):
            log.write(step, {"loss": 1 / step}, {"seconds": 9.0 * step})
        log.sync()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    with closing(MetricsLog(tmp_path, 2)) as log:
        log.write(3, {"loss": 0.25}, {"seconds": 1.0})
        assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]  # readable while it runs
    rows = [{name: value for name, value in row.items() if name != "wall"} for row in read_metrics(tmp_path)]
    assert rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    events = EventAccumulator(str(tmp_path / "events")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_metrics_refuse_what_json_cannot_hold(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    with closing(MetricsLog(tmp_path, 0)) as log, pytest.raises(ValueError, match="JSON"):
        log.write(1, {"loss": float("nan")}, {})
