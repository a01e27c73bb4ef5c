"""Does an encoder see the tissue and not the stain? On tiles of sites it was not trained on.

    python benchmarks/bench_invariance.py SITES SCHEMES --ckpt paper=CKPT --ckpt robust=CKPT

``SITES`` holds a folder of images a site; ``SCHEMES`` holds one image a staining protocol. Every field (one tile an
image) is restained to each protocol by Macenko's method, since no field was really stained ten times; then, within
each site:

- cosine between stain variants of a field, against cosine between different fields of one protocol;
- retrieval: for a field in one protocol, is the same field in another protocol the nearest (top 1, top 5) of all?
- effective rank of the features of the unchanged fields.

Cosines are of features centred over everything shown, since an untrained network's features all point one way. 95 %
intervals are over fields. Colour alone, the mean and standard deviation of each channel, is the trivial baseline.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.loss import effective_rank
from wsi_lmc.normalisers.colour import Macenko
from wsi_lmc.patches import read_image, split_image

PX = 256
Features = Callable[[torch.Tensor], np.ndarray]


def fields_of(site: Path, most: int) -> torch.Tensor:
    """One tile of each of a site's images, evenly chosen."""
    images = sorted(path for path in site.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif"))
    chosen = images[:: max(1, len(images) // most)][:most]
    tiles = [split_image(enlarged(read_image(path)), PX)[:1] for path in chosen]
    return torch.from_numpy(np.concatenate(tiles))


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """An image smaller than a tile, repeated at its mirror: no scale is changed."""
    missing = [max(0, PX - side) for side in pixels.shape[:2]]
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")


def restained(fields: torch.Tensor, schemes: Path) -> torch.Tensor:
    """The fields in every protocol: (protocols, fields, h, w, 3)."""
    looks = [Macenko.fit(torch.from_numpy(read_image(path))) for path in sorted(schemes.glob("*.jpg"))]
    return torch.stack([look(fields) for look in looks])


def encoder_features(spec: str) -> Features:
    """Features of an encoder, a few tiles at a time."""
    encoder = load_encoder(spec, resolve_device("auto"))
    return lambda tiles: np.concatenate([encoder.embed(part).cpu().numpy() for part in tiles.split(32)])


def colours(tiles: torch.Tensor) -> np.ndarray:
    """Mean and standard deviation of each channel."""
    pixels = tiles.flatten(1, 2).float()
    return torch.cat([pixels.mean(1), pixels.std(1)], 1).numpy()


def measure(features: Features, fields: torch.Tensor, variants: torch.Tensor, rng: np.random.Generator) -> str:
    """One row of the table."""
    protocols, count = variants.shape[:2]
    found = features(variants.flatten(0, 1))
    rank = float(effective_rank(torch.from_numpy(features(fields))))
    unit = found - found.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = (unit @ unit.T).reshape(protocols, count, protocols, count)
    same = np.einsum("pfqf->fpq", cosine)
    between = same[:, ~np.eye(protocols, dtype=bool)].mean(1)
    others = np.stack(
        [cosine[p, :, p, :][~np.eye(count, dtype=bool)].reshape(count, -1).mean(1) for p in range(protocols)]
    )
    hits: dict[int, np.ndarray] = {1: np.zeros(count), 5: np.zeros(count)}
    for p in range(protocols):
        for q in range(protocols):
            if p != q:
                ranks = (cosine[p, :, q, :] > np.diagonal(cosine[p, :, q, :])[:, None]).sum(1)
                for top in hits:
                    hits[top] += (ranks < top) / (protocols * (protocols - 1))
    cells = [interval(values, rng) for values in (between, others.mean(0), hits[1], hits[5])]
    return " | ".join([*cells, f"{rank:.1f}"])


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean over fields and its bootstrap interval."""
    drawn = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print a table a site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", type=Path, nargs="+", help="A folder of images a site.")
    parser.add_argument("schemes", type=Path, help="One image a staining protocol.")
    parser.add_argument("--ckpt", action="append", default=[], help="NAME=FOLDER, as often as there are encoders.")
    parser.add_argument("--fields", type=int, default=60)
    given = parser.parse_args()
    named = dict(text.split("=", 1) for text in given.ckpt)
    rows = {"colour alone": colours, "untrained": encoder_features("untrained:vit-tiny@0")}
    rows |= {name: encoder_features(folder) for name, folder in named.items()}
    for site in given.sites:
        fields = fields_of(site, given.fields)
        variants = restained(fields, given.schemes)
        print(f"\n{site.name}: {len(fields)} fields, {len(variants)} protocols; chance {1 / len(fields):.2f} at top 1")
        print("| | stain variants | different fields | top 1 | top 5 | effective rank |\n|---|---|---|---|---|---|")
        for name, features in rows.items():
            print(f"| {name} | {measure(features, fields, variants, np.random.default_rng(0))} |")


if __name__ == "__main__":
    main()
