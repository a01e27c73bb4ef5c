"""Whether a downloaded data set is all there: names, sizes, checksums; nothing is changed."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_lmc.errors import UsageError

_BLOCK = 2**20
_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *](.+)")
_NAMED = 5  # missing files that are named; the others are counted


@dataclass(frozen=True)
class Files:
    """Files that belong to a data set: ``names`` relative to its folder; ``what`` says what they are and from where."""

    names: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Matching:
    """At least ``least`` files whose names match ``pattern``, as ``Path.glob`` understands it."""

    pattern: str
    least: int
    what: str


@dataclass(frozen=True)
class Archive:
    """A file of known size and content; it need not be there, since it may have been unpacked and removed."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a download, and what to do."""

    found: str
    remedy: str


def check_files(folder: Path, wanted: Sequence[Files | Matching | Archive], read: bool = True) -> list[Finding]:
    """What is missing, empty, or of another size or content than published; nothing where all is well.

    Args:
        folder: of the data set.
        wanted: what should be there.
        read: compare checksums, too, which reads every byte of the archives.
    """
    if not folder.is_dir():
        return [Finding(f"no folder {folder}", "Download the data set into it, or name another with --data.")]
    found: list[Finding] = []
    for each in wanted:
        if isinstance(each, Files):
            found += _check_names(folder, each)
        elif isinstance(each, Matching):
            found += _check_pattern(folder, each)
        else:
            found += _check_archive(folder / each.name, each, read)
    return found


def check_sums(folder: Path, sums: Path) -> list[Finding]:
    """Files of a folder that differ from a list of MD5 sums as ``md5sum`` writes it.

    Listed files that are not there are left out, since few need all of a data set; a list of which no file at all is
    there is a finding, and so are names that lead out of the folder.

    Raises:
        UsageError: the list cannot be read, or is none.
    """
    found: list[Finding] = []
    compared = 0
    for name, md5 in _read_sums(sums):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            found.append(Finding(f"{sums.name} names {name[:80]!r}, outside of {folder}", "Download the list again."))
        elif path.is_file():
            compared += 1
            if _digest(path, "md5") != md5:
                found.append(Finding(f"{name} has another MD5 sum than {sums.name} says", "Download it again."))
    if not compared:
        found.append(Finding(f"{sums.name} names no file of {folder}", "Put it where its names start from."))
    return found


def _check_names(folder: Path, files: Files) -> list[Finding]:
    missing = [name for name in files.names if not (folder / name).is_file()]
    found = [
        Finding(f"{name} has 0 bytes", "Download it again.")
        for name in files.names
        if name not in missing and (folder / name).stat().st_size == 0
    ]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        text = f"{len(missing)} of {len(files.names)} missing in {folder}: {', '.join(missing[:_NAMED])}{more}"
        found.insert(0, Finding(text, f"Download {files.what}."))
    return found


def _check_pattern(folder: Path, files: Matching) -> list[Finding]:
    matching = [path for path in folder.glob(files.pattern) if path.is_file()]
    empty = [path for path in matching if path.stat().st_size == 0]
    found = [Finding(f"{path.relative_to(folder)} has 0 bytes", "Download it again.") for path in empty]
    if len(matching) < files.least:
        text = f"{len(matching)} files {files.pattern} in {folder}, at least {files.least} expected"
        found.insert(0, Finding(text, f"Download {files.what}."))
    return found


def _check_archive(path: Path, archive: Archive, read: bool) -> list[Finding]:
    if not path.is_file():
        return []
    size = path.stat().st_size
    if size != archive.size:
        return [Finding(f"{archive.name} has {size} bytes, published are {archive.size}", "Download it again.")]
    if read and _digest(path, "sha256") != archive.sha256:
        return [Finding(f"{archive.name} has another SHA-256 than published", "Download it again.")]
    return []


def _read_sums(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", "a list of MD5 sums as md5sum writes it", "Check the file.") from error
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.strip())
        if match is None and line.strip():
            found = f"{path}, line {number}: {line[:60]!r}"
            raise UsageError(found, "an MD5 sum, two spaces, a name", "Download the list again.")
        if match is not None:
            yield match[2], match[1].lower()


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
