"""Tables: no cell runs as a formula, numbers stay numbers, and what was written is read back."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc.spreadsheets import from_cell, to_cell, to_csv

RUNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
ANY = st.text() | st.text("=+-@'\t\r\n\uff1d019.,eE \u00a0ab\"", max_size=12)


@given(ANY)
def test_every_text_is_read_back(text: str) -> None:
    assert from_cell(to_cell(text)) == text


@given(ANY, ANY)
def test_no_two_texts_have_one_cell(first: str, second: str) -> None:
    assert (to_cell(first) == to_cell(second)) == (first == second)


@given(st.sampled_from(RUNS), ANY)
def test_a_cell_begins_as_a_formula_only_where_it_is_a_number(sign: str, rest: str) -> None:
    cell = to_cell(sign + rest)
    if cell.startswith(RUNS):
        float(cell.replace(",", "."))


@pytest.mark.parametrize("text", ["-1.5", "+3", "-1e-05", "-0,5", "-.5", "5", "", "HER2+", "'tis", "a=b", "Größe"])
def test_numbers_and_plain_text_stay_as_they_are(text: str) -> None:
    assert to_cell(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+a", "-", "@x", "\t=1", "\r=1", "-1+1", "--1", "-1.5.2", "'=1", "''@x"])
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert to_cell(text) == f"'{text}"


@given(st.lists(st.tuples(ANY, ANY), max_size=4))
def test_a_table_is_read_back(rows: list[tuple[str, str]]) -> None:
    found = list(csv.reader(io.StringIO(to_csv(("a", "=b"), rows), newline="")))
    assert found[0] == ["a", "=b"], "names of columns are ours"
    assert [tuple(from_cell(cell) for cell in row) for row in found[1:]] == rows


def test_values_as_they_are_shown() -> None:
    assert to_csv(("x", "y", "z"), [(None, -1.23456789, 7)]) == "x,y,z\n,-1.23457,7\n"
