"""Settings of heads: how much is learnt from, how often, how slide heads are trained."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_doc import Doc

from wsi_lmc.errors import UsageError


@dataclass(frozen=True)
class BagConfig:
    """How a slide head is trained."""

    hidden: Annotated[int, Doc("Width of a slide head's layers.")] = 128
    dropout: Annotated[float, Doc("Share of a slide head's activations that is left out in training.")] = 0.25
    lr: Annotated[float, Doc("Learning rate of a slide head.")] = 3e-4
    weight_decay: Annotated[float, Doc("Weight decay of a slide head.")] = 1e-3
    epochs: Annotated[int, Doc("Most epochs of a slide head; how many is chosen on the source.")] = 60
    patience: Annotated[int, Doc("Epochs without a better loss on the choosing fold, after which a turn ends.")] = 15
    bags_per_step: Annotated[int, Doc("Slides in one training step.")] = 4

    def __post_init__(self) -> None:
        if self.hidden < 8 or self.hidden % 8 or min(self.epochs, self.patience, self.bags_per_step) < 1:
            found = f"hidden {self.hidden}, epochs {self.epochs}, patience {self.patience}"
            raise UsageError(found, "a multiple of 8, and 1 or more each", "Correct them.")
        if not (0 <= self.dropout < 1 and self.lr > 0 and self.weight_decay >= 0):
            found = f"dropout {self.dropout}, lr {self.lr}, weight decay {self.weight_decay}"
            raise UsageError(found, "0 to 1, more than 0, 0 or more", "Correct them.")


@dataclass(frozen=True)
class Recipe:
    """All that decides the training of a slide head beside its bags; ``device`` is a name that torch knows."""

    config: BagConfig
    seed: int
    device: str = "cpu"


@dataclass(frozen=True)
class HeadConfig:
    """What a classification is done with."""

    seeds: Annotated[int, Doc("Trainings; their probabilities are averaged, and their spread is told.")] = 5
    train_tiles: Annotated[
        int, Doc("Most tiles of a slide to train on, drawn at random (0: all); all are predicted.")
    ] = 2000
    device: Annotated[Literal["auto", "cpu", "cuda"], Doc("Where slide heads are trained and used.")] = "auto"
    bags: BagConfig = field(default_factory=BagConfig)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.train_tiles < 0:
            found = f"seeds {self.seeds}, train tiles {self.train_tiles}"
            raise UsageError(found, "1 or more, 0 or more", "Correct them.")
