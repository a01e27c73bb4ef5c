"""One group of checks in this process: ``python -m wsi_lmc.doctor GROUP OUT`` writes a line of JSON a check."""

import sys
from importlib import import_module
from pathlib import Path

from wsi_lmc.doctor import GROUPS, as_lines

if __name__ == "__main__":
    group = GROUPS[GROUPS.index(sys.argv[1])]
    for line in as_lines(import_module(f"wsi_lmc.doctor.{group}").checks(Path(sys.argv[2]))):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
