"""What is found wrong in a run folder, and the folder as those who look at it see it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.config import RUN_FILE, build, read_config
from wsi_lmc.errors import UsageError
from wsi_lmc.patches import PackConfig
from wsi_lmc.publish import holders
from wsi_lmc.runfolder import PLANNED, RECORDS, list_slides, read_request
from wsi_lmc.steps.outcome import Stage
from wsi_lmc.steps.tile import TileConfig

Remedy = Literal["", "again", "anew", "remove", "table"]
"""What mends a finding: nothing here, the step again, the step after its damaged result has gone, or a removal."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: ``path`` is relative to the run folder, ``slide`` whose stage it belongs to, if any."""

    path: str
    said: str
    remedy: Remedy = ""
    slide: tuple[Stage, str] | None = None

    def __str__(self) -> str:
        """One line."""
        return f"{self.path}: {self.said}"


@dataclass
class RunView:
    """A run folder and what is needed of it again and again; damage of these files is found elsewhere."""

    out: Path
    unreachable: list[str] = field(default_factory=list)

    @cached_property
    def entries(self) -> dict[str, SlideEntry]:
        """Slides of the manifest, by id."""
        try:
            return {entry.slide_id: entry for entry in list_slides(self.out)}
        except UsageError:
            return {}

    @cached_property
    def settings(self) -> dict[str, dict[str, object]]:
        """Settings of each stage."""
        try:
            return read_config(self.out / RUN_FILE)
        except UsageError:
            return {}

    @cached_property
    def tile_config(self) -> TileConfig | None:
        """Those of tiling, where it is known."""
        try:
            return build(TileConfig, self.settings["tile"], RUN_FILE)
        except (KeyError, UsageError):
            return None

    @cached_property
    def pack_config(self) -> PackConfig | None:
        """Those of packing, where it is known."""
        try:
            return build(PackConfig, self.settings["pack"], RUN_FILE)
        except (KeyError, UsageError):
            return None

    @cached_property
    def busy(self) -> set[str]:
        """What somebody works on, such as ``tile-a`` or ``embed-a``; of a slide's parts, the slide."""
        return {holder.name.partition(".")[0] for holder in holders(self.out) if holder.alive is not False}

    def load(self) -> None:
        """Read what threads will ask for, before they do."""
        _ = self.busy, self.entries, self.tile_config, self.pack_config

    def tiles_of(self, slide_id: str) -> Path | None:
        """The tile store that a slide's features were asked to be made of; None where it is not at hand."""
        for request in (read_request(path) for path in (self.out / RECORDS / PLANNED).glob("embed-*.json")):
            if request is not None and slide_id in request.stores:
                path = self.out / request.stores[slide_id]
                return path if path.is_dir() else None
        return None


def name_in(out: Path, path: Path) -> str:
    """A path as findings name it: relative to the run folder."""
    return path.relative_to(out).as_posix() or "."
