"""One group of images into its tile store, with the labels of its tiles."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from wsi_lmc.errors import StoreError
from wsi_lmc.imagelists import ImageEntry, list_path, read_list
from wsi_lmc.labels import label_table, labels_path
from wsi_lmc.patches import PackConfig, Patch, image_numbers, pack_identity, write_store
from wsi_lmc.publish import discard, publish_text, publishing, working
from wsi_lmc.steps.outcome import Outcome, Stage, still_valid, succeeded
from wsi_lmc.tilestore import TileStore


@dataclass(frozen=True)
class PackTask:
    """Pack one group of images, those of its list, into the run folder ``out``."""

    slide_id: str
    out: Path
    config: PackConfig
    overwrite: bool = False

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to: images that are packed need no tiling."""
        return "tile"

    @property
    def results(self) -> tuple[Path, Path]:
        """What is written: the tile store, the labels of its tiles."""
        return self.out / "tiles" / f"{self.slide_id}.zarr", labels_path(self.out, self.slide_id)


def pack_group(task: PackTask) -> Outcome:
    """Pack one group: labels, then the store, each published whole; nothing where it is done already.

    Labels are no part of what the store is known by: where they alone have changed, they alone are written.

    Raises:
        SlideError: an image cannot be packed, for the reason its code names; the group then has no store.
        UsageError: its list is missing or damaged.
    """
    began = time.monotonic()
    final = task.results[0]
    with working(task.out, f"tile-{task.slide_id}"):
        images = read_list(list_path(task.out, task.slide_id))
        patches = patches_of(images)
        finished = _finished(task, patches)
        if finished is not None:
            _publish_labels(task, finished.origins, images)
            outcome = succeeded(task.slide_id, "tile", finished.attributes["slide"], len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        with publishing(task.out, final) as draft:
            rows, attributes = write_store(draft, task.slide_id, patches, task.config)
            _publish_labels(task, rows.origins, images)  # a store is there only if its labels are
        outcome = succeeded(task.slide_id, "tile", attributes["slide"], len(rows.origins))
    return replace(outcome, seconds=time.monotonic() - began)


def patches_of(images: tuple[ImageEntry, ...]) -> list[Patch]:
    """The images of a list, to be packed."""
    return [Patch(image.path, image.mpp, image.sha256) for image in images]


def images_fingerprint(images: tuple[ImageEntry, ...]) -> str:
    """What stands for the slide's own fingerprint: that of all images' bytes, in order."""
    return str(pack_identity(patches_of(images), PackConfig())["slide_fingerprint"])


def labels_text(origins: Int32[np.ndarray, "n 2"], images: tuple[ImageEntry, ...]) -> str | None:
    """The table of the tiles' labels, each that of its image; None where no image has one."""
    if not any(image.label for image in images):
        return None
    return label_table(origins, [images[number].label for number in image_numbers(origins).tolist()])


def _publish_labels(task: PackTask, origins: Int32[np.ndarray, "n 2"], images: tuple[ImageEntry, ...]) -> None:
    """Write the labels' table, or take one away that no image has labels for; one that is right stays."""
    path = task.results[1]
    text = labels_text(origins, images)
    if text is None:
        if path.exists():
            discard(task.out, path)
    elif not path.is_file() or path.read_bytes() != text.encode("utf-8", "backslashreplace"):
        publish_text(task.out, path, text)


def _finished(task: PackTask, patches: list[Patch]) -> TileStore | None:
    """The published store, where it is what would be made now; a store that does not even open is made anew."""
    final = task.results[0]
    try:
        store = TileStore.open(final)
    except StoreError:
        return None
    wanted = pack_identity(patches, task.config)
    return store if still_valid(f"tiles/{final.name}", store.attributes, wanted, task.overwrite) else None
