"""A study from its data to features of every row and seed; scores are made of these (see :mod:`wsi_lmc.study.scoring`).

Any number of processes may work on one study: each row and seed is made by one of them, and what is there stays.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import fingerprint, to_json
from wsi_lmc.publish import exclusive, prepare_output, publish_text, publishing
from wsi_lmc.study.comparators import ROWS
from wsi_lmc.study.config import Study, StudyConfig
from wsi_lmc.study.data import labelled_tiles
from wsi_lmc.study.features import SOURCE, Workshop

SETTINGS = "study.json"
_FREE = ("comparators", "seeds", "device", "compile_views", "head", "stainnet", "staingan", "stainfuser", "virchow")
"""Settings that may change between calls: they decide which rows there are, and change none."""

FeaturesBySite = Mapping[str, Float32[np.ndarray, "_ d"]]


def open_workshop(study: Study, config: StudyConfig, out: Path) -> Workshop:
    """Check that ``out`` is of this study, or new, and open its data.

    Raises:
        UsageError: it is of another study.
    """
    prepare_output(out)
    runs = {SOURCE: study.source, **study.targets}
    sites = {name: labelled_tiles(folder, study.classes) for name, folder in runs.items()}
    settings = {name: value for name, value in dict(_flat(config)).items() if name not in _FREE}
    stores = {name: sorted(store.fingerprint for store in tiles.stores) for name, tiles in sites.items()}
    stated = {"settings": settings, "classes": list(study.classes), "tiles": fingerprint(stores)}
    with exclusive(out, "study"):
        path = out / SETTINGS
        if not path.is_file():
            publish_text(out, path, json.dumps(stated, indent=1) + "\n")
        elif json.loads(path.read_text(encoding="utf-8")) != stated:
            raise UsageError(
                f"{path} is of other settings or tiles", "the same study", "Choose another folder, or remove this one."
            )
    return Workshop(study, config, sites, out)


def make_features(workshop: Workshop, say: Callable[[str], None], seeds: Iterable[int] | None = None) -> bool:
    """Make the features of every row and seed that nobody has made or is making; whether all are there then.

    ``seeds`` are those to look at, by default all.
    """
    config, out = workshop.config, workshop.out
    asked = range(config.seeds) if seeds is None else list(seeds)
    for name in config.left_out if 0 in asked else ():
        say(f"{name}: left out, for its weights are not given")
    wanted = [(row, seed) for seed in asked for row in config.rows if seed < seeds_of(row, config)]
    for row, seed in wanted:
        path = features_path(out, row, seed)
        if path.is_file():
            continue
        with exclusive(out, f"{row}-{seed}", wait_s=0.0) as free:
            if free and not path.is_file():
                say(f"{row}, seed {seed}")
                _keep(out, path, workshop.make(row, seed))
    return all(features_path(out, row, seed).is_file() for row, seed in wanted)


def seeds_of(row: str, config: StudyConfig) -> int:
    """How many seeds a row has: one where nothing in it is random."""
    return config.seeds if ROWS[row].random else 1


def features_path(out: Path, row: str, seed: int) -> Path:
    """Where the features of a row and seed are kept."""
    return out / "features" / f"{row}-{seed}.npz"


def read_features(path: Path) -> dict[str, Float32[np.ndarray, "_ d"]]:
    """Features by site.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise UsageError(f"{path.name} cannot be read ({error})", "features", "Remove it, and run again.") from error


def _keep(out: Path, path: Path, features: FeaturesBySite) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(features))
    with publishing(out, path) as draft:
        draft.write_bytes(buffer.getvalue())


def _flat(config: StudyConfig) -> dict[str, object]:
    found = to_json(config)
    assert isinstance(found, dict)  # noqa: S101  a dataclass
    return found
