"""A run in any order of starts, kills, damage, other settings, replaced slides, repairs: never torn, never mixed.

``WSI_LMC_HISTORIES`` is how many such histories are lived through, of 8 events each.
"""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.faults.injection import Counters
from tests.faults.stages import NEVER, Stages
from tests.faults.test_kills import content
from wsi_lmc.synthetic import write_cohort

HISTORIES = int(os.environ.get("WSI_LMC_HISTORIES", "4"))
_SIDES = (256, 128)


class Run(RuleBasedStateMachine):
    """``made`` is what each slide's results are of (tile side, version of the slide), as far as that is known."""

    stages: Stages
    folder: Path
    versions: list[Path]

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        self.out, self.slides = self.folder / "run", self.folder / "slides"
        self.side, self.version = _SIDES[0], 0
        self.published: tuple[int, int] | None = None  # what the results are of: none, or this, or being replaced
        self.replacing = False
        self.damaged: set[str] = set()
        self._place(0)

    def _place(self, version: int) -> None:
        shutil.copyfile(self.versions[version], self.slides / "slide.tif")
        self.version = version

    def _expected(self, what: tuple[int, int]) -> dict[str, str]:
        """Bytes of an undisturbed run; made once."""
        side, version = what
        out = self.folder / f"expected-{side}-{version}"
        if not out.exists():
            now = self.version
            self._place(version)
            assert self.stages.do("run", self.slides, out, tile_px=side)[0] == 0
            self._place(now)
        return {name: digest for name, digest in content(out).items() if name.startswith(("tiles/", "features/"))}

    @rule(kill_at=st.one_of(st.just(NEVER), st.integers(0, 330)), overwrite=st.booleans())
    def start(self, kill_at: int, overwrite: bool) -> None:
        """Start the two stages as they are asked for now, and kill them at some change, or not."""
        self._start(kill_at, overwrite)

    @initialize(kill_at=st.one_of(st.just(NEVER), st.integers(0, 330)))
    def begin(self, kill_at: int) -> None:
        """Every history begins with a start: before it, nothing is there to be damaged, replaced or mended."""
        self._start(kill_at, overwrite=False)

    def _start(self, kill_at: int, overwrite: bool) -> None:
        asked = (self.side, self.version)
        status, found = self.stages.do(
            "run", self.slides, self.out, kill_at=kill_at, tile_px=self.side, overwrite=overwrite
        )
        assert status in (0, -9)
        mixed = self.published not in (None, asked) or self.replacing
        if status == 0:
            if not mixed or overwrite:
                assert all(line[2] == "done" for line in found) or self.damaged, found
                self.published, self.replacing = (asked, False) if not self.damaged else (asked, self.replacing)
            elif not self.replacing:
                codes = {line[3] for line in found if line[1] == "tile"}
                assert codes <= {"other_configuration", "slide_changed"}, found
                assert codes, found
        elif mixed and overwrite:
            self.replacing = True
        elif not mixed:
            self.published = asked

    @rule()
    def ask_for_other_tiles(self) -> None:
        """Change the settings."""
        self.side = _SIDES[1 - _SIDES.index(self.side)]

    @rule()
    def replace_the_slide(self) -> None:
        """Another file under the same name."""
        self._place(1 - self.version)

    def _chunks(self) -> list[Path]:
        return sorted(path for path in self.out.glob("*/*.zarr/*/c*") if path.is_file())

    @precondition(lambda self: self._chunks())
    @rule(which=st.integers(0, 1000), how=st.sampled_from(["flip", "delete", "truncate"]))
    def damage(self, which: int, how: str) -> None:
        """A chunk of a published store."""
        chunks = self._chunks()
        path = chunks[which % len(chunks)]
        data = bytearray(path.read_bytes())
        data[which % len(data)] ^= 1
        if how == "delete":
            path.unlink()
        else:
            path.write_bytes(data if how == "flip" else data[: len(data) // 2])
        self.damaged.add(path.relative_to(self.out).as_posix())

    @precondition(lambda self: self.out.exists() and (self.side, self.version) == self.published and not self.replacing)
    @rule()
    def mend(self) -> None:
        """Repair; where settings and slide are those of the results, nothing may be left."""
        status, left = self.stages.do("mend", self.slides, self.out)
        assert status == 0
        assert left == [], left
        self.damaged.clear()
        found = {name: digest for name, digest in content(self.out).items() if name.startswith(("tiles/", "features/"))}
        expected = self._expected((self.side, self.version))
        assert found.items() <= expected.items(), "some stage may still be to do, but nothing is of other bytes"

    @invariant()
    def nothing_is_torn_and_all_damage_is_named(self) -> None:
        """What is published is whole, but for what was damaged here, and that is named."""
        if not self.out.exists():
            return
        status, found = self.stages.do("look", self.slides, self.out)
        assert status == 0
        torn = {line[0] for line in found if line[2] == "anew" and not line[1].startswith("made from other tiles")}
        hit = {path.rsplit("/", 2)[0] for path in self.damaged}
        gone = {path for path in hit if not (self.out / path).exists()}
        assert all(any(path.startswith(store) for store in hit) for path in torn), (torn, self.damaged)
        still = {store for store in hit - gone if any(path.startswith(store) for path in torn)}
        self.damaged = {path for path in self.damaged if path.rsplit("/", 2)[0] in still}


@pytest.mark.row(1)
@pytest.mark.row(17)
@pytest.mark.row(18)
@pytest.mark.slow
def test_any_history_leaves_whole_results(tmp_path: Path, shim: Path, counters: Counters) -> None:
    (tmp_path / "slides").mkdir()
    for version in range(2):
        write_cohort(tmp_path / f"v{version}", {"north": 1}, seed=20 + version, size=(1024, 1024))
    versions = [next((tmp_path / f"v{version}" / "slides").glob("*.tif")) for version in range(2)]
    with Stages(shim, counters, f"{tmp_path}/run/") as stages:
        Run.stages, Run.folder, Run.versions = stages, tmp_path, versions
        run_state_machine_as_test(
            Run,
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=8,
                deadline=None,
                derandomize=True,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
                print_blob=True,
            ),
        )
