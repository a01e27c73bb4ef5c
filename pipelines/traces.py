"""From what an encoder knows a tile's hospital, and whether that hinders transfer: take it out of the tiles and see.

Looks at the encoders that ``pipelines.colon`` trained (``--data`` is the folder of its results). The tiles of all sites
are changed alike, so that they differ no longer in one respect: in colour, in mean colour and contrast, in sharpness.
Then two questions are asked of every encoder and every pair of sites: does a linear probe still tell the two sites
apart, and what does a classifier of the one site's labels reach at the other? A diagnosis and no method of
normalisation: the statistics that tiles are brought to are taken over source and target together.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from annotated_doc import Doc
from jaxtyping import Float, Float64, UInt8
from scipy.fft import dctn, idctn

from pipelines.common import Call, Pipeline, main
from wsi_lmc.downloads import Finding
from wsi_lmc.encoder import ENCODER_FOLDER, load_encoder, resolve_device
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import colour_features, texture_features
from wsi_lmc.publish import publish_text, publishing
from wsi_lmc.spreadsheets import to_csv
from wsi_lmc.study.data import LabelledTiles, labelled_tiles
from wsi_lmc.study.features import SOURCE
from wsi_lmc.study.scoring import Cell, Marking, Predicted, score_rows

Describe = Callable[[UInt8[np.ndarray, "n h w 3"]], np.ndarray]
Change = Callable[[UInt8[np.ndarray, "n h w 3"]], UInt8[np.ndarray, "n h w 3"]]

_TOGETHER = 64
_MOST_GAIN = 8.0  # of one frequency: beyond it rounding to 8 bits would be what is seen
_GREY = np.asarray([0.299, 0.587, 0.114])
_FEATURES_ALONE: dict[str, Describe] = {"colour": colour_features, "texture": texture_features}


@dataclass(frozen=True)
class Data:
    """Which sites' tiles, and which encoders look at them."""

    sites: Annotated[tuple[str, ...], Doc("Run folders below DATA/sites, each the source of one study.")] = (
        "glas_uk", "lc25000_us_224", "kather2016_de",
    )  # fmt: skip
    classes: Annotated[tuple[str, ...], Doc("Labels that count; the second is the positive one.")] = (
        "benign", "malignant",
    )  # fmt: skip
    rows: Annotated[tuple[str, ...], Doc("Encoders, as the colon study's rows; colour and texture need none.")] = (
        "colour", "texture", "untrained", "supervised", "geometry", "geometry-hed", "lmc",
    )  # fmt: skip
    seeds: Annotated[int, Doc("How many seeds of each.")] = 2
    architecture: Annotated[str, Doc("Of the untrained network.")] = "vit-demo"


@dataclass(frozen=True)
class Look:
    """What tiles of all sites are brought to: each site counts alike, whatever its number of tiles."""

    mean: Float64[np.ndarray, " 3"]
    deviation: Float64[np.ndarray, " 3"]
    amplitude: Float64[np.ndarray, " rings"]

    @classmethod
    def of(cls, sites: Sequence[UInt8[np.ndarray, "_ h w 3"]]) -> "Look":
        """Mean colour, contrast and amplitude of each ring of frequencies."""
        parts = [(tiles.mean((0, 1, 2)), tiles.std((1, 2)).mean(0), _amplitudes(_cosines(_grey(tiles))).mean(0))
                 for tiles in sites]  # fmt: skip
        return cls(*(np.mean(column, axis=0) for column in zip(*parts, strict=True)))

    def changes(self) -> dict[str, Change]:
        """Every change by name; the last takes out all that the others do."""
        return {
            "as they are": lambda tiles: tiles,
            "grey": lambda tiles: _bytes(np.repeat(_grey(tiles)[..., None], 3, axis=-1)),
            "same mean and contrast": self.recoloured,
            "same sharpness": self.sharpened,
            "grey, same contrast and sharpness": lambda tiles: self.recoloured(
                _bytes(np.repeat(_grey(self.sharpened(tiles))[..., None], 3, axis=-1)), grey=True
            ),
        }

    def recoloured(self, tiles: UInt8[np.ndarray, "n h w 3"], grey: bool = False) -> UInt8[np.ndarray, "n h w 3"]:
        """Every tile with the same mean and deviation of each channel (of all channels alike where they are grey)."""
        mean, deviation = tiles.mean((1, 2), keepdims=True), tiles.std((1, 2), keepdims=True)
        wanted = (self.mean.mean(), self.deviation.mean()) if grey else (self.mean, self.deviation)
        return _bytes((tiles - mean) / np.maximum(deviation, 1.0) * wanted[1] + wanted[0])

    def sharpened(self, tiles: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Every tile with the same amplitude of grey at each frequency, the mean aside; all channels change alike."""
        own = _amplitudes(_cosines(_grey(tiles)))
        gain = np.clip(self.amplitude / np.maximum(own, 1e-3), 1.0 / _MOST_GAIN, _MOST_GAIN)
        gain[:, 0] = 1.0
        spread = gain[:, _rings(tiles.shape[1])]
        changed = idctn(_cosines(tiles) * spread[..., None], axes=(1, 2), norm="ortho")
        return _bytes(np.asarray(changed))


@dataclass(frozen=True)
class Encoders:
    """What looks at tiles of ``px`` pixels: encoders of a colon study's results, or plain features."""

    results: Path
    data: Data
    px: int = 0

    @property
    def taught(self) -> list[str]:
        """Rows that a study has to have trained."""
        return [row for row in self.data.rows if row != "untrained" and row not in _FEATURES_ALONE]

    def folder(self, source: str, row: str, seed: int) -> Path:
        """Where a study leaves a row's encoder."""
        return self.results / "study" / source / "encoders" / f"{row}-{seed}"

    def describe(self, source: str, row: str, seed: int) -> Describe:
        """What gives a row's features."""
        if row in _FEATURES_ALONE:
            return _FEATURES_ALONE[row]
        own = row == "untrained"
        spec = f"untrained:{self.data.architecture}@{seed}" if own else str(self.folder(source, row, seed))
        encoder = load_encoder(spec, resolve_device("auto"), tile_px=self.px)
        return lambda tiles: encoder.embed(torch.from_numpy(tiles)).float().cpu().numpy()


def check(call: Call) -> list[Finding]:
    """Whether tiles and encoders are there."""
    data = call.section("data", Data)
    folders = [call.data / "sites" / site / "tiles" for site in data.sites]
    encoders = Encoders(call.data, data)
    folders += [encoders.folder(source, row, seed) / ENCODER_FOLDER
                for source in data.sites for row in encoders.taught for seed in range(data.seeds)]  # fmt: skip
    return [Finding(f"no folder {folder}", "Run pipelines.colon first.") for folder in folders if not folder.is_dir()]


def diagnose(call: Call) -> None:
    """Tables of both questions, and a picture of what the changes do."""
    data = call.section("data", Data)
    missing = check(call)
    if missing:
        raise UsageError(missing[0].found, "results of pipelines.colon, all its rows and seeds", missing[0].remedy)
    sites = {site: labelled_tiles(call.data / "sites" / site, data.classes) for site in data.sites}
    pixels = {site: np.concatenate(list(tiles.blocks())) for site, tiles in sites.items()}
    changes = Look.of(list(pixels.values())).changes()
    encoders = Encoders(call.data, data, next(iter(pixels.values())).shape[1])
    lines: list[Sequence[object]] = []
    shown: dict[str, list[np.ndarray]] = {site: [] for site in sites}
    for name, change in changes.items():
        changed = {site: _by_parts(change, tiles) for site, tiles in pixels.items()}
        for site, tiles in changed.items():
            shown[site].append(tiles[len(tiles) // 2])
        for row in data.rows:
            call.say(f"{name}: {row}")
            for pair, (told, auroc) in _both(encoders, row, sites, changed).items():
                lines.append((name, row, pair, told, auroc.value, auroc.low, auroc.high, auroc.seed_sd))
    columns = ("tiles", "row", "pair", "site told", "AUROC", "low", "high", "sd over seeds")
    publish_text(call.out, call.out / "traces.csv", to_csv(columns, lines))
    with publishing(call.out, call.out / "changes.png") as draft:
        picture = np.concatenate([np.concatenate(tiles, axis=1) for tiles in shown.values()])
        draft.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    for title, place in (("site told", 3), ("AUROC", 4)):
        call.say(_markdown(title, [(str(line[0]), str(line[1]), float(str(line[place]))) for line in lines]))


def _both(
    encoders: Encoders, row: str, sites: Mapping[str, LabelledTiles], pixels: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, Cell]]:
    """Of one row and every pair of source and target: how well the two are told apart, and the AUROC there."""
    found: dict[str, list[Predicted]] = {}
    for source in sites:
        for seed in range(1 if row in _FEATURES_ALONE else encoders.data.seeds):
            describe = encoders.describe(source, row, seed)
            features = {site: _by_parts(describe, tiles) for site, tiles in pixels.items()}
            for target in (site for site in sites if site != source):
                marking = Marking({SOURCE: sites[source], target: sites[target]}, encoders.data.classes)
                marked = marking.mark({SOURCE: features[source], target: features[target]}, seed)
                found.setdefault(f"{source} > {target}", []).append(marked)
    scores = {score.row: score for score in score_rows(found, "", encoders.data.classes)}
    return {
        pair: (float("nan") if score.site is None else score.site, score.mean["AUROC"])
        for pair, score in scores.items()
    }


def _by_parts(call: Callable[[np.ndarray], np.ndarray], tiles: np.ndarray) -> np.ndarray:
    return np.concatenate([call(tiles[start : start + _TOGETHER]) for start in range(0, len(tiles), _TOGETHER)])


def _grey(tiles: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, "n h w"]:
    return tiles @ _GREY


def _cosines(values: Float[np.ndarray, "n h w *c"] | UInt8[np.ndarray, "n h w *c"]) -> np.ndarray:
    """Cosine transform: unlike Fourier's it takes no tile's borders for sharp edges."""
    return np.asarray(dctn(values.astype(np.float64), axes=(1, 2), norm="ortho"))


def _rings(px: int) -> np.ndarray:
    """Ring of each frequency of a square tile: its distance from the mean, in steps of one half period a tile."""
    along = np.arange(px)
    return np.minimum(np.rint(np.hypot(along[:, None], along)).astype(np.int64), px - 1)


def _amplitudes(cosines: Float64[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n rings"]:
    """Root mean square of each ring of frequencies."""
    rings = _rings(cosines.shape[1]).ravel()
    power = np.stack([np.bincount(rings, weights=each.ravel() ** 2) for each in cosines])
    return np.sqrt(power / np.bincount(rings))


def _bytes(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _markdown(title: str, values: Sequence[tuple[str, str, float]]) -> str:
    """Mean over the pairs of sites: a line a row, a column a change."""
    changes, rows = list(dict.fromkeys(change for change, _, _ in values)), dict.fromkeys(row for _, row, _ in values)
    lines = [f"| {title} | {' | '.join(changes)} |", f"|{'---|' * (len(changes) + 1)}"]
    for row in rows:
        cells = [np.mean([value for change, name, value in values if (change, name) == (each, row)])
                 for each in changes]  # fmt: skip
        lines.append(f"| {row} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    return "\n".join(lines) + "\n"


PIPELINE = Pipeline("traces", __doc__ or "", {"data": Data}, check, diagnose)

if __name__ == "__main__":
    sys.exit(main(PIPELINE))
