# %% [markdown]
# # From slides to a classifier of slides, in Python
#
# Two hospitals, *north* and *south*, whose stains differ. We train an encoder on north's unlabelled tiles, look at what
# of the hospital is left in its features, and train a classifier of slides on north's labels that we apply to south.
# The slides are drawn, small and easy, and training is far too short: this shows how the pieces fit, within a minute on
# two cores. Run the file as it is (`python docs/tutorial.py`, everything lands in `wsi-lmc-tutorial/`), or cell by cell
# in an editor that knows `# %%`.

# %%
import csv
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

import wsi_lmc
from wsi_lmc.evaluation import report_text
from wsi_lmc.synthetic import CLASSES, load_truth, write_cohort

HERE = Path("wsi-lmc-tutorial")
RUN = HERE / "run"

# %% [markdown]
# ## Slides
#
# Real files, TIFF and SVS; with your own slides, begin at the next cell. The truth says where two kinds of tissue lie.

# %%
if not (HERE / "manifest.csv").is_file():
    write_cohort(HERE, {"north": 6, "south": 6}, seed=1, size=(768, 1024))
slides = sorted((HERE / "slides").iterdir())
label_of = {slide.stem: CLASSES[number % 2] for number, slide in enumerate(slides)}

# %% [markdown]
# ## Tissue and tiles
#
# A slide knows its microns per pixel, so tiles are asked for in microns, never by "20x". `tissue.mask` is a plain array
# (y, x), to be looked at or changed. Here we keep of each slide one kind of tissue, as somebody might outline it.

# %%
stores: list[wsi_lmc.TileStore] = []
for path in slides:
    with wsi_lmc.open_slide(path) as slide:
        tissue = wsi_lmc.find_tissue(slide)
        height, width = tissue.mask.shape
        kinds = cv2.resize(
            load_truth(HERE / "truth", path.stem).classes, (width, height), interpolation=cv2.INTER_NEAREST
        )
        tissue.mask[kinds != CLASSES.index(label_of[path.stem])] = False
        grid = wsi_lmc.place_tiles(slide, tissue, tile_px=128, tile_mpp=0.5, stride=64, min_tissue=0.5)
        stores.append(wsi_lmc.cut_tiles(slide, grid, RUN))
store = stores[-1]
print(f"{store.slide_id}: {len(store)} tiles of {store.tile_px} px, the first at {store.origins[0]} in level-0 pixels")

# %% [markdown]
# ## An encoder
#
# Trained on the tiles of *one* site, without labels. Every keyword is a flag of `wsi-lmc train`; the defaults are the
# paper's network and 10,000 steps, for which you want a GPU.

# %%
north = [RUN / "tiles" / f"{slide.stem}.zarr" for slide in slides if slide.stem.startswith("north")]
result = wsi_lmc.train(
    north,
    HERE / "checkpoint",
    "overwrite",
    architecture="vit-demo",
    steps=60,
    batch=16,
    lr=1e-3,
    scale_low=0.67,
    scale_high=1.5,
)
print(f"invariance {result.before['held_out_invariance']:.1f} -> {result.after['held_out_invariance']:.1f}")

# %% [markdown]
# ## Features
#
# The frozen encoder embeds every site; a folder, a timm model name or `hf-hub:OWNER/NAME` load alike. Each slide gets a
# store: `features` (N, D), `origins` (N, 2) in level-0 pixels, `valid` (N,).

# %%
encoder = wsi_lmc.Encoder.load(HERE / "checkpoint")
tiles = torch.from_numpy(store.read(np.arange(4)))  # uint8 (4, 128, 128, 3)
print(f"{tuple(tiles.shape)} -> {tuple(encoder.embed(tiles).shape)} on {encoder.device}")
features = wsi_lmc.embed(RUN, encoder, RUN, overwrite=True)
print(f"{len(features)} slides, {sum(map(len, features))} tiles, {features[0].features.shape[1]} features")

# %% [markdown]
# ## What is left of the hospital
#
# Site, patient and label come from a manifest. Each value stands beside its interval, its floor and its chance.

# %%
manifest = HERE / "labels.csv"
with manifest.open("w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["slide", "site", "label"])
    table.writerows([f"slides/{path.name}", path.stem.split("-")[0], label_of[path.stem]] for path in slides)
evaluation = wsi_lmc.evaluate({"LMC": RUN}, manifest, source="north")
print(report_text(evaluation))

# %% [markdown]
# ## A classifier of slides
#
# A slide is a bag of tiles of which only the slide's label is known. `BagDataset` reads bags when they are asked for,
# in as many workers as you like; `collate_bags` pads them and says by `mask` where there are tiles.


# %%
class Attention(nn.Module):
    """Gated attention over the tiles of a slide (Ilse et al. 2018)."""

    def __init__(self, dim: int, classes: int, hidden: int = 32) -> None:
        super().__init__()
        self.values, self.gate = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.score, self.classes = nn.Linear(hidden, 1), nn.Linear(dim, classes)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of features (B, N, D), where ``mask`` (B, N) is True."""
        scores = self.score(torch.tanh(self.values(features)) * torch.sigmoid(self.gate(features))).squeeze(2)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(1)
        return self.classes((weights[..., None] * features).sum(1))


bags = wsi_lmc.BagDataset(RUN, manifest)
source = bags.part([number for number, site in enumerate(bags.sites) if site == "north"])
target = bags.part([number for number, site in enumerate(bags.sites) if site == "south"])
known = torch.cat([source[number].features for number in range(len(source))])
mean, spread = known.mean(0), known.std(0).clamp_min(1e-6)

torch.manual_seed(1)
head = Attention(known.shape[1], len(bags.classes))
optimiser = torch.optim.AdamW(head.parameters(), lr=0.003, weight_decay=0.1)
for _ in range(20):
    for batch in DataLoader(source, batch_size=3, shuffle=True, collate_fn=wsi_lmc.collate_bags):
        loss = nn.functional.cross_entropy(head((batch.features - mean) / spread, batch.mask), batch.label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

# %%
(batch,) = DataLoader(target, batch_size=len(target), collate_fn=wsi_lmc.collate_bags)
with torch.inference_mode():
    guesses = head((batch.features - mean) / spread, batch.mask).argmax(1)
for slide_id, guess, label in zip(batch.slide_id, guesses, batch.label, strict=True):
    print(f"{slide_id}: {bags.classes[guess]}, really {bags.classes[label]}")
right = int((guesses == batch.label).sum())
print(f"{right} of {len(target)} slides of the other site are right")

# %% [markdown]
# `wsi-lmc classify` does this properly: chosen by cross-validation on the source alone, with intervals and maps.
