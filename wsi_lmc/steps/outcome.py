"""How one slide came out of one stage, and when an earlier result still counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wsi_lmc.errors import SlideError

if TYPE_CHECKING:
    from wsi_lmc.zarrio import Attributes  # whoever only reads records needs no zarr

State = Literal["done", "empty", "failed", "skipped"]
Stage = Literal["tile", "embed"]


@dataclass(frozen=True)
class Outcome:
    """How one slide came out of one stage. ``reason`` and ``remedy`` are for a person, ``code`` is stable.

    ``fresh`` is False where the result was there already; ``seconds`` then is the time it took to see that.
    ``detail`` is the traceback of an error nobody foresaw, for the log.
    """

    slide_id: str
    stage: Stage
    state: State
    code: str = ""
    reason: str = ""
    remedy: str = ""
    tiles: int = 0
    mpp: float | None = None
    mpp_source: str = ""
    seconds: float = 0.0
    fresh: bool = True
    detail: str = ""


@dataclass(frozen=True)
class Split[T]:
    """A task that turned out to be large: ``parts`` can be run by anyone, in any order; then the task, once more."""

    parts: tuple[T, ...]


def succeeded(slide_id: str, stage: Stage, slide: dict[str, Any], tiles: int) -> Outcome:
    """The outcome of a slide that is done: ``slide`` is its description as stored, ``tiles`` how many it has."""
    mpp_x, mpp_y = slide["mpp"]
    return Outcome(
        slide_id,
        stage,
        state="done" if tiles else "empty",
        reason="" if tiles else "no tile holds enough tissue",
        tiles=tiles,
        mpp=(mpp_x * mpp_y) ** 0.5,
        mpp_source=slide["mpp_source"],
    )


def still_valid(name: str, found: "Attributes", wanted: "Attributes", overwrite: bool) -> bool:
    """Whether a published result is what would be made now: True; False to make it anew.

    Args:
        name: of the result, for the message.
        found: attributes it was sealed with.
        wanted: fingerprints it would get now; any key not in ``found`` counts as different.
        overwrite: make results anew that differ, instead of refusing to.

    Raises:
        SlideError: ``slide_changed`` or ``other_configuration``.
    """
    differing = [key for key, value in wanted.items() if found.get(key) != value]
    if not differing:
        return True
    if overwrite:
        return False
    replaced = "slide_fingerprint" in differing
    raise SlideError(
        "slide_changed" if replaced else "other_configuration",
        f"{name} was made from {'another version of this slide' if replaced else 'other settings'}",
        "the same slide and settings in one run folder",
        "Pass --overwrite to make such results anew, or choose another folder with -o.",
    )
