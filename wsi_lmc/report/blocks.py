"""What a report is made of: sections of paragraphs, tables and pictures, all as plain text until the page is drawn.

Nothing here is markup: the page escapes every text, whoever wrote it. Pictures alone are markup, of our own drawing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

FOLD = 12
"""Rows above which a table is folded away until somebody opens it."""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, further lines below it in small print, and what a column of such cells is sorted by."""

    text: str
    small: tuple[str, ...] = ()
    key: float | str | None = None
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a header for every column; the first cell of a row is the row's header.

    ``of`` is how many rows there are in all, of which ``rows`` may be the first ones.
    """

    kind = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    of: int
    note: str = ""
    aside: bool = False

    @property
    def folded(self) -> bool:
        """Whether it is long, or so much ``aside``, that it is folded away."""
        return self.aside or len(self.rows) > FOLD

    @property
    def statement(self) -> str:
        """How many rows are shown of how many, where some are not."""
        return f"The first {len(self.rows):,} of {self.of:,} rows." if self.of > len(self.rows) else ""


@dataclass(frozen=True)
class Picture:
    """A picture (markup), with words for those who do not see it, and a caption."""

    image: Markup
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many in a line as fit."""

    kind = "gallery"
    pictures: tuple[Picture, ...]
    small: bool = False


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    kind = "paragraph"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind = "heading"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what they are, as a list of definitions."""

    kind = "facts"
    items: tuple[tuple[str, str], ...]


Block = Table | Gallery | Paragraph | Heading | Facts


@dataclass(frozen=True)
class Section:
    """A part of the report; ``anchor`` is its address in the page."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


def cell(value: object) -> Cell:
    """A value as a cell: numbers with six digits at the most, nothing for None."""
    if isinstance(value, Cell):
        return value
    if value is None:
        return Cell("")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int):
        return Cell(f"{value:,}", key=float(value), number=True)
    if isinstance(value, float):
        return Cell(f"{value:.6g}", key=value, number=True)
    return Cell(str(value))


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], of: int | None = None, note: str = ""
) -> Table:
    """A table of values; ``of`` is how many rows there are in all, where ``rows`` are only the first ones."""
    shown = tuple(tuple(map(cell, row)) for row in rows)
    return Table(caption, tuple(columns), shown, len(shown) if of is None else of, note)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 slide", "2,000 slides"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
