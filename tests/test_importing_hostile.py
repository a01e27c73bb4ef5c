"""Files that are damaged, of another kind, or made to mislead: each has its reason, and the slide beside it goes on."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.foreign import (
    DIM,
    TRIDENT,
    WIDTH,
    about_clam,
    about_trident,
    bag,
    clam_slide,
    importing,
    trident_slide,
    write,
)
from wsi_lmc.errors import SlideError, UsageError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.importing import ImportConfig, ImportInputs, find_imports, hide, import_cohort
from wsi_lmc.importing.foreign import Files
from wsi_lmc.importing.hdf5 import MOST_ROWS
from wsi_lmc.importing.reading import read_foreign
from wsi_lmc.run import RunOptions

FEATURES, COORDS = bag(13)
ABOUT = {"coords": about_trident()}


def _no_hdf5(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 and more, which is no HDF5")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=COORDS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbled(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=COORDS)
    whole = path.read_bytes()
    path.write_bytes(whole[:96] + b"\xff" * 600 + whole[696:])


def _no_features(path: Path) -> None:
    write(path, ABOUT, feats=FEATURES, coords=COORDS)


def _one_short(path: Path) -> None:
    write(path, ABOUT, features=FEATURES[:-1], coords=COORDS)


def _integers(path: Path) -> None:
    write(path, ABOUT, features=FEATURES.astype(np.int32), coords=COORDS)


def _of_slides(path: Path) -> None:
    write(path, ABOUT, features=FEATURES[0], coords=COORDS)


def _two_bags(path: Path) -> None:
    write(path, ABOUT, features=np.stack([FEATURES, FEATURES]), coords=COORDS)


def _objects(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file.create_dataset("features", data=["cos\nsystem\n(S'true'\ntR."] * 13, dtype=h5py.string_dtype())


def _references(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        stored = file.create_dataset("features", (13,), dtype=h5py.ref_dtype)
        stored[:] = [file["coords"].ref] * 13


def _records(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file["features"] = np.zeros(13, dtype=[("a", np.float32), ("b", np.float32)])


def _group(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file.create_group("features")


def _scalar_of_nothing(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file["features"] = h5py.Empty("f4")


def _linked_dataset(path: Path) -> None:
    write(path.with_name("secret.h5.kept"), features=FEATURES)
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file["features"] = h5py.ExternalLink("secret.h5.kept", "/features")


def _external_values(path: Path) -> None:
    path.with_name("secret.bin").write_bytes(FEATURES.tobytes())
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "features", FEATURES.shape, "f4", external=[(str(path.with_name("secret.bin")), 0, FEATURES.nbytes)]
        )


def _virtual(path: Path) -> None:
    write(path.with_name("secret.h5.kept"), features=FEATURES)
    write(path, ABOUT, coords=COORDS)
    layout = h5py.VirtualLayout(FEATURES.shape, "f4")
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.h5.kept")), "features", FEATURES.shape)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("features", layout)


def _huge(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file.create_dataset("features", (MOST_ROWS + 1, DIM), "f4", chunks=(1, DIM))


def _wide(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file.create_dataset("features", (MOST_ROWS, 60_000), "f4", chunks=(1, DIM))


def _unfinished(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        stored = file.create_dataset("features", FEATURES.shape, "f4", chunks=(1, DIM))
        stored[:7] = FEATURES[:7]


def _never_written(path: Path) -> None:
    write(path, ABOUT, coords=COORDS)
    with h5py.File(path, "a") as file:
        file.create_dataset("features", FEATURES.shape, "f4")


def _negative(path: Path) -> None:
    coords = COORDS.copy()
    coords[5, 1] = -1
    write(path, ABOUT, features=FEATURES, coords=coords)


def _beyond(path: Path) -> None:
    coords = COORDS.copy()
    coords[5, 0] = WIDTH
    write(path, ABOUT, features=FEATURES, coords=coords)


def _far_away(path: Path) -> None:
    coords = COORDS.copy()
    coords[5, 0] = 1 << 40
    write(path, {"coords": about_trident(level0_width=None)}, features=FEATURES, coords=coords)


def _halves(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=COORDS + 0.5)


def _no_numbers(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=np.full(COORDS.shape, np.nan))


def _three_columns(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=np.zeros((13, 3), np.int64))


def _no_footprint(path: Path) -> None:
    write(path, {"coords": about_trident(patch_size=None)}, features=FEATURES, coords=COORDS)


def _footprint_of_nothing(path: Path) -> None:
    write(path, {"coords": about_trident(patch_size_level0=0)}, features=FEATURES, coords=COORDS)


def _half_a_pixel(path: Path) -> None:
    write(path, {"coords": about_trident(patch_size=255.5)}, features=FEATURES, coords=COORDS)


def _footprint_as_text(path: Path) -> None:
    about = about_trident(patch_size="256; rm -rf /")
    write(path, {"coords": about}, features=FEATURES, coords=COORDS)


def _level_unknown(path: Path) -> None:
    write(path, {"coords": {"patch_size": 256, "patch_level": 2}}, features=FEATURES, coords=COORDS)


def _custom_downsample(path: Path) -> None:
    about = about_clam(custom_downsample=2)
    write(path, {"coords": about}, features=FEATURES, coords=COORDS)


def _level_pixels(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=COORDS, imgs=np.zeros((13, 2, 2, 3), np.uint8))


def _other_patches(path: Path) -> None:
    write(path, ABOUT, features=FEATURES, coords=COORDS)
    patches = path.parent.parent / "patches" / f"{path.stem}_patches.h5"
    write(patches, ABOUT, coords=COORDS + 512)


def _no_patches(path: Path) -> None:
    write(path, features=FEATURES)


def _folder(path: Path) -> None:
    path.mkdir()


def _link_out(path: Path) -> None:
    target = write(path.parents[3] / "secret.h5", ABOUT, features=FEATURES, coords=COORDS)
    path.symlink_to(target)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("gone.h5.kept"))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (_no_hdf5, "unsupported", "no HDF5 file"),
        (_nothing, "empty_file", "0 bytes"),
        (_cut, "truncated", "ends before its own end"),
        (_garbled, "damaged", "cannot be read"),
        (_no_features, "damaged", "no dataset features of bad.h5, which holds coords, feats"),
        (_one_short, "damaged", "12 features, 13 coordinates"),
        (_integers, "unsupported", "holds int32"),
        (_of_slides, "unsupported", "features of shape 5"),
        (_two_bags, "unsupported", "features of shape 2 x 13 x 5"),
        (_objects, "unsupported", "holds object"),
        (_references, "unsupported", "holds object"),
        (_records, "unsupported", "holds [("),
        (_group, "damaged", "is no array"),
        (_scalar_of_nothing, "damaged", "is no array"),
        (_linked_dataset, "unsupported", "link to another place"),
        (_external_values, "unsupported", "in other files"),
        (_virtual, "unsupported", "in other files"),
        (_huge, "too_large", "declares 2000001 x 5"),
        (_wide, "too_large", "declares 2000000 x 60000"),
        (_unfinished, "truncated", "not written to its end"),
        (_never_written, "truncated", "not written to its end"),
        (_negative, "damaged", "in row 5"),
        (_beyond, "damaged", "1 patches begin outside of the slide"),
        (_far_away, "damaged", "in row 5"),
        (_halves, "damaged", "in row 0"),
        (_no_numbers, "damaged", "in row 0"),
        (_three_columns, "unsupported", "coordinates of shape 13 x 3"),
        (_no_footprint, "unsupported", "do not say how large"),
        (_footprint_of_nothing, "damaged", "patch_size_level0 0"),
        (_half_a_pixel, "damaged", "patch_size 255.5"),
        (_footprint_as_text, "unsupported", "do not say how large"),
        (_level_unknown, "unsupported", "downsample is not stated"),
        (_custom_downsample, "unsupported", "custom_downsample of 2"),
        (_level_pixels, "unsupported", "count pixels of a level"),
        (_other_patches, "damaged", "other coordinates"),
        (_no_patches, "unsupported", "without coordinates"),
        (_folder, "folder", "is a folder"),
        (_link_out, "not_a_file", "out of its folder"),
        (_link_to_nothing, "missing", "no file bad.h5"),
        (_pipe, "not_a_file", "no regular file"),
    ],
)
def test_a_bad_file_beside_a_good_one(make: Callable[[Path], None], code: str, said: str, tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "good")
    make(tmp_path / "job" / TRIDENT / "features_uni_v1" / "bad.h5")
    outcomes = importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)
    assert outcomes["good"].state == "done"
    bad = outcomes["bad"]
    assert (bad.state, bad.code) == ("failed", code), bad
    assert said in bad.reason
    assert bad.remedy
    assert str(tmp_path) not in f"{bad.reason} {bad.remedy} {bad.detail}"
    assert [path.name for path in (tmp_path / "out" / "features").iterdir()] == ["good.zarr"]
    rows = (tmp_path / "out" / "slides.csv").read_text().splitlines()
    assert rows[1].startswith(f"bad,embed,failed,{code},")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants")


@pytest.fixture(scope="module")
def whole(scratch: Path) -> bytes:
    """A file of features as TRIDENT writes them."""
    trident_slide(scratch / "job", "S1")
    return (scratch / "job" / TRIDENT / "features_uni_v1" / "S1.h5").read_bytes()


class Evil:
    """Runs something when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.sign,)


@pytest.mark.parametrize("kind", ["code", "text", "dictionary", "integers", "array", "declared", "bfloat16", "batched"])
def test_tensors(kind: str, tmp_path: Path) -> None:
    clam_slide(tmp_path / "clam", "S1")
    (tmp_path / "clam" / "h5_files" / "S1.h5").unlink()
    tensor, path = torch.from_numpy(FEATURES), tmp_path / "clam" / "pt_files" / "S1.pt"
    saved: dict[str, object] = {
        "code": Evil(tmp_path / "ran"),
        "dictionary": {"features": tensor},
        "integers": tensor.int(),
        "array": FEATURES,
        "declared": torch.zeros(1).expand(13, DIM).as_strided((13, DIM), (0, 0)),
        "bfloat16": tensor.bfloat16(),
        "batched": tensor[None],
    }
    path.write_bytes(b"no tensor") if kind == "text" else torch.save(saved[kind], path)
    outcome = importing(tmp_path / "clam", "clam", tmp_path / "out", mpp=0.25, encoder="x")["S1"]
    assert not (tmp_path / "ran").exists()
    codes = {"bfloat16": "", "batched": "", "dictionary": "unsupported", "integers": "unsupported"}
    assert outcome.code == codes.get(kind, "damaged"), outcome


def test_a_folder_that_is_a_link_out(tmp_path: Path) -> None:
    clam_slide(tmp_path / "clam", "S1")
    (tmp_path / "clam" / "patches").rename(tmp_path / "secret")
    (tmp_path / "clam" / "patches").symlink_to(tmp_path / "secret")
    outcome = importing(tmp_path / "clam", "clam", tmp_path / "out", mpp=0.25, encoder="x")["S1"]
    assert (outcome.code, "out of its folder" in outcome.reason) == ("not_a_file", True)
    named = importing(
        tmp_path / "clam", "clam", tmp_path / "out", mpp=0.25, encoder="x", patches=tmp_path / "clam" / "patches"
    )
    assert named["S1"].state == "done", "who names it knows where it leads"


def test_two_slides_of_one_id(tmp_path: Path) -> None:
    for name in ("case", "CASE", "other"):
        trident_slide(tmp_path / "job", name)
    outcomes = importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)
    assert sorted((each.state, each.code) for each in outcomes.values()) == [
        ("done", ""), ("failed", "duplicate_name"), ("failed", "duplicate_name"),
    ]  # fmt: skip
    rows = tmp_path / "rows.csv"
    rows.write_text("slide,slide_id\na.svs,same\nb.svs,same\n")
    for name in ("a", "b"):
        clam_slide(tmp_path / "clam", name)
    with_rows = importing(tmp_path / "clam", "clam", tmp_path / "o", mpp=0.25, encoder="x", manifest=rows)
    assert {each.code for each in with_rows.values()} == {"duplicate_name"}
    rows.write_text("slide\nnorth/a.svs\nsouth/a.svs\n")
    with pytest.raises(UsageError, match=r"2 rows of .* fit a.h5"):
        importing(tmp_path / "clam", "clam", tmp_path / "o", mpp=0.25, encoder="x", manifest=rows)


@pytest.mark.parametrize("place", ["features", "records/embed", "records/embed/S1.json", "run.yaml", "manifest.csv"])
def test_nothing_is_written_where_a_link_leads(place: str, tmp_path: Path) -> None:
    trident_slide(tmp_path / "job", "S1")
    link = tmp_path / "out" / place
    link.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link to"):
        importing(tmp_path / "job", "trident", tmp_path / "out", mpp=0.25)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_bytes_give_features_or_a_reason(whole: bytes, scratch: Path, changes: list[tuple[int, int]]) -> None:
    """Of the first bytes of a file, where HDF5 keeps what lies where."""
    damaged = bytearray(whole)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = scratch / "S1.h5"
    path.write_bytes(damaged)
    with suppress(SlideError):
        found = read_foreign(Files(path, None, (scratch,)), ImportConfig())
        assert len(found.features) == len(found.origins)


def test_folders_that_are_none(tmp_path: Path) -> None:
    def refused(layout: str, folder: Path, encoder: str | None = None) -> str:
        with pytest.raises(UsageError) as caught:
            find_imports(ImportInputs("clam" if layout == "clam" else "trident", folder, encoder))
        return str(caught.value)

    assert "no folder" in refused("trident", tmp_path / "none")
    assert "features of 0 patchings: none" in refused("trident", tmp_path)
    assert "neither h5_files nor pt_files" in refused("clam", tmp_path)
    for encoder in ("uni_v1", "conch_v15"):
        trident_slide(tmp_path / "job", "S1", encoder=encoder)
    assert "features of conch_v15, uni_v1; expected one encoder. Name it with --encoder" in refused(
        "trident", tmp_path / "job"
    )
    assert "not of gigapath" in refused("trident", tmp_path / "job", "gigapath")
    found, _ = find_imports(ImportInputs("trident", tmp_path / "job", "uni_v1"))
    assert found[0].encoder == "uni_v1"
    found, _ = find_imports(ImportInputs("trident", tmp_path / "job" / TRIDENT / "features_conch_v15"))
    assert found[0].encoder == "conch_v15"
    (tmp_path / "job" / TRIDENT).rename(tmp_path / "job" / "10x_256px_0px_overlap")
    trident_slide(tmp_path / "job", "S1")
    assert "10x_256px_0px_overlap, 20x_256px_0px_overlap" in refused("trident", tmp_path / "job")
    clam_slide(tmp_path / "clam", "S1")
    assert "no --encoder" in refused("clam", tmp_path / "clam")
    for path in (tmp_path / "clam").rglob("S1.*"):
        path.unlink()
    assert "no features in" in refused("clam", tmp_path / "clam", "x")


def test_pseudonyms(tmp_path: Path) -> None:
    """Nothing that is written names the file or the patient, even of a slide that fails."""
    for name in ("Mueller_Hans", "Meier_Anna"):
        trident_slide(tmp_path / "job", name)
    broken = tmp_path / "job" / TRIDENT / "features_uni_v1" / "Meier_Anna.h5"
    _no_features(broken)
    table = tmp_path / "map.csv"
    table.write_text("slide,slide_id\nMueller_Hans.h5,P1\nMeier_Anna.h5,P2\n")
    found, _ = find_imports(ImportInputs("trident", tmp_path / "job"))
    hidden = hide(found, table, tmp_path / "out")
    options = RunOptions(SerialExecutor())
    outcomes = import_cohort(hidden, "trident", tmp_path / "out", ImportConfig(mpp=0.25), options)
    assert {each.slide_id: each.state for each in outcomes} == {"P1": "done", "P2": "failed"}
    for path in (tmp_path / "out").rglob("*"):
        for name in (b"ueller", b"eier", str(tmp_path).encode()):
            assert name not in str(path.relative_to(tmp_path)).encode()
            assert not path.is_file() or name not in path.read_bytes(), path
    with pytest.raises(UsageError, match="lies in the output"):
        hide(found, table, tmp_path)
