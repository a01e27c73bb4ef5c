"""Python, the packages that are required, and those versions of them with known holes."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from wsi_lmc.doctor.check import Check

_OWN = "wsi-lmc"
_OLDEST_PYTHON = (3, 12)


@dataclass(frozen=True)
class Hole:
    """A package that is safe from version ``floor`` on, and what older ones suffer from."""

    package: str
    floor: str
    what: str


HOLES = (
    Hole("openslide-bin", "4.0.1.1", "CVE-2026-48977, in reading slides"),
    Hole("distributed", "2026.1.0", "CVE-2026-23528, in the scheduler"),
    Hole("torch", "2.10", "CVE-2026-24747, in loading weights"),
    Hole("filelock", "4.2.1", "a race over links, in locks"),
)


def checks(out: Path) -> Iterator[Check]:
    """Python, required packages, extras, holes."""
    del out
    yield _python()
    try:
        wanted = [Requirement(text) for text in requires(_OWN) or []]
    except PackageNotFoundError:
        yield Check(_OWN, "warning", "runs from its source, not installed", "Run: pip install . in its folder.")
        wanted = []
    required = [one for one in wanted if _is_for("", one)]
    developers = [one for one in wanted if _is_for("dev", one)]
    yield from _required(required)
    yield from _extras([one for one in wanted if one not in required and one not in developers])
    for hole in HOLES:
        yield _hole(hole)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.platform()}"
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", "failed", found, "Use Python 3.12 or newer.")
    return Check("Python", "ok", found)


def _is_for(extra: str, wanted: Requirement) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _required(wanted: list[Requirement]) -> Iterator[Check]:
    lacking = [check for one in wanted if (check := _lacking(one)) is not None]
    yield from lacking
    if wanted and not lacking:
        yield Check("required packages", "ok", f"all {len(wanted)} are there, and new enough")


def _lacking(wanted: Requirement) -> Check | None:
    found = installed(wanted.name)
    if found is None:
        return Check(wanted.name, "failed", "not installed", f"Run: pip install '{wanted.name}{wanted.specifier}'")
    if not wanted.specifier.contains(found, prereleases=True):
        remedy = f"Run: pip install --upgrade '{wanted.name}{wanted.specifier}'"
        return Check(wanted.name, "failed", f"{found}, expected {wanted.specifier}", remedy)
    return None


def _extras(wanted: list[Requirement]) -> Iterator[Check]:
    """Packages of extras are no duty; but those that are there must be of use."""
    there = sorted({f"{one.name} {installed(one.name)}" for one in wanted if installed(one.name) is not None})
    yield Check("packages of extras", "ok", ", ".join(there) or "none")
    for one in wanted:
        lacking = _lacking(one) if installed(one.name) is not None else None
        if lacking is not None:
            yield Check(lacking.name, "warning", lacking.found, lacking.remedy)


def _hole(hole: Hole) -> Check:
    found = installed(hole.package)
    name = f"{hole.package} without known holes"
    if found is None:
        return Check(name, "warning", "not installed by pip: its version cannot be told", f"Use {hole.floor} or newer.")
    if Version(found) < Version(hole.floor):
        remedy = f"Run: pip install --upgrade '{hole.package}>={hole.floor}'"
        return Check(name, "failed", f"{found} has {hole.what}", remedy)
    return Check(name, "ok", f"{found}, {hole.floor} or newer is safe")


def installed(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
