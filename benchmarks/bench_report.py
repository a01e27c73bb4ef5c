"""How long a report of a large cohort takes, and how large it is: ``python benchmarks/bench_report.py [SLIDES]``.

Records, manifest and overviews of a cohort that nobody has tiled are written first; one slide in fifty has failed.
"""

import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import psutil

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.provenance import fingerprint
from wsi_lmc.report import ReportConfig, build_report
from wsi_lmc.runfolder import Request, add_slides, plan, prepare_run, record_path
from wsi_lmc.steps.outcome import Outcome


def main() -> None:
    """Measure once and print it."""
    slides = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    folder = Path(tempfile.mkdtemp())
    _write_cohort(folder, slides)
    began = time.process_time()
    text = build_report([folder], ReportConfig())
    seconds = time.process_time() - began
    peak = psutil.Process().memory_info().rss / 1e9
    print(f"{slides} slides: {seconds:.1f} s of one core, {len(text.encode()) / 1e6:.2f} MB, {peak:.2f} GB of memory")
    shutil.rmtree(folder)


def _write_cohort(folder: Path, slides: int) -> None:
    prepare_run(folder)
    entries = [
        SlideEntry(folder / f"{number:06d}.svs", f"slide-{number:06d}", None, f"p{number // 3}", f"site {number % 7}")
        for number in range(slides)
    ]
    add_slides(folder, entries)
    plan(folder, "tile", Request(tuple(entry.slide_id for entry in entries)))
    picture = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", cv2.GaussianBlur(picture, (0, 0), 9))[1].tobytes()
    for part in ("overviews", "records/tile", "records/embed"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(entries):
        failed = Outcome(entry.slide_id, "tile", "failed", "truncated", "ends at byte 4096", "Copy it again.")
        done = Outcome(entry.slide_id, "tile", "done", tiles=3000, mpp=0.25, mpp_source="aperio.MPP")
        embedded = Outcome(entry.slide_id, "embed", "done", tiles=3000, mpp=0.25, mpp_source="aperio.MPP")
        for outcome in (failed,) if number % 50 == 0 else (done, embedded):
            values = asdict(outcome)
            text = json.dumps({**values, "sealed": fingerprint(values)}, indent=1) + "\n"
            record_path(folder, outcome.stage, outcome.slide_id).write_text(text, encoding="utf-8")
        (folder / "overviews" / f"{entry.slide_id}.jpg").write_bytes(encoded)


if __name__ == "__main__":
    main()
