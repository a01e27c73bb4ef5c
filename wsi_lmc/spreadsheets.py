"""Tables as CSV for people, in which no spreadsheet runs anything, and which read back exactly.

Text that a spreadsheet would take for a formula gets an apostrophe in front, as people do it by hand; numbers stay as
they are, negative ones too. Reading takes one such apostrophe away again, so that no text is confused with another.
"""

import re
from collections.abc import Iterable, Sequence

_FORMULA = re.compile(
    r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
)  # the last four are =+-@ as East Asian keyboards have them
_SEPARATES = re.compile(r'[",\r\n]')
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")


def to_cell(text: str) -> str:
    """Text as it may stand in a table.

    >>> to_cell("=SUM(A1:A9)"), to_cell("-0.5"), to_cell("tumour")
    ("'=SUM(A1:A9)", '-0.5', 'tumour')
    """
    harmless = _NUMBER.fullmatch(text) or not _FORMULA.match(text)
    return text if harmless else f"'{text}"


def from_cell(cell: str) -> str:
    """The text that :func:`to_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a line of column names; None is an empty cell, floats have six digits.

    >>> print(to_csv(("slide", "mpp"), [("a", 0.252777777), ("b,c", None)]), end="")
    slide,mpp
    a,0.252778
    "b,c",
    """
    lines = [columns, *([_cell(value) for value in row] for row in rows)]
    return "".join(f"{','.join(map(_quoted, cells))}\n" for cells in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else to_cell(str(value))


def _quoted(cell: str) -> str:
    """Python's own writer leaves a carriage return bare, which a reader then takes for the end of the line."""
    quoted = cell.replace('"', '""')
    return f'"{quoted}"' if _SEPARATES.search(cell) else cell
