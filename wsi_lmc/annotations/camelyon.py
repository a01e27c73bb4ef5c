"""Tables of Camelyon16 and Camelyon17, and PathoROB's choice of patches from them."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_lmc.annotations.files import not_of, read_limited
from wsi_lmc.cohort import read_rows

RADBOUD, UTRECHT = "Radboud", "Utrecht"
_LAST_OF_RADBOUD = {"normal": 100, "tumor": 70}
_LAST = {"normal": 160, "tumor": 111}
_NAME = re.compile(r"(normal|tumor)_([0-9]{3})", re.IGNORECASE)
_STAGES = ("negative", "itc", "micro", "macro")
_PATIENT_STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")
_PATHOROB = ("subset", "slide_id", "patch_id", "biological_class", "medical_center")


def camelyon16_site(slide_id: str) -> str:
    """Where a training slide of Camelyon16 comes from, by its number; empty for test slides, which do not tell.

    Radboud: normal_001 to 100, tumor_001 to 070; Utrecht: normal_101 to 160, tumor_071 to 111. PathoROB's table and
    FLamby's metadata (after its correction of tumor_096) agree.
    """
    match = _NAME.fullmatch(slide_id)
    if match is None or not 1 <= int(match[2]) <= _LAST[match[1].lower()]:
        return ""
    return RADBOUD if int(match[2]) <= _LAST_OF_RADBOUD[match[1].lower()] else UTRECHT


@dataclass(frozen=True)
class SlideReference:
    """What Camelyon16's ``reference.csv`` says of a test slide; ``metastasis`` is the size of the largest, or None."""

    slide_id: str
    tumour: bool
    carcinoma: str
    metastasis: Literal["Macro", "Micro", "None"]


def read_reference(path: Path) -> tuple[SlideReference, ...]:
    """Rows of ``reference.csv``: slide, Tumor or Normal, type of carcinoma, Macro, Micro or None; no line of names.

    Raises:
        UsageError: no such file, or a row of another form.
    """
    expected = "rows such as test_001,Tumor,IDC,Macro"
    found: list[SlideReference] = []
    for number, row in enumerate(_rows(path, expected), 1):
        cells = [cell.strip() for cell in row]
        match cells:
            case [slide_id, "Tumor" | "Normal" as kind, carcinoma, "Macro" | "Micro" | "None" as size]:
                found.append(SlideReference(Path(slide_id).stem, kind == "Tumor", carcinoma, size))
            case _ if number == 1 and "Tumor" not in cells and "Normal" not in cells:
                continue  # names of columns, which some copies have
            case _:
                raise not_of(path, expected, f"row {number} is {','.join(cells)[:80]!r}")
    return tuple(found)


def read_stages(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Camelyon17's ``stage_labels.csv``: stages of slides (negative, itc, micro, macro), and of patients (pN0 ... pN2).

    Raises:
        UsageError: no such file, or a stage nobody knows.
    """
    slides: dict[str, str] = {}
    patients: dict[str, str] = {}
    for row in read_rows(path, ("patient", "stage"), ("patient", "stage")):
        name, stage = row.cells["patient"], row.cells["stage"]
        is_patient = name.endswith(".zip")
        if stage not in (_PATIENT_STAGES if is_patient else _STAGES):
            known = ", ".join((*_STAGES, *_PATIENT_STAGES))
            raise not_of(path, f"stages {known}", f"line {row.line}: {name[:40]!r} has stage {stage[:40]!r}")
        (patients if is_patient else slides)[Path(name).stem] = stage
    return slides, patients


@dataclass(frozen=True)
class PathoRobPatch:
    """A patch of Camelyon16 that PathoROB chose; ``patch_id`` counts the patches of its slide in PathoROB's tiling."""

    slide_id: str
    patch_id: int
    label: str
    centre: str


def read_pathorob(path: Path) -> tuple[PathoRobPatch, ...]:
    """PathoROB's table of patches.

    Raises:
        UsageError: no such file, a column is missing, or a patch has no number.
    """
    found: list[PathoRobPatch] = []
    for row in read_rows(path, _PATHOROB, _PATHOROB):
        cells = row.cells
        if not cells["patch_id"].isdecimal():
            raise not_of(path, "numbers of patches", f"line {row.line}: patch_id {cells['patch_id'][:40]!r}")
        patch = PathoRobPatch(
            cells["slide_id"], int(cells["patch_id"]), cells["biological_class"], cells["medical_center"]
        )
        found.append(patch)
    return tuple(found)


def _rows(path: Path, expected: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(read_limited(path).decode("utf-8-sig").splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise not_of(path, expected, str(error)[:100]) from error
