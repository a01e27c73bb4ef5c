"""Settings of a study, and the data it is made on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_doc import Doc

from wsi_lmc.encoder import Architecture
from wsi_lmc.errors import UsageError
from wsi_lmc.study.comparators import ROWS, WEIGHTED


@dataclass(frozen=True)
class Study:
    """What a study is made on.

    Attributes:
        unlabelled: run folder whose tiles encoders are trained on, without labels: of the source site.
        source: run folder of the source's labelled tiles, with ``labels/`` and a manifest of patients.
        targets: run folders of labelled tiles of other sites, by name.
        classes: labels that count; of two, the second is the positive one.
        encoders: where encoders trained by views are kept, for studies that train on the same tiles; by default in the
            study's own folder.
    """

    unlabelled: Path
    source: Path
    targets: Mapping[str, Path]
    classes: tuple[str, ...]
    encoders: Path | None = None


@dataclass(frozen=True)
class StudyConfig:
    """How rows of a study are made; the same for all of them."""

    comparators: Annotated[
        tuple[str, ...],
        Doc("Rows of the table; see wsi_lmc/study/comparators.py. Those whose weights are not given are left out."),
    ] = ("colour", "texture", "untrained", "geometry", "geometry-reinhard", "geometry-macenko", "lmc-paper", "lmc")
    seeds: Annotated[int, Doc("Trainings a row, from seed 0 on.")] = 5
    steps: Annotated[int, Doc("Training steps a row.")] = 10_000
    batch: Annotated[int, Doc("Tiles a step; each is seen twice in it, also in supervised training.")] = 32
    crop: Annotated[
        float, Doc("Every row that is taught sees parts of tiles, of this share of their side at least; 1: whole ones.")
    ] = 1.0
    architecture: Annotated[Architecture, Doc("Of every encoder that is trained.")] = "vit-tiny"
    lr: Annotated[float, Doc("Learning rate of the constant phase.")] = 1e-4
    device: Annotated[str, Doc("auto (CUDA where there is one), cpu, cuda or cuda:N.")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], Doc("Of every training; see the setting of this name of train.")
    ] = "auto"
    compile_views: Annotated[
        Literal["auto", "yes", "no"], Doc("As the setting of this name of train; pays where there are many rows.")
    ] = "auto"
    head: Annotated[
        Literal["logistic", "knn", "mlp"], Doc("Classifier of frozen features; what it needs is chosen on the source.")
    ] = "logistic"
    stainnet: Annotated[str, Doc("StainNet's weights; without them its rows are left out.")] = ""
    staingan: Annotated[str, Doc("StainGAN's weights of the generator towards the source.")] = ""
    stainfuser: Annotated[str, Doc("Folder of StainFuser's weights.")] = ""
    virchow: Annotated[str, Doc("Encoder to compare with as it is, such as hf-hub:paige-ai/Virchow.")] = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.comparators if name not in ROWS]
        if unknown or not self.comparators:
            found = f"comparators {', '.join(unknown) or 'none'}"
            raise UsageError(found, f"some of {', '.join(ROWS)}", "Correct them.")
        for name in ("seeds", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}", "at least 1", "Correct it.")

    @property
    def rows(self) -> dict[str, str]:
        """Rows that can be made, and the weights that each needs or an empty text."""
        needed = {name: self._weights(name) for name in self.comparators}
        return {name: weights for name, weights in needed.items() if weights is not None}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Rows whose weights are not given."""
        return tuple(name for name in self.comparators if name not in self.rows)

    def _weights(self, name: str) -> str | None:
        """The weights a row needs, an empty text where none; None where they are missing."""
        normaliser = ROWS[name].normalise
        if normaliser in WEIGHTED:
            return getattr(self, normaliser) or None
        return (self.virchow or None) if ROWS[name].teacher == "given" else ""
