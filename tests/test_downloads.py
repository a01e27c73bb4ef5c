"""What is missing from a download, damaged or replaced."""

import hashlib
from pathlib import Path

import pytest

from wsi_lmc.downloads import Archive, Files, Matching, check_files, check_sums
from wsi_lmc.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number:03d}.tiff").write_bytes(bytes([number] * 10))
    return tmp_path


def _said(folder: Path, *wanted: Files | Matching | Archive) -> list[str]:
    return [finding.found for finding in check_files(folder, wanted)]


def test_all_is_well(folder: Path) -> None:
    content = (folder / "images" / "002.tiff").read_bytes()
    archive = Archive("images/002.tiff", 10, hashlib.sha256(content).hexdigest())
    names = Files(tuple(f"images/{number:03d}.tiff" for number in range(3)), "the images")
    assert _said(folder, names, Matching("images/*.tiff", 3, "the images"), archive, Archive("gone.zip", 1, "")) == []


def test_missing_files_are_named_up_to_five_and_counted(folder: Path) -> None:
    (finding,) = check_files(folder, [Files(tuple(f"images/{number:03d}.tiff" for number in range(20)), "it from X")])
    assert finding.found.startswith("17 of 20 missing")
    assert finding.found.endswith("images/003.tiff, images/004.tiff, images/005.tiff, images/006.tiff, "
                                  "images/007.tiff and 12 more")  # fmt: skip
    assert finding.remedy == "Download it from X."
    assert _said(folder, Matching("images/*.tiff", 4, "x")) == [
        f"3 files images/*.tiff in {folder}, at least 4 expected"
    ]
    assert _said(folder / "none")[0].startswith("no folder")


def test_empty_and_other_files_are_found(folder: Path) -> None:
    (folder / "images" / "001.tiff").write_bytes(b"")
    assert _said(folder, Files(("images/001.tiff",), "x")) == ["images/001.tiff has 0 bytes"]
    assert _said(folder, Matching("images/*.tiff", 3, "x")) == ["images/001.tiff has 0 bytes"]
    assert _said(folder, Archive("images/000.tiff", 11, "")) == ["images/000.tiff has 10 bytes, published are 11"]
    other = [Archive("images/000.tiff", 10, "0" * 64)]
    assert [finding.found for finding in check_files(folder, other)] == [
        "images/000.tiff has another SHA-256 than published"
    ]
    assert check_files(folder, other, read=False) == []


def test_sums_as_md5sum_writes_them(folder: Path) -> None:
    def md5(number: int) -> str:
        return hashlib.md5(bytes([number] * 10), usedforsecurity=False).hexdigest()

    sums = folder / "checksums.md5"
    sums.write_text(f"{md5(0)}  images/000.tiff\n{md5(1).upper()} *images/001.tiff\n\n", encoding="utf-8")
    assert check_sums(folder, sums) == []
    sums.write_text(f"{md5(1)}  images/000.tiff\n{md5(1)}  images/009.tiff\n{md5(1)}  ../a\n", encoding="utf-8")
    said = [finding.found for finding in check_sums(folder, sums)]
    assert said[0] == "images/000.tiff has another MD5 sum than checksums.md5 says"
    assert "outside" in said[1]
    assert len(said) == 2
    sums.write_text(f"{md5(1)}  009.tiff\n", encoding="utf-8")
    assert [finding.found for finding in check_sums(folder, sums)] == [f"checksums.md5 names no file of {folder}"]
    sums.write_text("not a sum\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1"):
        check_sums(folder, sums)
    with pytest.raises(UsageError, match="cannot read"):
        check_sums(folder, folder / "none.md5")
