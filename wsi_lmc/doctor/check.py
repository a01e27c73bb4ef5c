"""What a check says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wsi_lmc.errors import WsiLmcError

State = Literal["ok", "warning", "failed"]

BROKEN = (
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    WsiLmcError,
)
"""What a broken installation raises; a process that ends otherwise is noticed from outside."""


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, what was found, and what to do where it is not well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def tried(name: str, probe: Callable[[], str], remedy: str) -> Check:
    """Try something for real: ``probe`` gives what it found, or raises one of `BROKEN`."""
    try:
        return Check(name, "ok", probe())
    except BROKEN as error:
        said = str(error).strip().splitlines() or [""]
        return Check(name, "failed", f"{type(error).__name__}: {said[0]}", remedy)


def expect(holds: bool, otherwise: str) -> None:
    """Raise ValueError where something does not hold."""
    if not holds:
        raise ValueError(otherwise)
