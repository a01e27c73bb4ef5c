"""Every row of the table of faults has a test: ``pytest tests/faults`` is the table, run."""

from pathlib import Path

import pytest

_ROWS = range(1, 25)


def test_every_row_of_the_table_has_a_test(request: pytest.FixtureRequest) -> None:
    """Among what was collected; a part of it proves nothing."""
    collected = {Path(item.path).name for item in request.session.items}
    missing = {path.name for path in Path(__file__).parent.glob("test_*.py")} - collected
    if missing:
        pytest.skip(f"not collected: {', '.join(sorted(missing))}")
    found = {int(mark.args[0]) for item in request.session.items for mark in item.iter_markers("row")}
    assert sorted(found) == list(_ROWS)
