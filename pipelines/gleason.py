"""Gleason grades of prostate tissue, from one cohort to another.

The paper's cohorts (biopsies as source, prostatectomies as target, six classes) are its authors' own. Here any two
cohorts with masks of grades take their places; the classes are those that both know. An encoder is trained on all of
the source's tiles without labels, a classifier on its labelled tiles, tested on the target's; accuracy is reported.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_doc import Doc

from pipelines.common import Call, Pipeline, main
from pipelines.images import Grades, ImageTask, cut_image
from pipelines.places import MaskPlaces
from pipelines.preparing import LabelTask, cut_labelled, prepare
from wsi_lmc.annotations import CODINGS, read_sicap_partition
from wsi_lmc.cohort import SlideEntry, read_rows, safe_id
from wsi_lmc.downloads import Archive, Finding, Matching, check_files
from wsi_lmc.errors import UsageError
from wsi_lmc.steps.tile import TileConfig, TileTask
from wsi_lmc.study import Study

SICAPV2 = Archive("SICAPv2.zip", 2_159_052_394, "a28aa6a0e3831217bf31575cecfc1846607ace7ff25a4392f07052bbc7355916")


@dataclass(frozen=True)
class Cohort:
    """One cohort: images or slides, and a mask of grades for each, or one label."""

    name: Annotated[str, Doc("What the site is called.")] = ""
    kind: Annotated[Literal["images", "slides"], Doc("images: PNG or JPEG; slides: pyramids with their masks.")] = (
        "images"
    )
    images: Annotated[str, Doc("Pattern of the files, from the download's folder, such as img/*.jpg.")] = ""
    masks: Annotated[str, Doc("A file's mask, with {} for the name without suffix; empty where labels are given.")] = ""
    masked_only: Annotated[bool, Doc("Leave out images without a mask; otherwise each of them is told as failed.")] = (
        False
    )
    mask_page: Annotated[int, Doc("Of masks that are pyramids: which level is read.")] = 0
    coding: Annotated[str, Doc("What the masks' values mean; see wsi_lmc/annotations/gleason.py.")] = ""
    sicap_partition: Annotated[
        str,
        Doc("SICAPv2: a partition table saved as CSV; only its images are used, with its labels in place of masks."),
    ] = ""
    mpp: Annotated[float, Doc("Microns per pixel of the images; 0 for slides that state it.")] = 0.0
    group: Annotated[str, Doc("Regular expression whose first group, in a file's name, is the patient.")] = "(.*)"
    patients: Annotated[str, Doc("CSV of columns group and patient, where the group is not the patient yet.")] = ""
    only: Annotated[str, Doc("CSV with a column image_id: only these are used.")] = ""
    only_provider: Annotated[str, Doc("Of these only rows whose column data_provider says so (PANDA).")] = ""

    def __post_init__(self) -> None:
        if self.coding not in CODINGS and (self.masks or self.coding):
            raise UsageError(f"coding {self.coding!r}", f"one of {', '.join(CODINGS)}", "Name the cohort's coding.")


@dataclass(frozen=True)
class Data:
    """What tiles count."""

    classes: Annotated[tuple[str, ...], Doc("Classes that are told apart; both cohorts must know them.")] = ()
    least: Annotated[float, Doc("A tile has the class that covers most of it, and at least this share.")] = 0.5


def check(call: Call) -> list[Finding]:
    """What is missing from the downloads: images, masks, tables."""
    found = check_files(call.data, [SICAPV2], call.checksums)
    for section in ("source", "target"):
        cohort = call.section(section, Cohort)
        found += check_files(call.data, [Matching(cohort.images, 1, f"the images of {cohort.name}")])
        masks = [_mask(call, cohort, path) for path in sorted(call.data.glob(cohort.images)) if cohort.masks]
        missing = [mask for mask in masks if mask is not None and not mask.is_file()]
        if missing and (len(missing) == len(masks) or not cohort.masked_only):
            text = f"{len(missing)} of {len(masks)} masks of {cohort.name} missing, such as {missing[0]}"
            found.append(Finding(text, "Download the masks, or name them with masks."))
        tables = [call.data / name for name in (cohort.patients, cohort.only, cohort.sicap_partition) if name]
        found += [Finding(f"no table {table}", "See docs/data.md.") for table in tables if not table.is_file()]
    return found


def prepare_data(call: Call) -> Study:
    """Tiles of both cohorts with the grade of most of their area; the source's are trained on without labels, too."""
    data = call.section("data", Data)
    cohorts = {role: call.section(role, Cohort) for role in ("source", "target")}
    names = [cohort.name for cohort in cohorts.values()]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"cohorts named {names}", "two different names", "Name them.")
    folders = {role: call.out / safe_id(cohort.name) for role, cohort in cohorts.items()}
    for role, cohort in cohorts.items():
        _check_classes(cohort, data)
        _prepare_cohort(call, cohort, folders[role], data)
    target = {cohorts["target"].name: folders["target"]}
    return Study(folders["source"], folders["source"], target, data.classes)


def _prepare_cohort(call: Call, cohort: Cohort, out: Path, data: Data) -> None:
    tile = call.section("tile", TileConfig)
    labels = read_sicap_partition(call.data / cohort.sicap_partition) if cohort.sicap_partition else None
    entries = _entries(call, cohort, None if labels is None else set(labels))
    tasks = [TileTask(entry, out, tile) for entry in entries]
    stage = f"tiles of {cohort.name}"
    if cohort.kind == "slides":
        places = [_mask_places(call, cohort, entry, data) for entry in entries]
        prepare(call, stage, cut_labelled, [LabelTask(*each) for each in zip(tasks, places, strict=True)])
        return
    grades = [_grades(call, cohort, entry, (labels or {}, data.least)) for entry in entries]
    prepare(call, stage, cut_image, [ImageTask(*each) for each in zip(tasks, grades, strict=True)])


def _entries(call: Call, cohort: Cohort, listed: set[str] | None) -> list[SlideEntry]:
    """The cohort's images, with patients."""
    patients = _patients(call.data / cohort.patients) if cohort.patients else {}
    only = _only(call.data / cohort.only, cohort.only_provider) if cohort.only else None
    entries: list[SlideEntry] = []
    for path in sorted(call.data.glob(cohort.images)):
        if (listed is not None and path.name not in listed) or (only is not None and path.stem not in only):
            continue
        mask = _mask(call, cohort, path)
        if cohort.masked_only and mask is not None and not mask.is_file():
            continue
        match = re.match(cohort.group, path.stem)
        if match is None or not match.groups():
            raise UsageError(f"{path.name} is not of the form {cohort.group!r}", "a patient in it", "Correct group.")
        patient = patients.get(match[1], "") if cohort.patients else match[1]
        if not patient:
            raise UsageError(f"{match[1]} ({path.name}) stands not in {cohort.patients}", "a patient", "Complete it.")
        mpp = str(cohort.mpp) if cohort.mpp else None
        if mpp is None and cohort.kind == "images":
            raise UsageError(f"microns per pixel of {cohort.name} are unknown", "mpp", "State them; see docs/data.md.")
        entries.append(SlideEntry(path, safe_id(path.stem), mpp, patient, cohort.name))
    if not entries:
        raise UsageError(f"no images {cohort.images} in {call.data}", "images", "Run with --check.")
    return entries


def _check_classes(cohort: Cohort, data: Data) -> None:
    known = CODINGS[cohort.coding].classes + (("benign",) if cohort.sicap_partition else ()) if cohort.coding else ()
    missing = [name for name in data.classes if name not in known]
    if missing or len(data.classes) < 2:
        found = f"classes {', '.join(data.classes) or 'none'}; {cohort.name} knows {', '.join(known) or 'none'}"
        raise UsageError(found, "two classes or more that both cohorts know", "Correct classes.")


def _mask(call: Call, cohort: Cohort, path: Path) -> Path | None:
    return call.data / cohort.masks.replace("{}", path.stem) if cohort.masks else None


def _mask_places(call: Call, cohort: Cohort, entry: SlideEntry, data: Data) -> MaskPlaces:
    mask = _mask(call, cohort, entry.path)
    if mask is None:
        raise UsageError(f"no masks of {cohort.name}", "masks of slides", "Name them with masks.")
    return MaskPlaces(mask, cohort.coding, cohort.mask_page, data.least)


def _grades(call: Call, cohort: Cohort, entry: SlideEntry, known: tuple[dict[str, str], float]) -> Grades:
    """The image's own label where a table gives it, otherwise its mask."""
    labels, least = known
    if entry.path.name in labels:
        return Grades(label=labels[entry.path.name])
    return Grades(_mask(call, cohort, entry.path), cohort.coding, least)


def _patients(path: Path) -> dict[str, str]:
    columns = ("group", "patient")
    return {row.cells["group"]: row.cells["patient"] for row in read_rows(path, columns, columns)}


def _only(path: Path, provider: str) -> set[str]:
    needed = ("image_id", *(("data_provider",) if provider else ()))
    rows = [row.cells for row in read_rows(path, needed, ("image_id", "data_provider"))]
    return {row["image_id"] for row in rows if not provider or row["data_provider"] == provider}


SECTIONS = {"data": Data, "source": Cohort, "target": Cohort, "tile": TileConfig}
PIPELINE = Pipeline("gleason", __doc__ or "", SECTIONS, check, prepare_data)

if __name__ == "__main__":
    sys.exit(main(PIPELINE))
