"""A store of packed images: its list, the images as they are now, and the labels of its tiles."""

from collections.abc import Iterator

from wsi_lmc.config import RUN_FILE
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists import hash_images, list_path, read_list
from wsi_lmc.labels import labels_path
from wsi_lmc.patches import pack_identity
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.pack import labels_text, patches_of
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileStore
from wsi_lmc.verify.finding import Remedy, RunView

PACKED = "packed"
"""Attribute that stores of images have, and stores of slides have not."""


def look_at_pack(run: RunView, record: Outcome, store: TileStore) -> Iterator[tuple[str, Remedy]]:
    """What is wrong beside the store's own bytes, with what mends it."""
    slide_id = record.slide_id
    try:
        images = read_list(list_path(run.out, slide_id))
    except UsageError:
        yield f"its list images/{slide_id}.csv is missing or damaged; run pack again as it was", ""
        return
    identity = pack_identity(patches_of(images), run.pack_config) if run.pack_config else {}
    key = "config_fingerprint"
    if identity and store.attributes[key] != identity[key]:
        yield f"made with other settings than {RUN_FILE} states; run pack again with --overwrite to mend that", ""
    here = [image for image in images if image.path.is_file()]
    if len(here) < len(images):
        run.unreachable.append(slide_id)
    changed = [now for image, now in zip(here, hash_images(here, Threads()), strict=True) if image.sha256 != now.sha256]
    if changed:
        name = changed[0].path.name
        yield f"{len(changed)} of its images have changed, such as {name}; run pack again with --overwrite", ""
    path = labels_path(run.out, slide_id)
    wanted = labels_text(store.origins, images)
    if (path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None) != wanted:
        yield f"its labels {path.parent.name}/{path.name} are missing, or are not those of its images", "again"
