"""What may be said of slides in records, messages and logs: no folder, and nothing that betrays a pseudonym."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_lmc.cohort import SlideEntry, real_path
from wsi_lmc.errors import without_quotes
from wsi_lmc.steps.outcome import Outcome

_SHORTEST_NAME = 3  # a slide called "1" is no secret, and its name stands in every message


def told_mask(mask: Path | None, slides: Sequence[SlideEntry]) -> str | None:
    """Where the outlines lie, to be asked for again; not of hidden slides, whose patients its path may name."""
    return None if mask is None or any(entry.hidden for entry in slides) else str(mask.resolve())


def told_discreetly(
    found: Iterator[Outcome], slides: Sequence[SlideEntry], masks: Mapping[str, Path]
) -> Iterator[Outcome]:
    """Outcomes that say no more of slides and their files than may be said."""
    entries = {entry.slide_id: entry for entry in slides}
    for outcome in found:
        entry = entries.get(outcome.slide_id)
        if entry is None or outcome.state != "failed":
            yield outcome
            continue
        say = Discretion(entry, [masks[entry.slide_id]] if entry.slide_id in masks else [])
        told = say.of_bug if outcome.code == "internal" else say
        reason, remedy, detail = (told(text) for text in (outcome.reason, outcome.remedy, outcome.detail))
        yield replace(outcome, reason=reason, remedy=remedy, detail=detail)


@dataclass(frozen=True)
class Discretion:
    """What may be said of a slide in messages and logs: no folder, and of a hidden one no name of a file.

    ``beside`` are other files of the slide, such as its outline.
    """

    entry: SlideEntry
    beside: Sequence[Path] = ()

    def __call__(self, text: str) -> str:
        """``text`` without what may not be told."""
        for path in (self.entry.path, *self.beside):
            known = self.entry.slide_id if self.entry.hidden else path.name
            spellings = {path, path.absolute(), real_path(path)}
            text = _replaced(text, [str(spelling) for spelling in spellings], known)
            folders = {spelling.parent for spelling in spellings if self.entry.hidden or spelling.is_absolute()}
            text = _replaced(text, [f"{folder}{os.sep}" for folder in folders if folder.name], "")
            if self.entry.hidden:
                names = {name for spelling in spellings for name in (spelling.name, spelling.stem)}
                text = _replaced(text, [name for name in names if len(name) >= _SHORTEST_NAME], known)
        return text

    def of_bug(self, text: str) -> str:
        """A message or traceback that nobody foresaw: of a hidden slide, without what it quotes."""
        said = self(text)
        if not self.entry.hidden:
            return said
        return "\n".join(line if line[:1] == " " else without_quotes(line) for line in said.split("\n"))


def _replaced(text: str, names: Iterable[str], known: str) -> str:
    """``text`` with names replaced, as they are and as Python quotes them, where they are no part of another word."""
    spelt = {spelling for name in names for spelling in (name, repr(name)[1:-1], ascii(name)[1:-1])}
    for name in sorted(spelt, key=len, reverse=True):
        edges = _edge("(?<!", name[0]), _edge("(?!", name[-1])
        text = re.sub(f"{edges[0]}{re.escape(name)}{edges[1]}", _constant(known), text)
    return text


def _edge(sign: str, letter: str) -> str:
    return f"{sign}[^\\W_])" if letter.isalnum() else ""


def _constant(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text
