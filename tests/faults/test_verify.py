"""`verify` names whatever is wrong in a run, raises no false alarm, and mends what can be made again, byte by byte."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.config import RUN_FILE
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.publish import working
from wsi_lmc.rerun import repair
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, tile_cohort
from wsi_lmc.runfolder import SLIDES
from wsi_lmc.steps.parts import FOLDER as PARTS
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.synthetic import write_cohort
from wsi_lmc.tilestore import TileRows
from wsi_lmc.verify import Finding, verify

pytestmark = pytest.mark.row(18)
ENCODER = "untrained:vit-demo"
OPTIONS = RunOptions(SerialExecutor())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: one slide embedded from its tile store, one straight from the slide, and one that failed."""
    folder = tmp_path_factory.mktemp("verified")
    write_cohort(folder, {"north": 2}, seed=5, size=(1024, 1280))
    out = folder / "run"
    first, second = find_slides([str(folder / "slides")])
    tile_cohort([first, SlideEntry(folder / "slides" / "broken.tif", "broken")], out, TileConfig(), OPTIONS)
    inputs = EmbedInputs(find_stores([out]), [second])
    embed_cohort(inputs, ENCODER, out, EmbedConfig(batch=8, device="cpu"), OPTIONS)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run, which a test may damage."""
    return Path(shutil.copytree(whole / "run", tmp_path / "run"))


def found(run: Path) -> list[Finding]:
    return list(verify(run).findings)


def content(run: Path) -> dict[str, str]:
    """Every file but locks, logs and what depends on the clock."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.relative_to(run).parts[0] not in (".locks", "logs", "records", SLIDES)]
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_a_whole_run_raises_no_alarm(run: Path) -> None:
    verification = verify(run)
    assert verification.findings == ()
    assert verification.stores == 4, "a tile store, two feature stores, and the record of the one that failed"
    assert any("1 slides failed" in note for note in verification.notes)


@pytest.mark.parametrize("damage", [_delete, _truncate, _zero, _flip])
def test_damage_to_any_file_is_named_and_what_can_be_made_again_is(run: Path, damage: Callable[[Path], None]) -> None:
    """Pictures are checked for being pictures, the manifest for having all rows: a flip in them may go unseen.

    And nothing tells that somebody had asked for more, once the file is gone that said so.
    """
    before = content(run)
    folders = ("tiles", "features", "contours", "overviews", "records")
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.relative_to(run).parts[0] in folders]
    files += [run / RUN_FILE, run / "manifest.csv", run / SLIDES]
    unseen = ("nothing",)
    if damage is _flip:
        unseen = (".jpg", "manifest.csv")
    elif damage is _delete:
        unseen = tuple(path.name for path in files if "planned" in path.parts)
    looked_at = [path for path in files if not path.name.endswith(unseen)]
    assert len(looked_at) > 30
    for file in looked_at:
        name, kept = file.relative_to(run).as_posix(), file.read_bytes()
        damage(file)
        findings = found(run)
        about = file.name if name.startswith(("overviews", "contours")) else name
        about = SLIDES if "broken" in name else about  # without a store, the table alone tells of its record
        assert any(about in str(finding) for finding in findings), (name, findings)
        file.write_bytes(kept)
    assert found(run) == []
    for name in ("tiles", "features", "overviews", "contours", "records/tile", "records/embed"):
        damage(next(path for path in sorted((run / name).rglob("*")) if path.is_file() and "broken" not in path.name))
    mended = [finding for finding in found(run) if finding.remedy]
    assert mended
    done = repair(run, mended, OPTIONS)
    assert {outcome.state for outcome in done} == {"done"}, done
    assert found(run) == []
    assert content(run) == before


def test_every_chunk_of_a_run_is_looked_at(run: Path) -> None:
    chunks = [path for path in sorted(run.rglob("c.*")) if path.is_file()]
    assert len(chunks) >= 12
    for chunk in chunks:
        kept = chunk.read_bytes()
        _flip(chunk)
        assert any(chunk.name in finding.path for finding in found(run)), chunk
        chunk.write_bytes(kept)


def test_a_store_nobody_recorded_is_recorded_again(run: Path) -> None:
    (record,) = (run / "records" / "tile").glob("north*.json")
    record.unlink()
    (finding,) = [each for each in found(run) if each.path != SLIDES]
    assert finding.said == "missing, but there is a store"
    (outcome,) = repair(run, [finding], OPTIONS)
    assert (outcome.state, outcome.fresh) == ("done", False)
    assert found(run) == []


def test_a_slide_that_was_replaced_is_named_and_not_made_anew_by_itself(whole: Path, run: Path) -> None:
    slide = whole / "slides" / "north-01.tif"
    kept = slide.read_bytes()
    try:
        slide.write_bytes(kept + b"another version")
        findings = [finding for finding in found(run) if "north-01" in finding.path]
        assert findings
        assert all("another version of this slide" in finding.said and not finding.remedy for finding in findings)
    finally:
        slide.write_bytes(kept)


def test_slides_that_are_out_of_reach_are_said_and_not_guessed(whole: Path, run: Path) -> None:
    (whole / "slides").rename(whole / "away")
    try:
        verification = verify(run)
        assert verification.findings == ()
        assert any("could not be compared" in note for note in verification.notes)
    finally:
        (whole / "away").rename(whole / "slides")


def test_nothing_is_removed_that_cannot_be_made_again_now(whole: Path, run: Path) -> None:
    """A share that is away must not cost a whole store for want of its picture, nor what is left of a damaged one."""
    (store,) = (run / "tiles").glob("*.zarr")
    next((run / "overviews").iterdir()).unlink()
    chunk = next(store.rglob("c.0.0.0.0"))
    _flip(chunk)
    before = content(run)
    (whole / "slides").rename(whole / "away")
    try:
        named = found(run)
        assert named
        assert repair(run, named, OPTIONS) == []
        assert content(run) == before
        assert found(run) == named
    finally:
        (whole / "away").rename(whole / "slides")
    assert {outcome.state for outcome in repair(run, named, OPTIONS)} == {"done"}
    assert found(run) == []


def test_settings_that_changed_under_the_stores_are_named(run: Path) -> None:
    text = (run / RUN_FILE).read_text()
    (run / RUN_FILE).write_text(text.replace("min_tissue: 0.", "min_tissue: 0.9"))
    said = " ".join(map(str, found(run)))
    assert "run.yaml: does not match its fingerprint" in said
    assert "made with other settings than run.yaml states" in said


def test_features_of_other_tiles_and_of_two_encoders_are_named(run: Path) -> None:
    (path,) = [each for each in (run / "features").glob("*.zarr") if (run / "tiles" / each.name).is_dir()]
    store = FeatureStore.open(path)
    rows = TileRows(store.origins, store.tissue_fraction, store.valid)
    attributes = {**store.attributes, "tile_store": "0" * 16, "encoder": {**store.attributes["encoder"], "sha256": "0"}}
    values = store.features
    shutil.rmtree(path)
    write_features(path, values, rows, attributes)
    said = [str(finding) for finding in found(run)]
    assert any("made from other tiles" in line for line in said)
    assert any("features of 2 encoders" in line for line in said)


def test_what_was_left_behind_is_named_and_removed_but_not_what_is_in_work(run: Path) -> None:
    (run / ".tmp").mkdir(exist_ok=True)
    (run / ".tmp" / "0123-99999999-elsewhere").mkdir()
    done = next((run / "features").glob("*.zarr")).name.removesuffix(".zarr")
    (run / PARTS / done).mkdir(parents=True)
    (run / PARTS / "unfinished").mkdir()
    with working(run, "tile-another"):
        assert {finding.path for finding in found(run)} == {f"{PARTS}/{done}"}, "whose is .tmp? somebody is at work"
        assert any("1 slides are in work" in note for note in verify(run).notes)
    findings = found(run)
    assert {finding.path for finding in findings} == {f"{PARTS}/{done}", ".tmp/0123-99999999-elsewhere"}
    repair(run, findings, OPTIONS)
    assert found(run) == []
    assert (run / PARTS / "unfinished").is_dir(), "blocks of a slide that is still to be done are work, not waste"


def test_a_slide_in_work_is_left_out(run: Path) -> None:
    store = next((run / "tiles").glob("*.zarr"))
    shutil.rmtree(store)
    with working(run, f"tile-{store.name.removesuffix('.zarr')}"):
        assert not any(finding.path.startswith("tiles/") for finding in found(run))
    assert any(finding.path == f"tiles/{store.name}" for finding in found(run))


def test_a_store_of_another_slide_in_ones_place_is_named(run: Path) -> None:
    names = sorted((run / "features").glob("*.zarr"))
    shutil.rmtree(names[0])
    shutil.copytree(names[1], names[0])
    assert any(finding.said == f"holds slide {names[1].name.removesuffix('.zarr')}" for finding in found(run))


def test_a_checkpoint_is_looked_at_too(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsi_lmc"]
    arguments = [*("--architecture", "vit-demo", "--steps", "2", "--batch", "4", "--device", "cpu", "-q")]
    done = subprocess.run([*command, "train", str(run), "-o", str(run / "checkpoint"), *arguments], check=False)
    assert done.returncode == 0
    assert found(run) == []
    cached = next((run / "stains").rglob("c.*"))
    _flip(cached)
    (finding,) = found(run)
    assert (finding.path, finding.remedy) == (f"stains/{cached.parents[1].name}", "remove")
    repair(run, [finding], OPTIONS)
    assert found(run) == []
    weights = run / "checkpoint" / "encoder" / "model.safetensors"
    kept = weights.read_bytes()
    _flip(weights)
    assert any(finding.path == "checkpoint/encoder" for finding in found(run))
    weights.write_bytes(kept)
    state = next((run / "checkpoint").glob("state-*.pt"))
    _flip(state)
    assert [finding.path for finding in found(run)] == [f"checkpoint/{state.name}"]


def test_the_command_names_exits_and_mends(run: Path) -> None:
    command = [sys.executable, "-m", "wsi_lmc", "verify", str(run), "-q", "--workers", "0"]
    well = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (well.returncode, well.stdout.splitlines()[-1]) == (0, "4 stores: all is well")
    chunk = next((run / "tiles").rglob("c.0.0.0.0"))
    chunk.unlink()
    named = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert named.returncode == 1
    assert [each["path"] for each in json.loads(named.stdout)["findings"]] == [chunk.relative_to(run).as_posix()]
    mended = subprocess.run([*command, "--repair"], capture_output=True, text=True, check=False)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert f"mended: {chunk.relative_to(run).as_posix()}: missing" in mended.stdout
    assert zarr.open_group(chunk.parent.parent, mode="r").attrs["schema"] == "wsi-lmc/tiles"
    nowhere = subprocess.run([*command[:4], str(run / "none")], capture_output=True, text=True, check=False)
    assert nowhere.returncode == 2
