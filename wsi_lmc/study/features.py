"""Features of a study's tiles in one row of its table and one seed: made once, kept as ``features/<row>-<seed>/``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from wsi_lmc.encoder import ENCODER_FOLDER, Encoder, embedding_width, load_encoder, resolve_device
from wsi_lmc.evaluation import colour_features, texture_features
from wsi_lmc.normalisers import NormaliserName, load_normaliser, normaliser_fingerprint
from wsi_lmc.pooling import pooled
from wsi_lmc.publish import exclusive, prepare_output
from wsi_lmc.run import find_stores, open_stores
from wsi_lmc.stain import SeparationConfig
from wsi_lmc.study.comparators import ROWS, WEIGHTED, Comparator
from wsi_lmc.study.config import Study, StudyConfig
from wsi_lmc.study.data import LabelledTiles, normalise_run, write_typical_tile
from wsi_lmc.study.supervised import train_supervised
from wsi_lmc.tilestore import TileStore
from wsi_lmc.training import TrainConfig, train

SOURCE = "source"
_TOGETHER = 64


@dataclass(frozen=True)
class Workshop:
    """All that makes rows of a study: its data, opened, its settings, and the folder it works in."""

    study: Study
    config: StudyConfig
    sites: Mapping[str, LabelledTiles]  # the source's under SOURCE, targets' under their names
    out: Path

    def make(self, row: str, seed: int) -> dict[str, Float32[np.ndarray, "_ d"]]:
        """Features of every site's labelled tiles."""
        comparator = ROWS[row]
        runs = {SOURCE: self.study.source, **self.study.targets}
        if comparator.teacher in ("colour", "texture"):
            describe = colour_features if comparator.teacher == "colour" else texture_features
            return {
                site: np.concatenate([describe(block) for block in tiles.blocks()])
                for site, tiles in self.sites.items()
            }
        encoder = self._encoder(row, seed)
        raw = replace(comparator, normalise="none")
        seen = {site: raw if site == SOURCE and comparator.encoder_of else comparator for site in runs}
        return {
            site: _embedded(tiles.of(self._stores(runs[site], site, seen[site])), encoder)
            for site, tiles in self.sites.items()
        }

    def _encoder(self, row: str, seed: int) -> Encoder:
        comparator, device = ROWS[row], resolve_device(self.config.device)
        px = self.sites[SOURCE].stores[0].tile_px
        if comparator.teacher == "given":
            return pooled(load_encoder(self.config.virchow, device), "auto")
        if comparator.teacher == "nothing":
            return load_encoder(f"untrained:{self.config.architecture}@{seed}", device, tile_px=px)
        taught = comparator.encoder_of or row
        shared = self.study.encoders if comparator.teacher == "views" else None
        folder = (shared or self.out / "encoders") / f"{taught}-{seed}"
        prepare_output(folder.parent)
        with exclusive(folder.parent, folder.name):  # rows, and studies, may share an encoder
            if not (folder / ENCODER_FOLDER).is_dir():
                self._train(ROWS[taught], seed, folder)
        return load_encoder(str(folder), device)

    def _train(self, comparator: Comparator, seed: int, folder: Path) -> None:
        config = self._training(comparator, seed)
        if comparator.teacher == "labels":
            tiles = self.sites[SOURCE].of(self._stores(self.study.source, SOURCE, comparator))
            train_supervised(tiles, len(self.study.classes), folder, config)
        else:
            role = SOURCE if self.study.unlabelled == self.study.source else "unlabelled"
            train(self._stores(self.study.unlabelled, role, comparator), folder, config, "resume")

    def _training(self, comparator: Comparator, seed: int) -> TrainConfig:
        config, change = self.config, comparator.change
        steps = max(1, round(config.steps * change.steps))
        return TrainConfig(
            steps=steps,
            batch=max(2, round(config.batch * change.batch)),
            seed=seed,
            device=config.device,
            precision=config.precision,
            compile_views=config.compile_views,
            architecture=config.architecture,
            views=replace(comparator.views, crop=min(config.crop, comparator.views.crop)),
            lr=config.lr,
            spread_weight=change.spread_weight,
            projector=change.projector * embedding_width(config.architecture),
            separation=SeparationConfig(gate=change.gate),
            held_out_share=change.held_out_share,
            evaluate_every=max(1, steps // 4),
            checkpoint_every=max(1, steps // 4),
        )

    def _stores(self, run_folder: Path, role: str, comparator: Comparator) -> list[TileStore]:
        """Tile stores of a run, in the look that a row has tiles in: normalised once, for all seeds and rows."""
        name = comparator.normalise
        if name == "none":
            return open_stores(find_stores([run_folder]))
        weights, reference = self._fitted_on(name)
        made_by = normaliser_fingerprint(name, reference, weights)
        folder = self.out / "normalised" / name / role
        with exclusive(self.out, f"normalise-{name}-{role}"):
            device = resolve_device(self.config.device)
            look = load_normaliser(name, reference, weights, device)
            assert look is not None  # noqa: S101  for it is not "none"
            return normalise_run(run_folder, folder, look, made_by, device)

    def _fitted_on(self, name: NormaliserName) -> tuple[str | None, str | None]:
        """Weights of a normaliser, and the image it is fitted on: a typical tile of the source."""
        weights = str(getattr(self.config, name)) if name in WEIGHTED else None
        if name in ("stainnet", "staingan"):
            return weights, None
        reference = self.out / "reference.png"
        if not reference.is_file():
            write_typical_tile(open_stores(find_stores([self.study.unlabelled])), reference)
        return weights, str(reference)


def _embedded(tiles: LabelledTiles, encoder: Encoder) -> Float32[np.ndarray, "n d"]:
    """Features in the order of the tiles, whose batches span stores: many stores hold few tiles."""
    batches = (torch.from_numpy(block) for block in _rebatched(tiles.blocks(_TOGETHER)))
    return cast(np.ndarray, np.concatenate([encoder.embed(batch).float().cpu().numpy() for batch in batches]))


def _rebatched(blocks: Iterator[UInt8[np.ndarray, "_ h w 3"]]) -> Iterator[UInt8[np.ndarray, "_ h w 3"]]:
    held: list[np.ndarray] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= _TOGETHER:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)
