"""Places in an output folder: none of them is, or lies behind, a link."""

from pathlib import Path

import pytest

from wsi_lmc.confinement import confine, confined
from wsi_lmc.errors import UsageError


def test_a_place_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    assert confined(tmp_path, tmp_path / "a" / "b.zarr") == tmp_path / "a" / "b.zarr"
    assert confined(tmp_path, tmp_path) == tmp_path


def test_the_output_folder_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    assert confined(tmp_path / "out", tmp_path / "out" / "a")


@pytest.mark.parametrize("link", ["a", "a/b", "a/b/c"])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_on_the_way_is_refused(link: str, dangling: bool, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / link).parent.mkdir(parents=True)
    if not dangling:
        elsewhere.mkdir()
    (out / link).symlink_to(elsewhere)
    with pytest.raises(UsageError, match=r"is a link to .*elsewhere"):
        confined(out, out / "a" / "b" / "c")
    with pytest.raises(UsageError, match="is a link"):
        confine(out, [out / "fine", out / "a" / "b" / "c"])


@pytest.mark.parametrize("place", ["../x", "a/../../x", "/etc/passwd"])
def test_a_place_elsewhere_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="outside"):
        confined(tmp_path / "out", tmp_path / "out" / place)


def test_the_folder_may_be_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/")
    assert confined(Path(), Path("a") / "b") == Path("a/b")
    assert confined(Path(), Path())
    for place in ("link", "link/x"):
        with pytest.raises(UsageError, match="is a link to /"):
            confined(Path(), Path(place))
    for place in ("/x", "../x"):
        with pytest.raises(UsageError, match="outside"):
            confined(Path(), Path(place))


def test_a_folder_whose_name_goes_on_is_another_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="outside"):
        confined(tmp_path / "out", tmp_path / "outer" / "x")
