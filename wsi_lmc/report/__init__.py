"""One self-contained page about a run folder and whatever was made of it."""

from wsi_lmc.report.building import ReportConfig, build_report
from wsi_lmc.report.writing import REPORT, write_report

__all__ = ["REPORT", "ReportConfig", "build_report", "write_report"]
