"""What the package exports: names that resolve, typed and described, and that give what the commands give."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

import wsi_lmc
from tests.forked import Commands
from tests.manual import DOCS, blocks
from wsi_lmc.api.learningsettings import EmbedSettings, EvaluateSettings, TrainSettings
from wsi_lmc.api.settings import GridSettings, TileSettings, TissueSettings
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.commands.evaluate import command as evaluate_command
from wsi_lmc.config import settings_of
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import load_encoder
from wsi_lmc.grid import GridConfig
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tissue import TissueConfig
from wsi_lmc.training import StepReport, TrainConfig


@pytest.mark.parametrize("name", wsi_lmc.__all__)
def test_every_export_resolves_and_explains_itself(name: str) -> None:
    found = getattr(wsi_lmc, name)
    assert name in dir(wsi_lmc)
    assert inspect.getdoc(found), "said what it is"
    if inspect.isfunction(found):
        annotations = inspect.signature(found).parameters.values()
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in annotations)
        assert inspect.signature(found).return_annotation is not inspect.Signature.empty
    elif inspect.isclass(found):
        members = [member for key, member in vars(found).items() if not key.startswith("_") and callable(member)]
        assert all(inspect.getdoc(member) for member in members)


def test_what_type_checkers_see_is_what_there_is() -> None:
    """The imports that they read, and the table that Python reads, name the same things."""
    source = Path(inspect.getfile(wsi_lmc)).read_text(encoding="utf-8")
    checked = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    stated = {}
    for line in checked.splitlines():
        home, _, names = line.strip().removeprefix("from wsi_lmc.").partition(" import ")
        stated |= dict.fromkeys(names.split(", "), home)
    assert stated == wsi_lmc._HOME
    assert sorted(stated) == sorted(wsi_lmc.__all__)
    assert (Path(inspect.getfile(wsi_lmc)).parent / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_slides'"):
        wsi_lmc.open_slides  # noqa: B018  pyright: ignore


def test_slides_need_no_torch() -> None:
    code = "import wsi_lmc, sys; wsi_lmc.cut_tiles, wsi_lmc.TileStore; print({'torch', 'dask'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("keywords", "config"),
    [
        (TissueSettings, TissueConfig),
        (GridSettings, GridConfig),
        (TileSettings, TileConfig),
        (TrainSettings, TrainConfig),
    ],
)
def test_keywords_are_the_settings(keywords: type, config: type) -> None:
    """Whoever adds a setting adds its keyword, here named and typed alike."""
    assert get_type_hints(keywords) == {setting.name: setting.type for setting in settings_of(config)}


def test_keywords_of_two_stages_are_their_settings() -> None:
    both = settings_of(EmbedConfig) + settings_of(TileConfig)
    assert get_type_hints(EmbedSettings) == {setting.name: setting.type for setting in both}
    flags = set(inspect.signature(evaluate_command).parameters)
    assert set(get_type_hints(EvaluateSettings)) == flags - {
        *("features", "output", "manifest", "pairs", "baseline", "quiet"),
    }


def test_tiles_are_those_of_the_command(small_cohort: Path, tmp_path: Path) -> None:
    path = small_cohort / "slides" / "north-02.svs"
    with wsi_lmc.open_slide(str(path)) as slide:
        assert slide.path == path
        tissue = wsi_lmc.find_tissue(slide, min_hole_um2=50_000.0)
        grid = wsi_lmc.place_tiles(slide, tissue, tile_px=128, min_tissue=0.25)
        store = wsi_lmc.cut_tiles(slide, grid, tmp_path / "mine")
        again = wsi_lmc.cut_tiles(slide, grid, str(tmp_path / "mine"))
        assert again.attributes == store.attributes
        np.testing.assert_array_equal(again.origins, store.origins)
        assert again.path.stat().st_mtime_ns == store.path.stat().st_mtime_ns, "it was there"
        origins = store.origins
        other = wsi_lmc.place_tiles(slide, tissue, tile_px=128, min_tissue=0.9)
        assert 0 < len(other) < len(grid)
        with pytest.raises(wsi_lmc.SlideError, match="made from other settings"):
            wsi_lmc.cut_tiles(slide, other, tmp_path / "mine")
        assert len(wsi_lmc.cut_tiles(slide, other, tmp_path / "mine", overwrite=True)) == len(other)
        for changed in (
            replace(other, tissue_fraction=other.tissue_fraction * np.float32(0.9)),
            replace(other, padded=~other.padded),
        ):
            with pytest.raises(wsi_lmc.SlideError, match="made from other settings"):
                wsi_lmc.cut_tiles(slide, changed, tmp_path / "mine")
        with pytest.raises(wsi_lmc.SlideError, match="made from other settings"):
            wsi_lmc.cut_tiles(slide, other, tmp_path / "mine", codec="lossless")
    config = TileConfig(GridConfig(tile_px=128, min_tissue=0.25), TissueConfig(min_hole_um2=50_000.0))
    tile_slide(TileTask(SlideEntry(path, "north-02"), tmp_path / "its", config))
    its = wsi_lmc.TileStore.open(tmp_path / "its" / "tiles" / "north-02.zarr")
    np.testing.assert_array_equal(origins, its.origins)
    assert store.attributes["tile"] == its.attributes["tile"]
    assert store.attributes["sha256"] == its.attributes["sha256"], "the same bytes"


def test_wrong_settings_are_refused_with_the_near_one(small_cohort: Path, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"tile_pix": 128}
    with wsi_lmc.open_slide(small_cohort / "slides" / "north-01.tif") as slide:
        tissue = wsi_lmc.find_tissue(slide)
        with pytest.raises(wsi_lmc.UsageError, match=r"place_tiles: unknown key 'tile_pix'.*tile_px"):
            wsi_lmc.place_tiles(slide, tissue, **wrong)
    refused: list[Callable[[], object]] = [
        lambda: wsi_lmc.train(tmp_path, tmp_path / "x", **wrong),
        lambda: wsi_lmc.embed(tmp_path, "untrained:vit-demo", tmp_path / "x", **wrong),
        lambda: wsi_lmc.evaluate(tmp_path, **wrong),
        lambda: wsi_lmc.train(tmp_path, tmp_path / "x"),
        lambda: wsi_lmc.evaluate(tmp_path),
    ]
    for call in refused:
        with pytest.raises(wsi_lmc.UsageError):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_cohort_is_embedded_and_what_failed_is_told(small_cohort: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("north-01.tif", "south-01.tif"):
        (slides / name).write_bytes((small_cohort / "slides" / name).read_bytes())
    encoder = wsi_lmc.Encoder.load("untrained:vit-demo@3", device="cpu", tile_px=256)
    stores = wsi_lmc.embed(slides, encoder, tmp_path / "run", dtype="float16", min_tissue=0.3)
    assert [store.slide_id for store in stores] == ["north-01", "south-01"]
    assert {store.features.dtype.name for store in stores} == {"float16"}
    alone = wsi_lmc.embed(
        slides / "south-01.tif", "untrained:vit-demo@3", tmp_path / "other", precision="float32", min_tissue=0.3
    )
    np.testing.assert_allclose(alone[0].features, stores[1].features.astype(np.float32), atol=2e-3)
    (slides / "south-02.svs").write_bytes(b"no slide")
    with pytest.raises(wsi_lmc.SlideError, match=r"1 of 3 slides failed \(1 not_a_slide\), south-02 first") as caught:
        wsi_lmc.embed(slides, encoder, tmp_path / "run", dtype="float16", min_tissue=0.3)
    assert caught.value.code == "not_a_slide"
    assert "slides.csv" in str(caught.value)
    made = wsi_lmc.Encoder(**{**vars(encoder), "spec": None})
    with pytest.raises(wsi_lmc.UsageError, match="made in memory"):
        wsi_lmc.embed(slides, made, tmp_path / "run")


def test_an_encoder_trained_here_is_loaded_by_its_folder(
    small_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wsi_lmc.open_slide(small_cohort / "slides" / "north-01.tif") as slide:
        grid = wsi_lmc.place_tiles(slide, wsi_lmc.find_tissue(slide), tile_px=64, min_tissue=0.3)
        store = wsi_lmc.cut_tiles(slide, grid, tmp_path / "run")
    heard: list[StepReport] = []
    monkeypatch.chdir(tmp_path)
    result = wsi_lmc.train("run", "run/checkpoint", on_step=heard.append, architecture="vit-mini", steps=2, batch=4)
    assert [report.step for report in heard] == [1, 2]
    assert result.steps == 2
    encoder = wsi_lmc.Encoder.load(Path("run/checkpoint"), device="cpu")
    assert encoder.sha256 == result.encoder_sha256
    assert encoder.spec == str(tmp_path / "run" / "checkpoint"), "wherever this process goes"
    tiles = torch.from_numpy(store.read(np.arange(3)))
    same = load_encoder("run/checkpoint", torch.device("cpu"))
    assert torch.equal(encoder.embed(tiles), same.embed(tiles))
    (features,) = wsi_lmc.embed(store.path, encoder, "run")
    np.testing.assert_allclose(features.features[:3], encoder.embed(tiles).numpy(), atol=1e-5)
    with pytest.raises(wsi_lmc.UsageError, match="one site"):
        wsi_lmc.evaluate({"mine": "run"}, manifest=_manifest(tmp_path))


_EVALUATED: dict[str, Any] = {
    "by": "scanner", "label": "kind", "group": "case", "classes": ("x", "y"), "source": "CS2", "k": 9, "seed": 5,
    "tiles_per_slide": 40, "tiles_per_site": 60,
}  # fmt: skip


def test_an_evaluation_is_that_of_the_command(small_cohort: Path, tmp_path: Path, program: Commands) -> None:
    """With every setting other than its default, so that none is lost on the way."""
    slides = sorted((small_cohort / "slides").iterdir())
    wsi_lmc.embed(slides, "untrained:vit-demo", tmp_path / "run", tile_px=64, min_tissue=0.3)
    rows = [f"{path},{('CS2', 'XR')[at // 2]},{'xyxy'[at]},case{at}" for at, path in enumerate(slides)]
    (tmp_path / "m.csv").write_text("\n".join(["slide,scanner,kind,case", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "provenance.json").write_text('{"slides": [{"slide_id": "north-01", "trained_on": 1}]}')
    given: dict[str, Any] = _EVALUATED | {"seen": tmp_path}
    flags = [
        word
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else value)
    ]
    done = program(
        "evaluate", f"one={tmp_path / 'run'}", "--manifest", tmp_path / "m.csv", "-o", tmp_path / "its", *flags
    )
    assert done.returncode == 0, done.stderr
    mine = wsi_lmc.evaluate({"one": tmp_path / "run"}, tmp_path / "m.csv", tmp_path / "mine", **given)
    assert (mine.by, mine.sites, mine.classes) == ("scanner", ("CS2", "XR"), ("x", "y"))
    assert {name: mine.settings[name] for name in ("source", "k", "seed", "tiles_per_site", "seen")} == {
        **{name: _EVALUATED[name] for name in ("source", "k", "seed", "tiles_per_site")}, "seen": 1,
    }  # fmt: skip
    assert (mine.encoders[0].tiles, mine.encoders[0].groups) == (120, 4)
    assert (tmp_path / "mine" / "evaluation.csv").read_bytes() == (tmp_path / "its" / "evaluation.csv").read_bytes()


def _manifest(folder: Path) -> Path:
    path = folder / "manifest.csv"
    path.write_text("slide,site\nnorth-01.tif,north\n", encoding="utf-8")
    return path


def test_code_of_the_manual_runs(small_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of api.md, in a folder with what it names; but for the number of steps, and a small network."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").write_bytes((small_cohort / "slides" / "north-01.tif").read_bytes())
    with wsi_lmc.open_slide(small_cohort / "slides" / "south-01.tif") as slide:
        grid = wsi_lmc.place_tiles(slide, wsi_lmc.find_tissue(slide))
        wsi_lmc.cut_tiles(slide, grid, tmp_path / "elsewhere-run")
    rows = ["slide,slide_id,patient,site,label", "a.svs,a,p1,north,x", "s.tif,south-01,p2,south,y"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(DOCS / "api.md", "python")
    quick = code.replace("steps=10_000", 'steps=2, batch=2, architecture="vit-demo"')
    assert quick != code
    found: dict[str, Any] = {}
    exec(compile(quick, "api.md", "exec"), found)  # noqa: S102  what a reader does
    assert [bag.site for bag in found["bags"]] == ["north", "south"]
    assert {store.slide_id for store in found["features"]} == {"a", "south-01"}
