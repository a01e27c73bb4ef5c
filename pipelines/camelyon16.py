"""Camelyon16: metastases in lymph nodes, from Radboud to Utrecht.

An encoder is trained on unlabelled tiles of Radboud's slides at 0.25 um/px. A classifier (tumour or normal) is trained
on labelled tiles of Radboud and tested on those of Utrecht; AUROC is reported. The labelled tiles are those that
StainGAN's authors published (30,000 and 10,000 for validation from Radboud, 10,000 from Utrecht), or, where these
cannot be had, tiles cut by the lesions' outlines. Test slides of the challenge are not used.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import Annotated, Literal

from annotated_doc import Doc

from pipelines.common import Call, Pipeline, main, numbered
from pipelines.places import LesionPlaces, SomePlaces
from pipelines.preparing import LabelTask, PatchTask, cut_labelled, prepare, take_patches
from wsi_lmc.annotations import NORMAL, RADBOUD, TUMOUR, UTRECHT, ShareLimits, camelyon16_site
from wsi_lmc.cohort import SlideEntry, safe_id
from wsi_lmc.downloads import Files, Finding, Matching, check_files, check_sums
from wsi_lmc.errors import UsageError
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig, TileTask
from wsi_lmc.study import Study

CLASSES = (NORMAL, TUMOUR)
_SUMS = "checksums.md5"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_PATCHES_A_STORE = 1000  # 200 MB of tiles of 256 px in memory


@dataclass(frozen=True)
class Data:
    """Which parts of the download are used, and how tiles get their labels."""

    images: Annotated[str, Doc("Folder of the slides, normal_001.tif and so on.")] = "images"
    annotations: Annotated[str, Doc("Folder of the lesions in ASAP's XML, tumor_001.xml and so on.")] = "annotations"
    labelled: Annotated[
        Literal["staingan", "annotations"],
        Doc("Where labelled tiles come from: StainGAN's patches, or the slides by the lesions' outlines."),
    ] = "staingan"
    patches: Annotated[str, Doc("Folder of StainGAN's patches.")] = "staingan"
    source_patches: Annotated[
        tuple[str, ...], Doc("Folders in it of Radboud's patches, each with a folder per class.")
    ] = ("train", "validation")
    target_patches: Annotated[tuple[str, ...], Doc("The same of Utrecht's.")] = ("test",)
    classes: Annotated[tuple[str, str], Doc("What the folders of normal and of tumour patches are called.")] = CLASSES
    patch_mpp: Annotated[float, Doc("Microns per pixel of the patches; x40 is taken as 0.25.")] = 0.25
    unlabelled_per_slide: Annotated[
        int, Doc("Unlabelled tiles of each slide of Radboud, drawn at random; 0 for all, which are some millions.")
    ] = 0
    slides: Annotated[int, Doc("Slides of each site and kind that are used, the first ones; 0 for all.")] = 0
    tiles_per_slide: Annotated[int, Doc("By outlines: most labelled tiles of one class from one slide.")] = 250
    normal_in_tumour_slides: Annotated[
        bool, Doc("By outlines: take normal tiles from tumour slides, too; not all of these are outlined completely.")
    ] = False
    limits: ShareLimits = ShareLimits()  # noqa: RUF009  frozen
    seed: Annotated[int, Doc("Decides which labelled tiles are drawn.")] = 0


def check(call: Call) -> list[Finding]:
    """What is missing from the download: slides, outlines, patches; MD5 sums where its own list is there."""
    data = call.section("data", Data)
    tumour = numbered("tumor_", 1, 111, "")
    normal = tuple(name for name in numbered("normal_", 1, 160, "") if name != "normal_086")  # it is in no list
    slides = tuple(f"{data.images}/{name}.tif" for name in normal + tumour)
    wanted: list[Files | Matching] = [Files(slides, "the slides of CAMELYON16/images")]
    if data.labelled == "annotations":
        outlines = tuple(f"{data.annotations}/{name}.xml" for name in tumour)
        wanted.append(Files(outlines, "CAMELYON16/annotations"))
    else:
        wanted += [
            Matching(f"{data.patches}/{part}/{kind}/*", 1, "StainGAN's patches, or set labelled: annotations")
            for part in data.source_patches + data.target_patches
            for kind in data.classes
        ]
    found = check_files(call.data, wanted)
    sums = call.data / _SUMS
    return found + (check_sums(call.data, sums) if call.checksums and sums.is_file() else [])


def prepare_data(call: Call) -> Study:
    """Radboud's unlabelled tiles, and labelled ones of both sites."""
    data, tile = call.section("data", Data), call.section("tile", TileConfig)
    unlabelled = call.out / "unlabelled"
    radboud, stage = _slides(call, data, RADBOUD), f"unlabelled tiles of {RADBOUD}"
    if data.unlabelled_per_slide:
        some = SomePlaces(data.unlabelled_per_slide, data.seed)
        prepare(call, stage, cut_labelled, [LabelTask(TileTask(entry, unlabelled, tile), some) for entry in radboud])
    else:
        with call.executor(len(radboud)) as executor:
            call.heard(stage, tile_cohort(radboud, unlabelled, tile, RunOptions(executor)))
    for site in (RADBOUD, UTRECHT):
        _label(call, data, tile, site)
    return Study(unlabelled, call.out / RADBOUD, {UTRECHT: call.out / UTRECHT}, CLASSES)


def _label(call: Call, data: Data, tile: TileConfig, site: str) -> None:
    """The labelled tiles of one site."""
    out, stage = call.out / site, f"labelled tiles of {site}"
    if data.labelled == "annotations":
        tasks = [
            LabelTask(TileTask(entry, out, tile), _places(call, data, entry)) for entry in _slides(call, data, site)
        ]
        prepare(call, stage, cut_labelled, tasks)
    else:
        parts = data.source_patches if site == RADBOUD else data.target_patches
        own = replace(tile, grid=replace(tile.grid, tile_mpp=data.patch_mpp))
        groups = [group for part in parts for group in _groups(call.data / data.patches / part, site, data)]
        prepare(call, stage, take_patches, [PatchTask(TileTask(group[0], out, own), *group[1:]) for group in groups])


def _slides(call: Call, data: Data, site: str) -> list[SlideEntry]:
    """The training slides of one site; each is taken for a patient of its own, since the challenge names none."""
    folder = call.data / data.images
    of_site = [path for path in sorted(folder.glob("*.tif")) if camelyon16_site(path.stem) == site]
    kinds = [[path for path in of_site if path.stem.lower().startswith(kind)] for kind in CLASSES]
    chosen = [path for paths in kinds for path in (paths[: data.slides] if data.slides else paths)]
    if not chosen:
        raise UsageError(f"no slides of {site} in {folder}", "normal_001.tif and so on", "Run with --check.")
    return [
        SlideEntry(path, safe_id(path.stem), patient=path.stem, site=site, label=path.stem.split("_")[0].lower())
        for path in chosen
    ]


def _places(call: Call, data: Data, entry: SlideEntry) -> LesionPlaces:
    normal = entry.label == NORMAL
    outlines = None if normal else call.data / data.annotations / f"{entry.path.stem}.xml"
    kinds = (NORMAL,) if normal else CLASSES if data.normal_in_tumour_slides else (TUMOUR,)
    return LesionPlaces(outlines, data.limits, data.tiles_per_slide, kinds, data.seed)


def _groups(folder: Path, site: str, data: Data) -> Iterator[tuple[SlideEntry, tuple[Path, ...], str]]:
    """Patches of one part by slide where their names tell it, otherwise the part is one group; some at a time."""
    for kind, label in zip(data.classes, CLASSES, strict=True):
        slides: dict[str, list[Path]] = {}
        for path in sorted(path for path in (folder / kind).glob("*") if path.suffix.lower() in _SUFFIXES):
            match = re.match(r"((?:normal|tumor|test)_[0-9]{3})(?![0-9])", path.name, re.IGNORECASE)
            slides.setdefault(match[1].lower() if match else folder.name, []).append(path)
        for patient, paths in sorted(slides.items()):
            for number, some in enumerate(batched(paths, _PATCHES_A_STORE), 1):
                name = safe_id(f"{folder.name}-{label}-{patient}-{number:03d}")
                entry = SlideEntry(folder / kind / name, name, str(data.patch_mpp), patient, site, label)
                yield entry, some, label


PIPELINE = Pipeline("camelyon16", __doc__ or "", {"data": Data, "tile": TileConfig}, check, prepare_data)

if __name__ == "__main__":
    sys.exit(main(PIPELINE))
