"""A page on loopback to look at a run: slides with their tissue, tiles and whatever is known of each tile."""

from wsi_lmc.viewer.server import ViewServer
from wsi_lmc.viewer.viewing import ViewConfig

__all__ = ["ViewConfig", "ViewServer"]
