"""Which slides a folder of TRIDENT or CLAM holds features of, and what a manifest says of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_lmc.cohort import SlideEntry, mark_duplicates, read_manifest, safe_id
from wsi_lmc.errors import UsageError
from wsi_lmc.featurestore import FEATURE_FILES
from wsi_lmc.importing.foreign import Files, Layout
from wsi_lmc.importing.reading import TENSOR
from wsi_lmc.pseudonyms import check_map_place, give_pseudonyms

_FEATURES = "features_"
_CLAM_H5, _CLAM_PT, _PATCHES = "h5_files", "pt_files", "patches"


@dataclass(frozen=True)
class ImportInputs:
    """What is imported: a folder of ``layout``; ``patches`` is one of coordinates, where it lies elsewhere."""

    layout: Layout
    folder: Path
    encoder: str | None = None
    patches: Path | None = None
    manifest: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A slide that may be imported: ``known`` says that the user's manifest has a row of it."""

    entry: SlideEntry
    files: Files
    encoder: str
    known: bool = False


@dataclass(frozen=True)
class _Places:
    """Where features lie, and coordinates, below ``root``; ``suffix`` stands before the latter's ``.h5``."""

    root: Path
    features: tuple[Path, ...]
    coordinates: Path
    suffix: str
    encoder: str


def find_imports(inputs: ImportInputs) -> tuple[list[Candidate], list[str]]:
    """Slides of a folder by id, and notes on what the manifest has and the folder lacks, or the other way round.

    Raises:
        UsageError: no such folder, no features in it, several encoders or patchings, or none that is named.
    """
    for folder in (inputs.folder, *([inputs.patches] if inputs.patches else [])):
        if not folder.is_dir():
            raise UsageError(f"no folder {folder}", "a folder that TRIDENT or CLAM wrote", "Check the path.")
    places = (_places_of_trident if inputs.layout == "trident" else _places_of_clam)(inputs)
    paths = _feature_files(places.features)
    if not paths:
        raise UsageError(
            f"no features in {', '.join(map(str, places.features))}", "files ending in .h5 or .pt", "Check the folder."
        )
    folders = (inputs.folder, places.root, *([inputs.patches] if inputs.patches else []))
    rows, notes = _rows_for(paths, inputs.manifest)
    found = []
    for path, entry in zip(paths, mark_duplicates([rows.get(path) or _entry(path) for path in paths]), strict=True):
        coordinates = places.coordinates / f"{path.stem}{places.suffix}.h5"
        files = Files(path, coordinates if coordinates.exists() or coordinates.is_symlink() else None, folders)
        found.append(Candidate(entry, files, places.encoder, path in rows))
    return sorted(found, key=lambda each: each.entry.slide_id), notes


def hide(candidates: Sequence[Candidate], pseudonyms: Path, out: Path) -> list[Candidate]:
    """The same slides behind the ids of a map, which names the files of features.

    Raises:
        UsageError: as :func:`wsi_lmc.pseudonyms.give_pseudonyms`, or the map lies in ``out``.
    """
    check_map_place(pseudonyms, out)
    hidden = give_pseudonyms([candidate.entry for candidate in candidates], pseudonyms)
    return [replace(each, entry=entry) for each, entry in zip(candidates, hidden, strict=True)]


def _places_of_trident(inputs: ImportInputs) -> _Places:
    folder = inputs.folder
    if folder.name.startswith(_FEATURES):
        patching, encoders = folder.parent, {folder.name.removeprefix(_FEATURES): folder}
    else:
        patchings = [each for each in (folder, *_folders(folder)) if _encoders(each)]
        if len(patchings) != 1:
            names = ", ".join(each.name for each in patchings) or "none"
            raise UsageError(
                f"{folder} holds features of {len(patchings)} patchings: {names}",
                "one folder such as 20x_256px_0px_overlap, with folders features_NAME in it",
                "Name one of them." if patchings else "Name the folder that TRIDENT got by --job_dir.",
            )
        patching, encoders = patchings[0], _encoders(patchings[0])
    wanted = inputs.encoder if inputs.encoder is not None else next(iter(encoders))
    if wanted not in encoders or (inputs.encoder is None and len(encoders) > 1):
        raise UsageError(
            f"features of {', '.join(encoders)}" + (f", not of {wanted}" if wanted not in encoders else ""),
            "one encoder",
            "Name it with --encoder; import each into a folder of its own.",
        )
    patches = _patches_in(inputs.patches) if inputs.patches else patching / _PATCHES
    return _Places(patching, (encoders[wanted],), patches, "_patches", safe_id(wanted))


def _places_of_clam(inputs: ImportInputs) -> _Places:
    folder = inputs.folder
    features = tuple(path for name in (_CLAM_H5, _CLAM_PT) if (path := folder / name).is_dir())
    if not features:
        raise UsageError(
            f"neither {_CLAM_H5} nor {_CLAM_PT} in {folder}",
            "the folder that CLAM got by --feat_dir",
            "Name that folder; give the one of the patches with --patches.",
        )
    if inputs.encoder is None:
        raise UsageError(
            "no --encoder, and CLAM's files name none", "the encoder of these features", "Name it, as uni_v1."
        )
    return _Places(folder, features, _patches_in(inputs.patches or folder), "", safe_id(inputs.encoder))


def _patches_in(folder: Path) -> Path:
    """A folder of patches' files, or the one in it that has them."""
    return folder / _PATCHES if (folder / _PATCHES).is_dir() else folder


def _encoders(folder: Path) -> dict[str, Path]:
    return {path.name.removeprefix(_FEATURES): path for path in _folders(folder) if path.name.startswith(_FEATURES)}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _feature_files(folders: Iterable[Path]) -> list[Path]:
    """One file a slide: HDF5, or a tensor where there is none."""
    found: dict[str, Path] = {}
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for tensors in (False, True):
        for path in paths:
            if path.suffix in FEATURE_FILES and (path.suffix == TENSOR) == tensors:
                found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def _entry(path: Path) -> SlideEntry:
    return SlideEntry(path, safe_id(path.stem))


def _rows_for(paths: Sequence[Path], manifest: Path | None) -> tuple[dict[Path, SlideEntry], list[str]]:
    """Rows of a manifest by the file of features they are of: by the slide's file name, or by its id.

    Raises:
        UsageError: two rows fit one file.
    """
    if manifest is None:
        return {}, []
    by_name: Mapping[str, list[SlideEntry]] = defaultdict(list)
    rows = read_manifest(manifest)
    for row in rows:
        for name in {row.slide_id, *_names(row.path)}:
            by_name[name].append(row)
    found: dict[Path, SlideEntry] = {}
    for path in paths:
        fitting = by_name.get(path.stem) or by_name.get(safe_id(path.stem)) or []
        if len(fitting) > 1:
            raise UsageError(f"{len(fitting)} rows of {manifest} fit {path.name}", "one row a slide", "Mend it.")
        if fitting:
            found[path] = replace(fitting[0], path=path)
    used = {entry.slide_id for entry in found.values()}
    left = [row.slide_id for row in rows if row.slide_id not in used]
    return found, [*_note(left, "slides of the manifest have no features"), *_unlisted(paths, found)]


def _unlisted(paths: Sequence[Path], found: Mapping[Path, SlideEntry]) -> list[str]:
    return _note([safe_id(path.stem) for path in paths if path not in found], "slides stand in no row of the manifest")


def _note(names: Sequence[str], said: str) -> list[str]:
    return [f"{len(names)} {said}"] if names else []


def _names(slide: Path) -> set[str]:
    """What a slide's features may be called: its file's name without its suffix; .ome.tif counts as one."""
    return {slide.stem, slide.stem.removesuffix(".ome")}
