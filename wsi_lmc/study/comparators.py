"""What is compared: rows of a study's table, each an encoder of the same architecture with the same steps and tiles.

Rows differ in what the encoder is taught by (nothing, labels, pairs of views) and in how stain is met: not at all, by
jittering colours, by LMC's views, or by normalising tiles to the source's look, either all tiles (``-macenko``) or, as
the paper does, those of the targets alone (``-macenko-target``: the encoder is that of the row without).

``geometry`` and ``lmc-turned`` differ by the stain views alone; ``lmc`` is the package's default, in which both views
of a tile are turned alike; ``lmc-reinhard`` is LMC on normalised tiles, ``lmc-reinhard-target`` LMC's encoder shown
targets that were normalised to the source's look.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from wsi_lmc.normalisers import NormaliserName
from wsi_lmc.stain import ViewConfig

Teacher = Literal["colour", "texture", "nothing", "labels", "views", "given"]
"""What makes the features: tile statistics, random weights, training by labels or views, or an encoder as it is."""

HED_STRONG = 0.2  # the strong form of Tellez et al. 2018
PLAIN = ViewConfig(scale_low=1.0, scale_high=1.0, geometry="independent")
"""Flips and rotations, of each view its own, and no change of colour."""
JITTERED = ViewConfig(scale_low=1.0, scale_high=1.0, geometry="independent", hed=HED_STRONG)


@dataclass(frozen=True)
class Change:
    """How an ablation's training differs: factors on steps and batch, and settings as the training has them.

    ``projector`` is its width in multiples of the embedding's; ``held_out_share`` is of slides (or patients).
    """

    steps: float = 1.0
    batch: float = 1.0
    projector: int = 0
    spread_weight: float = 0.0
    held_out_share: float = 0.05
    gate: bool = True


@dataclass(frozen=True)
class Comparator:
    """One row: ``views`` augment tiles in training, ``normalise`` changes tiles, in training and afterwards.

    ``encoder_of`` names the row whose encoder this one uses; then only the targets' tiles are normalised. ``change`` is
    what training does otherwise than all other rows, for ablations.
    """

    teacher: Teacher
    views: ViewConfig = PLAIN
    normalise: NormaliserName = "none"
    encoder_of: str = ""
    change: Change = Change()

    @property
    def trained(self) -> bool:
        """Whether steps are taken, and so whether seeds differ."""
        return self.teacher in ("labels", "views")

    @property
    def random(self) -> bool:
        """Whether a seed decides anything."""
        return self.trained or self.teacher == "nothing"


_NORMALISERS: tuple[NormaliserName, ...] = ("reinhard", "macenko", "stainnet", "staingan", "stainfuser")
COMPARATORS: Mapping[str, Comparator] = MappingProxyType(
    {
        "colour": Comparator("colour"),
        "texture": Comparator("texture"),
        "untrained": Comparator("nothing"),
        "supervised": Comparator("labels"),
        "supervised-hed": Comparator("labels", JITTERED),
        "geometry": Comparator("views"),
        "geometry-hed": Comparator("views", JITTERED),
        "lmc": Comparator("views", ViewConfig()),
        "lmc-paper": Comparator("views", ViewConfig("paper")),
        "lmc-turned": Comparator("views", ViewConfig(geometry="independent")),
        "lmc-reinhard-target": Comparator("views", ViewConfig(), normalise="reinhard", encoder_of="lmc"),
        "lmc-turned-reinhard-target": Comparator(
            "views", ViewConfig(geometry="independent"), normalise="reinhard", encoder_of="lmc-turned"
        ),
        "virchow": Comparator("given"),
    }
    | {
        f"{teacher}-{name}": Comparator("labels" if teacher == "supervised" else "views", normalise=name)
        for teacher in ("supervised", "geometry")
        for name in _NORMALISERS
    }
    | {f"lmc-{name}": Comparator("views", ViewConfig(), normalise=name) for name in _NORMALISERS}
    | {
        f"{teacher}-{name}-target": Comparator(
            "labels" if teacher == "supervised" else "views", normalise=name, encoder_of=teacher
        )
        for teacher in ("supervised", "geometry")
        for name in _NORMALISERS
    }
)
_SPREAD = Change(spread_weight=1.0)
ABLATIONS: Mapping[str, Comparator] = MappingProxyType(
    {
        "lmc-range-1.25": Comparator("views", ViewConfig(scale_low=0.8, scale_high=1.25)),
        "lmc-range-4": Comparator("views", ViewConfig(scale_low=0.25, scale_high=4.0)),
        "lmc-log-uniform": Comparator("views", ViewConfig(scale_law="log-uniform")),
        "lmc-no-turns": Comparator("views", ViewConfig(geometry="none")),
        "lmc-gamma": Comparator("views", ViewConfig(gamma=0.2)),
        "lmc-white-point": Comparator("views", ViewConfig(white_point=0.1)),
        "lmc-blur": Comparator("views", ViewConfig(blur=1.5)),
        "lmc-crop": Comparator("views", ViewConfig(crop=0.5)),
        "lmc-projector": Comparator("views", ViewConfig(), change=Change(projector=4)),
        "lmc-spread": Comparator("views", ViewConfig(), change=_SPREAD),
        "lmc-batch-quarter": Comparator("views", ViewConfig(), change=Change(batch=0.25)),
        "lmc-batch-double": Comparator("views", ViewConfig(), change=Change(batch=2.0)),
        "lmc-steps-third": Comparator("views", ViewConfig(), change=Change(steps=1 / 3)),
        "lmc-steps-triple": Comparator("views", ViewConfig(), change=Change(steps=3.0)),
        "lmc-half-of-patients": Comparator("views", ViewConfig(), change=Change(held_out_share=0.5)),
        "lmc-fifth-of-patients": Comparator("views", ViewConfig(), change=Change(held_out_share=0.8)),
        "lmc-ungated": Comparator("views", ViewConfig(), change=Change(gate=False)),
    }
)
"""Rows that differ from ``lmc`` in one thing each."""
SPREAD: Mapping[str, Comparator] = MappingProxyType(
    {
        "lmc-spread-turned": Comparator("views", ViewConfig(geometry="independent"), change=_SPREAD),
        "lmc-spread-reinhard": Comparator("views", ViewConfig(), normalise="reinhard", change=_SPREAD),
    }
)
"""Rows that differ from ``lmc-turned`` and ``lmc-reinhard`` by the spread that is asked of embeddings alone."""

WEIGHTED = ("stainnet", "staingan", "stainfuser")
"""Normalisers that need weights which a user supplies."""

ROWS: Mapping[str, Comparator] = MappingProxyType({**COMPARATORS, **ABLATIONS, **SPREAD})
"""All rows by name."""
