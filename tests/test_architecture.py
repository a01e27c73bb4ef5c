"""The house rules that a linter does not know."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "wsi_lmc"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60


def _modules() -> list[str]:
    """Top-level modules and packages of the library, by name."""
    found = [path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.name != "py.typed"]
    return sorted(name for name in found if not name.startswith("__"))


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40
    assert {"slide", "training", "cluster", "cli"} <= set(_modules())


@pytest.mark.parametrize("statement", ["import wsi_lmc", "import wsi_lmc.cli"])
def test_importing_loads_neither_torch_nor_dask(statement: str) -> None:
    assert not _loaded_after(statement) & {"torch", "torchvision", "timm", "dask", "distributed", "zarr", "cv2"}


def test_tiling_needs_no_torch() -> None:
    assert not _loaded_after("import wsi_lmc.steps.tile, wsi_lmc.tiling") & {"torch", "timm"}


@pytest.mark.parametrize("name", _modules())
def test_every_module_has_a_namesake_test(name: str) -> None:
    assert list((ROOT / "tests").rglob(f"test_{name}.py")) + list((ROOT / "tests").rglob(f"test_{name}_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_described(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous_is_used(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            forbidden = {("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True), ("shell", True)}
            assert (node.arg, value) not in forbidden
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve", "dill", "joblib"}


def test_broad_excepts_stand_in_executor_alone() -> None:
    broad = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    }
    assert broad == {"executor.py"}
