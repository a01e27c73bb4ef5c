"""How visible a hospital or a staining protocol is to encoders that were trained elsewhere, without any label.

Two measurements of the same encoders, those that ``pipelines.colon`` trained on one hospital's colon tissue:

- five hospitals of Camelyon17 (lymph node): site probe, distances, mixing of neighbours;
- ten staining protocols: the same tiles restained to each by Macenko's method, since no tile was really stained ten
  times. The protocol's visibility, and whether a tile is found again among all tiles in another protocol.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_doc import Doc

from pipelines.common import Call, Pipeline, main
from wsi_lmc.downloads import Finding, Matching, check_files
from wsi_lmc.encoder import ENCODER_FOLDER, load_encoder, resolve_device
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import (
    METRICS,
    EvaluateConfig,
    Evaluation,
    FeatureSet,
    PairFeatures,
    SlideFeatures,
    colour_features,
    evaluate,
    texture_features,
    write_evaluation,
)
from wsi_lmc.imagelists import ImageInputs
from wsi_lmc.normalisers import load_normaliser, normaliser_fingerprint
from wsi_lmc.packing import find_groups, pack_cohort
from wsi_lmc.patches import PackConfig
from wsi_lmc.publish import publish_text
from wsi_lmc.run import RunOptions, find_stores, open_stores
from wsi_lmc.runfolder import list_slides
from wsi_lmc.spreadsheets import to_csv
from wsi_lmc.study.data import normalise_run

Describe = Callable[[np.ndarray], np.ndarray]
_TOGETHER = 64


@dataclass(frozen=True)
class Data:
    """Which tiles, and which encoders look at them."""

    manifest: Annotated[str, Doc("Table of all images: columns file, domain (site) and group.")] = "manifest.csv"
    images: Annotated[str, Doc("Folder of the hospitals' images.")] = "camelyon17_centers"
    protocols: Annotated[str, Doc("Folder of one image a staining protocol.")] = "stain_schemes"
    tile_px: Annotated[int, Doc("Side of a tile.")] = 224
    nominal_mpp: Annotated[float, Doc("Stands for the pixel size, which is not stated.")] = 0.5
    tile_mpp: Annotated[
        float | None, Doc("Pixel size that images are reduced to, by the nominal one; by default they stay.")
    ] = None
    encoders: Annotated[str, Doc("Folder of encoders called ROW-SEED, as a study leaves them.")] = (
        "runs/colon/study/glas_uk/encoders"
    )
    rows: Annotated[tuple[str, ...], Doc("Which of them; untrained needs none.")] = (
        "untrained", "geometry", "geometry-hed", "lmc-paper", "lmc",
    )  # fmt: skip
    seeds: Annotated[int, Doc("How many seeds of each.")] = 1
    architecture: Annotated[str, Doc("Of the untrained network.")] = "vit-demo"


def check(call: Call) -> list[Finding]:
    """Whether images and protocols are there."""
    data = call.section("data", Data)
    wanted = [Matching(f"{data.images}/**/*.*", 2, "hospitals' tiles"), Matching(f"{data.protocols}/*.jpg", 2, "looks")]
    return check_files(call.data, wanted)


def measure(call: Call) -> None:
    """Both measurements for every encoder, and a table of each."""
    data = call.section("data", Data)
    inputs = ImageInputs((call.data / data.images,), call.data / data.manifest, {"site": "domain"})
    config = PackConfig(tile_px=data.tile_px, tile_mpp=data.tile_mpp, nominal_mpp=data.nominal_mpp)
    groups, notes = find_groups(inputs, call.out / "tiles", config)
    for note in notes:
        call.say(note)
    with call.executor(len(groups)) as executor:
        call.heard("tiles", pack_cohort(groups, call.out / "tiles", config, RunOptions(executor)))
    looks = _restain(call, data)
    by_hospital: list[Evaluation] = []
    by_protocol: list[Evaluation] = []
    for seed in range(data.seeds):
        describe = _encoders(data, seed)
        names = ", ".join(describe)
        call.say(f"seed {seed}: {names}")
        sets = [_hospitals(call.out / "tiles", name, each) for name, each in describe.items()]
        by_hospital.append(evaluate(sets, EvaluateConfig(by="hospital", seed=seed)))
        restained, pairs = _protocols(call.out / "tiles", looks, describe)
        by_protocol.append(evaluate(restained, EvaluateConfig(by="protocol", seed=seed), pairs))
        if seed == 0:
            write_evaluation(by_hospital[0], sets, call.out / "hospitals")
            write_evaluation(by_protocol[0], restained, call.out / "protocols")
    for name, found in (("hospitals", by_hospital), ("protocols", by_protocol)):
        publish_text(call.out, call.out / f"{name}.csv", _table(found))
        call.say(_markdown(name, found))


def _encoders(data: Data, seed: int) -> dict[str, Describe]:
    """Features of tiles by row; colour and texture have no seed."""
    found: dict[str, Describe] = {"colour": colour_features, "texture": texture_features} if seed == 0 else {}
    for row in data.rows:
        spec = f"untrained:{data.architecture}@{seed}" if row == "untrained" else f"{data.encoders}/{row}-{seed}"
        if row != "untrained" and not (Path(spec) / ENCODER_FOLDER).is_dir():
            raise UsageError(f"no encoder {spec}", "what pipelines.colon trained", "Run it first, or correct encoders.")
        found[row] = _embedding(spec, data.tile_px)
    return found


def _embedding(spec: str, px: int) -> Describe:
    encoder = load_encoder(spec, resolve_device("auto"), tile_px=px)

    def embed(tiles: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(tiles).split(_TOGETHER)
        return np.concatenate([encoder.embed(part).float().cpu().numpy() for part in parts])

    return embed


def _hospitals(run_folder: Path, name: str, describe: Describe) -> FeatureSet:
    entries = {entry.slide_id: entry for entry in list_slides(run_folder)}
    slides = [
        SlideFeatures(store.slide_id, entries[store.slide_id].patient, entries[store.slide_id].site,
                      describe(store.read(np.arange(len(store)))), np.full(len(store), -1))
        for store in open_stores(find_stores([run_folder]))
    ]  # fmt: skip
    return FeatureSet(name, tuple(slides), (), sum(len(slide.labels) for slide in slides))


def _restain(call: Call, data: Data) -> list[Path]:
    """The hospitals' tiles in every protocol, a run folder each, made once for all encoders."""
    found: list[Path] = []
    device = torch.device("cpu")
    for look in sorted((call.data / data.protocols).glob("*.jpg")):
        restain = load_normaliser("macenko", str(look), None, device)
        assert restain is not None  # noqa: S101  for it is not "none"
        made_by = normaliser_fingerprint("macenko", str(look), None)
        found.append(call.out / "protocols" / "tiles" / look.stem)
        normalise_run(call.out / "tiles", found[-1], restain, made_by, device)
    return found


def _protocols(
    run_folder: Path, looks: Sequence[Path], describe: dict[str, Describe]
) -> tuple[list[FeatureSet], dict[str, PairFeatures]]:
    """The tiles in every protocol as sets, and each tile's pairs in one protocol and the next."""
    patients = {entry.slide_id: entry.patient for entry in list_slides(run_folder)}
    found: dict[str, list[SlideFeatures]] = {name: [] for name in describe}
    for look in looks:
        for store in open_stores(find_stores([look])):
            tiles = store.read(np.arange(len(store)))
            named = f"{look.name}-{store.slide_id}", patients[store.slide_id], look.name
            for name, each in describe.items():
                found[name].append(SlideFeatures(*named, each(tiles), np.full(len(tiles), -1)))
    pairs = {name: _pairs(slides, len(looks)) for name, slides in found.items()}
    count = sum(len(slide.labels) for slide in next(iter(found.values())))
    return [FeatureSet(name, tuple(slides), (), count) for name, slides in found.items()], pairs


def _pairs(slides: Sequence[SlideFeatures], protocols: int) -> PairFeatures:
    """Every tile once, in one protocol beside itself in the next; features centred over all protocols.

    All pairs of neighbouring protocols occur, a tile's number says which is its own: were a tile to stand there in
    several protocols, it would be found itself, or in another protocol, before its pair.
    """
    count = len(slides) // protocols
    every = np.stack([np.concatenate([slide.features for slide in slides[start * count : (start + 1) * count]])
                      for start in range(protocols)])  # fmt: skip
    groups = np.unique([slide.patient for slide in slides[:count] for _ in slide.labels], return_inverse=True)[1]
    centred = every - every.mean(axis=(0, 1))  # an untrained network's features all point one way
    tile = np.arange(len(groups))
    own = tile % (protocols - 1)
    return PairFeatures(centred[own, tile], centred[own + 1, tile], groups.astype(np.int64))


def _values(found: Sequence[Evaluation]) -> dict[str, dict[str, list[float]]]:
    """Values of every seed by row and metric."""
    values: dict[str, dict[str, list[float]]] = {}
    for evaluation in found:
        for encoder in evaluation.encoders:
            for metric in METRICS:
                measure_ = encoder.find(metric)
                if measure_ is not None:
                    values.setdefault(encoder.name, {}).setdefault(metric, []).append(measure_.value)
    return values


def _table(found: Sequence[Evaluation]) -> str:
    rows = [
        (name, metric, float(np.mean(each)), float(np.std(each, ddof=1)) if len(each) > 1 else 0.0, len(each))
        for name, metrics in _values(found).items()
        for metric, each in metrics.items()
    ]
    return to_csv(("row", "metric", "mean", "sd over seeds", "seeds"), rows)


def _markdown(name: str, found: Sequence[Evaluation]) -> str:
    values = _values(found)
    metrics = [metric for metric in METRICS if any(metric in each for each in values.values()) and metric != "w2"]
    lines = [f"| {name} | {' | '.join(metrics)} |", f"|{'---|' * (len(metrics) + 1)}"]
    for row, each in values.items():
        cells = [f"{np.mean(each[m]):.3f}" if m in each else "-" for m in metrics]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


PIPELINE = Pipeline("centres", __doc__ or "", {"data": Data}, check, measure)

if __name__ == "__main__":
    sys.exit(main(PIPELINE))
