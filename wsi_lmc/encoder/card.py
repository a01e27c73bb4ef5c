"""The model card (``README.md``) beside an encoder, written from what is known of it: numbers, never names of slides.

What is not known stays unsaid: the licence and the tissue are for whoever publishes the encoder to state.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from wsi_lmc.encoder.folder import CONFIG, METADATA, UNKNOWN, WEIGHTS
from wsi_lmc.provenance import created_by
from wsi_lmc.stain import ViewConfig

CARD = "README.md"
REPOSITORY = "OWNER/NAME"  # stands in the card until a publication knows better

_MODES = {
    "paper": "`paper`: the published views; what H and E do not explain of a tile's colour is dropped",
    "robust": "`robust`: what H and E do not explain of a tile's colour stays, and bad stain fits are not trusted",
}
_HELD_OUT = {
    "slides": "tiles of slides that were never trained on",
    "tiles": "tiles that were never trained on, of slides that were",
    "nothing": "tiles that were also trained on, for want of others",
}
_MEASURES = {
    "invariance": "invariance term: 0 where two stain views of a tile give the same features",
    "redundancy": "redundancy term (before its weight): 0 where no two features say the same",
    "mean_diagonal": "correlation of a feature over two stain views, mean over features: at most 1",
    "effective_rank": "effective rank: how many directions the features really use",
    "std": "standard deviation of a feature, mean over features",
}
_OPTIONS = {"gamma": "tone curve", "white_point": "white balance", "blur": "blur", "jpeg": "JPEG"}


@dataclass(frozen=True)
class TrainingFacts:
    """What a card says of a training.

    ``slides`` and ``tiles`` were trained on; ``held_out_tiles`` are tiles of the kind ``held_out`` ("slides", "tiles"
    or "nothing", as :class:`wsi_lmc.training.TrainResult` has it); ``before`` and ``after`` are rows of metrics;
    ``nominal`` says that nobody knows some slides' pixel size.
    """

    views: ViewConfig
    slides: int
    tiles: int
    held_out: str
    held_out_tiles: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    nominal: bool = False


def write_card(folder: Path, facts: TrainingFacts) -> None:
    """Write the card of the encoder in ``folder``, whose configuration and weights say the rest."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    with safe_open(folder / WEIGHTS, "pt") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    sections = [
        _front_matter(config),
        _what_it_is(config),
        _table(_facts(config, facts, parameters)),
        _use(config),
        _measured(facts),
        _limits(config),
    ]
    (folder / CARD).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _front_matter(config: Mapping[str, Any]) -> str:
    tags = ["timm", "histopathology", "whole-slide-images", "stain-normalization", "self-supervised-learning"]
    lines = ["library_name: timm", "pipeline_tag: image-feature-extraction"]
    lines += [f"license: {config[METADATA]['license']}", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _what_it_is(config: Mapping[str, Any]) -> str:
    own = config[METADATA]
    return (
        f"# LMC encoder {own['weights_sha256'][:8]}\n\n"
        "A vision transformer for tiles of hematoxylin and eosin (H&E), trained so that its features change little "
        "with how strongly a slide was stained: from random weights, without labels, by Latent Manifold Compaction "
        "([arXiv 2602.24251](https://arxiv.org/abs/2602.24251)): each tile is shown with more and less of either "
        f"stain, and all variants are drawn onto one embedding. Trained with {created_by()}, an open implementation "
        "of the method; these are not the weights of the paper's authors."
    )


def _facts(config: Mapping[str, Any], facts: TrainingFacts, parameters: int) -> dict[str, str]:
    own, data = config[METADATA], config["pretrained_cfg"]
    px, mpp = own["tile_px"], own["trained_mpp"]
    mean, std = data["mean"][0], data["std"][0]
    return {
        "network": (
            f"{own['architecture']} (timm's `{config['architecture']}` with the arguments in config.json), "
            f"{parameters:,} parameters"
        ),
        "features": f"{config['num_features']} a tile (class token), float32",
        "tiles": f"{px} x {px} px, RGB, at {mpp:.4g} um/px: {px * mpp:.4g} um a side"
        + (", nominally: nobody knows the pixel size of all" if facts.nominal else ""),
        "input scaling": f"(value / 255 - {mean:g}) / {std:g} in every channel; no resizing, no cropping",
        "mode": _MODES[own["mode"]],
        "stain views": _views(facts.views),
        "trained on": f"{facts.tiles:,} tiles of {facts.slides:,} {'slide' if facts.slides == 1 else 'slides'}",
        "length": f"{own['steps']:,} steps",
        "licence": f"as stated at the top of this card; `{UNKNOWN}` until who publishes it states one",
        "weights": f"SHA-256 over names, types, shapes and values `{own['weights_sha256']}`",
    }


def _views(views: ViewConfig) -> str:
    """Which views were drawn, with the ranges."""
    turned = {
        "none": "no flips or rotations",
        "same": "the same flip or rotation for both views",
        "independent": "flips and rotations, one for each view",
    }
    further = [f"{words} {getattr(views, name):g}" for name, words in _OPTIONS.items() if getattr(views, name)]
    return "; ".join(
        [
            f"H and E each times {views.scale_low:g} to {views.scale_high:g} ({views.scale_law})",
            turned[views.turns],
            f"beyond stain strength: {', '.join(further) or 'nothing'}",
        ]
    )


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _use(config: Mapping[str, Any]) -> str:
    own = config[METADATA]
    return f"""## Use

Run in this folder; `hf-hub:{REPOSITORY}` in place of `local-dir:.` fetches a published copy.

```python
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = create_transform(**resolve_model_data_config(model), is_training=False)
tile = Image.open("tile.png").convert("RGB")  # {own["tile_px"]} x {own["tile_px"]} px at {own["trained_mpp"]:.4g} um/px
with torch.inference_mode():
    features = model(transform(tile).unsqueeze(0))  # (1, {config["num_features"]})
```

Whole slides, cut by microns per pixel as in the training:

```sh
wsi-lmc tile slides/ --tile-px {own["tile_px"]} --tile-mpp {own["trained_mpp"]:.4g}
wsi-lmc embed --encoder hf-hub:{REPOSITORY}
```"""


def _measured(facts: TrainingFacts) -> str:
    rows = [
        f"| {words} | {facts.before[key]:.4g} | {facts.after[key]:.4g} |"
        for name, words in _MEASURES.items()
        if (key := f"held_out_{name}") in facts.before and key in facts.after
    ]
    return "\n".join(
        [
            "## Measured",
            "",
            f"On {facts.held_out_tiles:,} {_HELD_OUT[facts.held_out]}, with the training's own stain views. "
            "This says how far the training came, not how good the features are for a task.",
            "",
            "| | untrained | trained |",
            "|---|---|---|",
            *rows,
        ]
    )


def _limits(config: Mapping[str, Any]) -> str:
    return f"""## Limits

- Not a medical device: for research, not for diagnosis. Nothing here was validated clinically.
- It was trained to ignore how strongly H and E stain. Differences of hue, scanner, sharpness, scale and compression
  stay visible in the features, and a site may still be told from them. Measure that on your own sites.
- It knows H&E at {config[METADATA]["trained_mpp"]:.4g} um/px. Features of another scale or stain mean nothing.
- Which tissue, patients, hospital and scanner the slides came from is not recorded; who publishes it should say."""
