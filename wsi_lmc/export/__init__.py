"""Features as other tools read them: `export_features` writes the folders of TRIDENT and of CLAM."""

from wsi_lmc.export.bags import ExportResult, Skipped
from wsi_lmc.export.exporting import Target, export_features

__all__ = ["ExportResult", "Skipped", "Target", "export_features"]
