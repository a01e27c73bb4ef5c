"""Where the page is written to."""

from collections.abc import Sequence
from pathlib import Path

from wsi_lmc.publish import publish_file
from wsi_lmc.report.building import ReportConfig, build_report

REPORT = "report.html"


def write_report(folders: Sequence[Path], path: Path, config: ReportConfig = ReportConfig()) -> Path:  # noqa: B008  frozen
    """Build the page about ``folders`` and publish it at ``path``.

    Raises:
        UsageError: nothing to report on, or ``path`` cannot be written.
    """
    publish_file(path, build_report(folders, config))
    return path
