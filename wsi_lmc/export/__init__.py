"""Features as other tools read them: `export_features` writes the folders of twelve of them."""

from wsi_lmc.export.bags import ExportResult, Skipped
from wsi_lmc.export.exporting import export_features
from wsi_lmc.export.layouts import Target

__all__ = ["ExportResult", "Skipped", "Target", "export_features"]
