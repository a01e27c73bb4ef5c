"""Stain as pure tensor functions: optical density, H and E vectors, and views of a tile at other stain strengths."""

from wsi_lmc.stain.density import optical_density, transmitted
from wsi_lmc.stain.separation import RUIFROK, SeparationConfig, StainEstimate, concentrations, pool, separate
from wsi_lmc.stain.views import ViewConfig, Views, two_views

__all__ = [
    "RUIFROK",
    "SeparationConfig",
    "StainEstimate",
    "ViewConfig",
    "Views",
    "concentrations",
    "optical_density",
    "pool",
    "separate",
    "transmitted",
    "two_views",
]
