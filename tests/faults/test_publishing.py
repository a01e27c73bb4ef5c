"""Nothing is written to a final name but by `publish`: who else writes gets a draft's path, or says here why not."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "wsi_lmc"
WRITES = frozenset(
    {
        "write_text", "write_bytes", "imwrite", "savefig", "save_file", "save_for_hf", "tofile", "savez", "copyfile",
        "copytree", "copy", "copy2", "move", "rename", "replace", "symlink_to", "hardlink_to", "touch", "TiffWriter",
        "SummaryWriter", "write_file",
    }
)  # fmt: skip
OPENS = frozenset({"open", "fdopen", "open_group", "create_group"})
ALLOWED = {
    "publish.py": "the one place",
    "locks.py": "signs of life, of which only the time counts",
    "shards.py": "writes a file of a draft",
    "zarrio.py": "writes a file of a draft",
    "overview.py": "is given a draft's path",
    "cohort.py": "write_manifest is given a draft's path",
    "steps/parts.py": "is given a draft's path",
    "encoder/card.py": "is given a draft's path",
    "encoder/folder.py": "is given a draft's path",
    "evaluation/pictures.py": "is given a draft's path",
    "export/arrays.py": "is given a draft's path",
    "export/onnx.py": "writes beside, then renames",
    "checkpoint.py": "drafts, and the log of metrics, a line at a time: a torn last line is left out when it is read",
    "study/data.py": "is given a draft's path",
    "study/run.py": "is given a draft's path",
    "heads/maps.py": "is given a draft's path",
    "heads/model.py": "files of a draft",
    "imagelists/groups.py": "is given a draft's path",
    "report/figures.py": "into memory",
    "jobqueue.py": "keys that are made anew in each run",
    "doctor/codecs.py": "tries out, in a folder of its own",
    "doctor/disk.py": "tries out, in a folder of its own",
    "synthetic/cohort.py": "slides that are drawn, not results",
    "synthetic/writing.py": "slides that are drawn, not results",
}


def writing_calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of whatever in a module may write a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            method = isinstance(node.func, ast.Attribute)
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if _writes(node, name, method):
                yield node.lineno, name


def _writes(call: ast.Call, name: str, method: bool) -> bool:
    owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
    if name == "replace":  # of a path or of os; dataclasses' has no owner, text's two arguments
        return owner == "os" or (method and len(call.args) == 1 and not call.keywords)
    if name == "copy":
        return owner == "shutil"
    if name == "save":
        return owner in ("torch", "np")
    if name in OPENS:
        own_file = method and owner not in ("os", "zarr", "io")
        given = [*call.args[0 if own_file else 1 :], *(word.value for word in call.keywords if word.arg == "mode")]
        modes = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        return any(set(mode) & set("wax+") and len(mode) < 4 for mode in modes)
    return name in WRITES


@pytest.mark.row(1)
def test_only_publish_writes_to_final_names() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}:{line} {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in ALLOWED
        for line, name in writing_calls(path)
    }
    assert not found, "publish it (see wsi_lmc/publish.py), or say above why it need not be"


@pytest.mark.row(1)
def test_every_exception_still_writes() -> None:
    idle = [name for name in ALLOWED if not (PACKAGE / name).is_file() or not list(writing_calls(PACKAGE / name))]
    assert idle == []


@pytest.mark.parametrize(
    "code",
    [
        "Path('x').write_text('a')", "open('x', 'w')", "path.open('ab')", "torch.save(a, b)", "cv2.imwrite('x', a)",
        "path.rename(other)", "os.replace(a)", "zarr.open_group(path, mode='w-')",
    ],
)  # fmt: skip
def test_what_writes_is_seen(code: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(code)
    assert list(writing_calls(tmp_path / "module.py"))


@pytest.mark.parametrize("code", ["'a'.replace('b', 'c')", "open('x')", "path.open('rb')", "array.copy()"])
def test_what_only_reads_is_not(code: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(code)
    assert not list(writing_calls(tmp_path / "module.py"))
