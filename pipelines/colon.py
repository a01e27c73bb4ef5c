"""Benign against malignant colon tissue over three hospitals, every pair of source and target.

Images of GlaS (Warwick, UK), LC25000 (Tampa, US) and Kather 2016 (Mannheim, DE). At each site in turn encoders are
trained on its tiles without labels, a classifier on its labelled tiles, and both are tested at the two others. Every
row has the same network, tiles, steps and head; no weights from elsewhere are used. Patients (of GlaS), families of
augmented copies (of LC25000) and images (of Kather, which states no patients) stay on one side of a split.

The sites differ in stain, scanner, sharpness, compression and scale, which is known of one of them only: images are
taken as they are, at a nominal pixel size.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from annotated_doc import Doc

from pipelines.common import Call, Pipeline, main
from wsi_lmc.cohort import Row, find_slides, read_rows
from wsi_lmc.config import build
from wsi_lmc.downloads import Finding
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists import ImageInputs
from wsi_lmc.packing import find_groups, pack_cohort
from wsi_lmc.patches import PackConfig
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.study import Study

_COLUMNS = ("file", "domain", "label", "group", "sha256")


@dataclass(frozen=True)
class Data:
    """Which images, and how they become tiles."""

    manifest: Annotated[str, Doc("Table of all images: columns file, domain (site), label, group and sha256.")] = (
        "manifest.csv"
    )
    sites: Annotated[tuple[str, ...], Doc("Folders of one site each; a folder's name is the site's.")] = (
        "colon_crosssite/glas_uk", "colon_crosssite/lc25000_us_224", "colon_crosssite/kather2016_de",
    )  # fmt: skip
    classes: Annotated[tuple[str, ...], Doc("Labels that count; the second is the positive one.")] = (
        "benign", "malignant",
    )  # fmt: skip
    tile_px: Annotated[int, Doc("Side of a tile; larger images give all whole tiles side by side.")] = 224
    nominal_mpp: Annotated[float, Doc("Stands for the pixel size, of which little is known.")] = 0.5
    tile_mpp: Annotated[
        float | None, Doc("Pixel size that images are reduced to, by the nominal one; by default they stay.")
    ] = None
    unlabelled: Annotated[
        str, Doc("A slide of one more site whose tiles all encoders are trained on, in place of the source's own.")
    ] = ""
    unlabelled_mpp: Annotated[float, Doc("Microns per level-0 pixel of that slide.")] = 0.25


def check(call: Call) -> list[Finding]:
    """Images that the table names and that are missing, or are not what it says."""
    data = call.section("data", Data)
    found: list[Finding] = []
    for row in _rows(call, data):
        path = call.data / row.cells["file"]
        if not path.is_file():
            found.append(Finding(f"no image {row.cells['file']}", f"{data.manifest} names it: copy it again."))
        elif call.checksums and sha256(path.read_bytes()).hexdigest() != row.cells["sha256"]:
            found.append(Finding(f"{row.cells['file']} is not what {data.manifest} says", "Copy it again."))
    return found


def prepare_data(call: Call) -> Mapping[str, Study]:
    """Tiles of every site, with labels and groups, and a study for each site as the source."""
    data = call.section("data", Data)
    runs = {Path(site).name: _pack(call, data, site) for site in data.sites}
    shared = _tile(call, data) if data.unlabelled else None
    encoders = call.out / "encoders" if shared else None
    return {
        source: Study(
            shared or folder,
            folder,
            {name: other for name, other in runs.items() if name != source},
            data.classes,
            encoders,
        )
        for source, folder in runs.items()
    }


def _pack(call: Call, data: Data, site: str) -> Path:
    """The tiles of one site as a run folder."""
    out = call.out / "sites" / Path(site).name
    inputs = ImageInputs((call.data / site,), call.data / data.manifest, {"site": "domain"})
    config = PackConfig(tile_px=data.tile_px, tile_mpp=data.tile_mpp, nominal_mpp=data.nominal_mpp)
    groups, notes = find_groups(inputs, out, config)
    for note in notes:
        call.say(f"{Path(site).name}: {note}")
    with call.executor(len(groups)) as executor:
        outcomes = pack_cohort(groups, out, config, RunOptions(executor))
    call.heard(f"tiles of {Path(site).name}", outcomes)
    return out


def _tile(call: Call, data: Data) -> Path:
    """The tiles of the unlabelled slide as a run folder."""
    out = call.out / "unlabelled"
    settings = {"tile_px": data.tile_px, "tile_mpp": data.tile_mpp or data.nominal_mpp, "mpp": data.unlabelled_mpp}
    config = build(TileConfig, settings, "colon")
    with call.executor(1) as executor:
        outcomes = tile_cohort(find_slides([str(call.data / data.unlabelled)]), out, config, RunOptions(executor))
    call.heard("unlabelled tiles", outcomes)
    return out


def _rows(call: Call, data: Data) -> list[Row]:
    """The table's rows that lie in the sites' folders."""
    rows = read_rows(call.data / data.manifest, _COLUMNS, _COLUMNS)
    found = [row for row in rows if any(Path(row.cells["file"]).is_relative_to(site) for site in data.sites)]
    if not found:
        raise UsageError(f"{data.manifest} names no image of {', '.join(data.sites)}", "images of them", "Check sites.")
    return found


PIPELINE = Pipeline("colon", __doc__ or "", {"data": Data}, check, prepare_data)

if __name__ == "__main__":
    sys.exit(main(PIPELINE))
