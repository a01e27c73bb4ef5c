"""Every row of the table of faults has a test: ``pytest tests/faults`` is the table, run."""

import ast
from pathlib import Path

_ROWS = range(1, 25)


def test_every_row_of_the_table_has_a_test() -> None:
    """By the marks that stand in the files, whichever of them are run together."""
    found: set[int] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "row":
                found |= {int(str(each.value)) for each in node.args if isinstance(each, ast.Constant)}
    assert sorted(found) == list(_ROWS)
