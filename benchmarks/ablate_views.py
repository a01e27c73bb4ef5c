"""Does an optional view help on sites never seen? One small encoder an option, trained on one site, scored on others.

    python benchmarks/ablate_views.py train OUT --source GLAS --option blur --seed 0
    python benchmarks/ablate_views.py score OUT SITE... SCHEMES --transfer GLAS LC25000 --manifest manifest.csv

Every option is ``robust`` and one thing more. Scores are those of ``bench_invariance.py`` (retrieval of a field among
others over staining protocols), and the AUROC of a logistic regression trained on one site's labels and tested on
another's, 95 % interval by group. ``manifest.csv`` has columns file, label and group, files relative to its folder; of
labels, ``benign`` and ``malignant`` count. The untrained network and colour alone stand beside.
"""

import argparse
import csv
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_invariance import PX, Features, colours, encoder_features, enlarged, fields_of, measure, restained

from wsi_lmc.encoder import ENCODER_FOLDER
from wsi_lmc.evaluation import SlideFeatures
from wsi_lmc.evaluation.samples import gather
from wsi_lmc.evaluation.transfer import transfers
from wsi_lmc.patches import read_image, split_image, write_patches
from wsi_lmc.stain import ViewConfig
from wsi_lmc.training import TrainConfig, train

ROBUST = ViewConfig()
OPTIONS = {
    "paper": ViewConfig("paper"),
    "robust": ROBUST,
    "log-uniform": replace(ROBUST, scale_law="log-uniform"),
    "gamma": replace(ROBUST, gamma=0.2),
    "white-point": replace(ROBUST, white_point=0.1),
    "blur": replace(ROBUST, blur=1.5),
    "jpeg": replace(ROBUST, jpeg=40),
    "independent": replace(ROBUST, geometry="independent"),
}
CLASSES = ("benign", "malignant")


def images_of(site: Path) -> list[Path]:
    """A site's images."""
    return sorted(path for path in site.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif"))


def train_one(out: Path, source: Path, option: str, seed: int, steps: int) -> None:
    """Train and keep the encoder as ``OUT/<option>-<seed>``: one that is there is left alone, one cut off goes on."""
    folder = out / f"{option}-{seed}"
    if (folder / ENCODER_FOLDER).is_dir():
        return
    config = TrainConfig(
        steps=steps,
        seed=seed,
        device="cpu",
        architecture="vit-demo",
        views=OPTIONS[option],
        lr=5e-4,  # of so small a network in so few steps
        evaluate_every=steps,
        held_out_tiles=256,
        checkpoint_every=50,
        compile_views="yes",
    )
    with tempfile.TemporaryDirectory() as name:
        store = write_patches(Path(name), "source", images_of(source), PX, 0.5)
        result = train([store], folder, config, "resume")
    print(option, seed, {key: round(value, 3) for key, value in result.after.items() if "held_out" in key})


def labelled(site: Path, manifest: Path, features: Features) -> list[SlideFeatures]:
    """Features of one tile of each labelled image, those of a group together: patients, or copies of one image."""
    rows = {manifest.parent / row["file"]: row for row in csv.DictReader(manifest.open())}
    known = [(path, rows[path]) for path in images_of(site) if rows[path]["label"] in CLASSES]
    tiles = torch.from_numpy(np.concatenate([split_image(enlarged(read_image(path)), PX)[:1] for path, _ in known]))
    found = features(tiles)
    labels = np.asarray([CLASSES.index(row["label"]) for _, row in known])
    groups = np.asarray([row["group"] for _, row in known])
    return [
        SlideFeatures(str(group), str(group), site.name, found[groups == group], labels[groups == group])
        for group in np.unique(groups)
    ]


def score(rows: Mapping[str, Features], sites: list[Path], schemes: Path, transfer: tuple[Path, Path, Path]) -> None:
    """Print a table a site, and one of the transfer."""
    for site in sites:
        fields = fields_of(site, 40)
        variants = restained(fields, schemes)
        print(f"\n{site.name}: {len(fields)} fields\n")
        print("| | stain variants | different fields | top 1 | top 5 | effective rank |\n|---|---|---|---|---|---|")
        for name, features in rows.items():
            print(f"| {name} | {measure(features, fields, variants, np.random.default_rng(0))} |", flush=True)
    source, target, manifest = transfer
    print(f"\n{source.name} to {target.name}, AUROC\n\n| | within the source | at the target |\n|---|---|---|")
    for name, features in rows.items():
        slides = [*labelled(source, manifest, features), *labelled(target, manifest, features)]
        tiles = gather(slides, CLASSES, sum(len(slide.labels) for slide in slides))
        found = {part.metric: part for part in transfers(tiles, source.name, 1000, 0).measures}
        shown = (found["source_auroc"], found["transfer_auroc"])
        cells = [f"{part.value:.2f} [{part.low:.2f}, {part.high:.2f}]" for part in shown]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train one encoder, or score all that were trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("out", type=Path)
    training.add_argument("--source", type=Path, required=True)
    training.add_argument("--option", choices=list(OPTIONS), required=True)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--steps", type=int, default=300)
    scoring = commands.add_parser("score")
    scoring.add_argument("out", type=Path)
    scoring.add_argument("sites", type=Path, nargs="+")
    scoring.add_argument("schemes", type=Path)
    scoring.add_argument("--transfer", type=Path, nargs=2, required=True, help="Labelled sites: source, target.")
    scoring.add_argument("--manifest", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "train":
        train_one(given.out, given.source, given.option, given.seed, given.steps)
        return
    rows: dict[str, Features] = {"colour alone": colours}
    rows |= {f"untrained-{seed}": encoder_features(f"untrained:vit-demo@{seed}") for seed in (0, 1)}
    for folder in (given.out / f"{option}-{seed}" for option in OPTIONS for seed in range(10)):
        if (folder / ENCODER_FOLDER).is_dir():
            rows[folder.name] = encoder_features(str(folder))
    score(rows, given.sites, given.schemes, (*given.transfer, given.manifest))


if __name__ == "__main__":
    main()
