"""Stain as pure tensor functions: optical density, H and E vectors, and views of a tile at other stain strengths."""

from wsi_lmc.stain.density import optical_density, transmitted
from wsi_lmc.stain.separation import (
    RUIFROK,
    SeparationConfig,
    StainEstimate,
    concentrations,
    pool,
    pseudo_inverse,
    separate,
    separate_density,
)
from wsi_lmc.stain.views import Drawn, ViewConfig, Views, draw_views, render_views, turned_planes, two_views

__all__ = [
    "RUIFROK",
    "Drawn",
    "SeparationConfig",
    "StainEstimate",
    "ViewConfig",
    "Views",
    "concentrations",
    "draw_views",
    "optical_density",
    "pool",
    "pseudo_inverse",
    "render_views",
    "separate",
    "separate_density",
    "transmitted",
    "turned_planes",
    "two_views",
]
