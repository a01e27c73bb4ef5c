"""The checkpoint folder while a training fills it: who may begin in it, what is resumed, what is written as it goes."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from wsi_lmc.checkpoint import EVENTS, METRICS, MetricsLog, newest_valid_state, save_state
from wsi_lmc.confinement import confine
from wsi_lmc.encoder import ENCODER_FOLDER
from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import to_json
from wsi_lmc.tilestore import TileStore
from wsi_lmc.trainedslides import PROVENANCE
from wsi_lmc.training.config import MAY_CHANGE
from wsi_lmc.training.learner import Learner

Start = Literal["new", "resume", "overwrite"]

_log = logging.getLogger(__name__)
_BY_OTHERS = frozenset({"run.yaml", "logs"})  # may lie in a checkpoint folder before its training starts


class Journal:
    """Metrics and states of a training, written by the first of its processes; the others' write nothing."""

    def __init__(self, learner: Learner, stores: Sequence[TileStore], out: Path) -> None:
        self._learner, self._stores, self._out = learner, stores, out
        self._metrics = MetricsLog(out, learner.step) if learner.group.first else None

    def write(self, metrics: dict[str, float], wall: dict[str, float]) -> None:
        """Append a row for the learner's step."""
        if self._metrics is not None:
            self._metrics.write(self._learner.step, metrics, wall)

    def save(self) -> None:
        """Publish the learner's state, with all rows so far on the disk before it."""
        if self._metrics is None:
            return
        self._metrics.sync()
        config = self._learner.config
        state = self._learner.state() | {"config": to_json(config), "stores": _fingerprints(self._stores)}
        save_state(self._out, self._learner.step, state, config.keep)

    def close(self) -> None:
        """Release the files."""
        if self._metrics is not None:
            self._metrics.close()


def prepare_folder(out: Path, start: Start) -> None:
    """Refuse to mix two trainings; remove the earlier one where that was asked for.

    Raises:
        UsageError: there is an earlier one that was not mentioned, or what would be written to is a link.
    """
    confine(out, (out / name for name in (ENCODER_FOLDER, EVENTS, METRICS, PROVENANCE)))
    present = sorted(path for path in out.iterdir() if not path.name.startswith(".") and path.name not in _BY_OTHERS)
    if start == "new" and present:
        names = ", ".join(path.name for path in present[:3])
        raise UsageError(
            f"{out} holds {names}", "an empty folder for a new training", "Resume, overwrite, or choose -o."
        )
    if start == "overwrite":
        for path in present:
            if path.name in (ENCODER_FOLDER, EVENTS):
                shutil.rmtree(path)
            elif path.name in (METRICS, PROVENANCE) or path.name.startswith("state-"):
                path.unlink()


def resume(learner: Learner, out: Path, stores: Sequence[TileStore]) -> tuple[str, ...]:
    """Restore the newest valid state, if any; returns the names of damaged ones.

    Raises:
        UsageError: it was trained with other settings or other tiles.
    """
    found = newest_valid_state(out)
    if found is None:
        return ()
    for name in found.damaged:
        _log.warning("%s is damaged: going on from the older state of step %d", name, found.step)
    saved, settings = (_flat(cast(dict[str, Any], of)) for of in (found.state["config"], to_json(learner.config)))
    defaults = _flat(cast(dict[str, Any], to_json(type(learner.config)())))
    saved = {**defaults, **saved}  # what did not exist yet was off, as its default is
    differing = _differences(saved, settings, "setting", MAY_CHANGE)
    differing += _differences(found.state["stores"], _fingerprints(stores), "tiles of slide", frozenset())
    if differing:
        raise UsageError(
            f"{out} was trained otherwise: {'; '.join(differing[:5])}",
            "the same settings and tiles when resuming",
            "Restore them, or train in another folder.",
        )
    learner.restore(found.state)
    return found.damaged


def _flat(settings: Mapping[str, Any]) -> dict[str, object]:
    """Settings by name, those of nested configurations among them."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _differences(
    saved: Mapping[str, object], now: Mapping[str, object], what: str, ignored: frozenset[str]
) -> list[str]:
    names = sorted((saved.keys() | now.keys()) - ignored)
    return [
        f"{what} {name} was {saved.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in names
        if saved.get(name) != now.get(name)
    ]


def _fingerprints(stores: Sequence[TileStore]) -> dict[str, str]:
    return {store.slide_id: store.fingerprint for store in stores}
