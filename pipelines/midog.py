"""MIDOG 2021: mitotic figures and their imposters in breast cancer, across scanners.

An encoder is trained on unlabelled tiles of the Aperio CS2's images. A classifier (mitotic figure or hard negative) is
trained on tiles around the CS2's annotated cells and tested on those of the Hamamatsu S360 and XR; F1 is reported. All
slides were stained in one laboratory, so the sites here are scanners.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

from annotated_doc import Doc

from pipelines.common import Call, Pipeline, main, numbered
from pipelines.places import CellPlaces
from pipelines.preparing import LabelTask, cut_labelled, prepare
from wsi_lmc.annotations import (
    HARD_NEGATIVE,
    MIDOG2021_SCANNERS,
    MITOTIC_FIGURE,
    AnnotatedImage,
    midog2021_scanner,
    read_midog,
)
from wsi_lmc.cohort import SlideEntry, safe_id
from wsi_lmc.downloads import Files, Finding, check_files, check_sums
from wsi_lmc.errors import UsageError
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig, TileTask
from wsi_lmc.study import Study

CLASSES = (HARD_NEGATIVE, MITOTIC_FIGURE)
_SUMS = "checksums.md5"


@dataclass(frozen=True)
class Data:
    """Which scanners are compared, and where their images lie."""

    images: Annotated[str, Doc("Folder of the images, 001.tiff and so on; a dot is the download's own folder.")] = "."
    annotations: Annotated[str, Doc("File of the annotated cells.")] = "MIDOG.json"
    source: Annotated[str, Doc("Scanner that is trained on.")] = "Aperio CS2"
    targets: Annotated[tuple[str, ...], Doc("Scanners that are tested on.")] = ("Hamamatsu S360", "Hamamatsu XR")
    mpp: Annotated[
        float, Doc("Microns per pixel, taken for all scanners alike, so that no pixel is resampled; nominal for x40.")
    ] = 0.25
    images_per_scanner: Annotated[int, Doc("The first so many images of each scanner; 0 for all 50.")] = 0

    def __post_init__(self) -> None:
        unknown = [name for name in (self.source, *self.targets) if name not in MIDOG2021_SCANNERS]
        if unknown or self.source in self.targets or not self.targets:
            found = f"source {self.source}, targets {', '.join(self.targets) or 'none'}"
            raise UsageError(found, f"different ones of {', '.join(MIDOG2021_SCANNERS)}", "Correct them.")


def check(call: Call) -> list[Finding]:
    """What is missing from the download: the images of the scanners in use, the annotations; MD5 sums if listed."""
    data = call.section("data", Data)
    numbers = [MIDOG2021_SCANNERS[name] for name in (data.source, *data.targets)]
    prefix = "" if data.images == "." else f"{data.images}/"
    images = tuple(name for each in numbers for name in numbered(prefix, each.start, each.stop - 1, ".tiff"))
    wanted = [Files((data.annotations,), "MIDOG.json"), Files(images, "the images of MIDOG 2021's training set")]
    found = check_files(call.data, wanted)
    sums = call.data / _SUMS
    return found + (check_sums(call.data, sums) if call.checksums and sums.is_file() else [])


def prepare_data(call: Call) -> Study:
    """The source scanner's unlabelled tiles, and tiles around the cells of every scanner."""
    data, tile = call.section("data", Data), call.section("tile", TileConfig)
    annotated = read_midog(call.data / data.annotations)
    images = {name: _images(annotated, name, data) for name in (data.source, *data.targets)}
    unlabelled = call.out / "unlabelled"
    source = [_entry(call, data, image) for image in images[data.source]]
    with call.executor(len(source)) as executor:
        call.heard(f"unlabelled tiles, {data.source}", tile_cohort(source, unlabelled, tile, RunOptions(executor)))
    folders = {name: call.out / safe_id(name.replace(" ", "-")) for name in images}
    for name, out in folders.items():
        tasks = [
            LabelTask(TileTask(_entry(call, data, image), out, tile), CellPlaces(_cells(image), CLASSES[::-1]))
            for image in images[name]
            if image.labels
        ]
        call.say(f"{name}: {_counts(images[name])}")
        prepare(call, f"tiles around cells, {name}", cut_labelled, tasks)
    return Study(unlabelled, folders[data.source], {name: folders[name] for name in data.targets}, CLASSES)


def _images(annotated: tuple[AnnotatedImage, ...], scanner: str, data: Data) -> list[AnnotatedImage]:
    own = [image for image in annotated if midog2021_scanner(image.file_name) == scanner]
    own = own[: data.images_per_scanner] if data.images_per_scanner else own
    if not any(image.labels for image in own):
        raise UsageError(f"no cells annotated on images of {scanner}", "annotated images", "Choose another scanner.")
    return own


def _entry(call: Call, data: Data, image: AnnotatedImage) -> SlideEntry:
    """An image is a case, hence a patient."""
    path = call.data / data.images / image.file_name
    scanner = midog2021_scanner(image.file_name)
    return SlideEntry(path, safe_id(path.stem), str(data.mpp), patient=path.stem, site=scanner)


def _cells(image: AnnotatedImage) -> tuple[tuple[float, float, str], ...]:
    return tuple((x, y, label) for (x, y), label in zip(image.centres.tolist(), image.labels, strict=True))


def _counts(images: list[AnnotatedImage]) -> str:
    """For comparison with the paper, which has 665 + 893 of the CS2, 562 + 1,029 of the S360, 438 + 704 of the XR."""
    labels = [label for image in images for label in image.labels]
    return ", ".join(f"{labels.count(kind)} cells labelled {kind}" for kind in CLASSES[::-1])


PIPELINE = Pipeline("midog", __doc__ or "", {"data": Data, "tile": TileConfig}, check, prepare_data)

if __name__ == "__main__":
    sys.exit(main(PIPELINE))
