"""Every text format that is parsed, as a function that takes a file of it, with files that are whole to start from.

Whatever stands in a file, a parser gives a value or raises an error of `wsi_lmc.errors`; anything else is a fault. What
is given must be usable, so each parser here goes on to the first use of it.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsi_lmc.cohort import find_slides, write_manifest
from wsi_lmc.config import build, flat_settings, read_config
from wsi_lmc.contours import mask_to_polygons, polygons_to_mask, read_geojson, to_geojson
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import measure_grid
from wsi_lmc.jobqueue import GROUPS, JobConfig
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import WORKING, holders
from wsi_lmc.runfolder import PLANNED, outcomes, planned_slides, write_table
from wsi_lmc.slide import SlideGeometry, check_file, parse_mpp
from wsi_lmc.slide.geometry import whole_slide
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import TrainConfig
from wsi_lmc.units import Mpp, SlidePoint, SlideSize

_SHAPE = (40, 60)
_SCALE = (16.0, 16.0)
_STAGES: dict[str, type[Any]] = {"tile": TileConfig, "train": TrainConfig, "embed": EmbedConfig}


def parse_manifest(path: Path) -> None:
    """A cohort's manifest: its slides are looked for, and written down again."""
    manifest = path.with_suffix(".csv")
    path.rename(manifest)
    entries = find_slides([str(manifest)])
    for entry in entries:
        parse_mpp(entry.mpp or "")
        try:
            check_file(entry.path)
        except SlideError:
            continue  # no slide is there
    write_manifest(path, entries)


def parse_outline(path: Path) -> None:
    """A tissue outline in GeoJSON: filled into a mask, and written again."""
    polygons = read_geojson(path, SlidePoint(3, 5))
    mask = polygons_to_mask(polygons, _SHAPE, _SCALE)
    to_geojson("slide", mask_to_polygons(mask, _SCALE), SlidePoint(3, 5))


def parse_settings(path: Path) -> None:
    """A file of settings: built into configurations, which are fingerprinted; its tiles are placed on a slide."""
    for section, values in read_config(path).items():
        config = build(_STAGES[section], values, f"{path}, section {section}")
        fingerprint(flat_settings(config))
        if isinstance(config, TileConfig):
            size = SlideSize(40_000, 30_000)
            measure_grid(SlideGeometry(size, Mpp(0.25, 0.25), (1.0, 4.0), whole_slide(size)), config.grid)


def parse_jobs(path: Path) -> None:
    """A file of SLURM jobs."""
    for section, values in read_config(path, GROUPS).items():
        jobs = build(JobConfig, values, f"{path}, section {section}")
        fingerprint(jobs)
        assert jobs.workers > 0
        assert jobs.slides_at_once > 0


def parse_run(path: Path) -> None:
    """What a run folder knows of its slides, of which each file may be damaged: the table is made of it.

    Requests are named by their content, so that each gets as far as its parser.
    """
    out = path.parent / "run"
    digest = hashlib.sha256(path.read_text(encoding="utf-8", errors="replace").encode()).hexdigest()[:16]
    for place in ("records/tile/a.json", f"records/{PLANNED}/tile-{digest}.json", f"{WORKING}/tile-a.json"):
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).write_bytes(path.read_bytes())
    holders(out)
    write_table(out)
    assert all(outcome.tiles + outcome.seconds >= 0 or outcome for outcome in outcomes(out, "tile"))
    planned_slides(out, "tile")


PARSERS: dict[str, Callable[[Path], None]] = {
    "run": parse_run,
    "manifest": parse_manifest,
    "outline": parse_outline,
    "settings": parse_settings,
    "jobs": parse_jobs,
}

WHOLE: dict[str, bytes] = {
    "run": b'["slide-1", "slide-2"]',
    "manifest": (
        b"slide,mpp,patient,site,label,slide_id\r\n"
        b'"x/a, b.svs","0,5",P 7,north,"tumor, high",slide-1\r\n'
        b"y/c.svs,0.25,P 8,south,normal,\r\nGr\xc3\xb6\xc3\x9fe.tif,,,,,\r\n"
    ),
    "outline": (
        b'{"type":"FeatureCollection","features":[{"type":"Feature","id":"1","geometry":{"type":"Polygon",'
        b'"coordinates":[[[16,16],[320.5,16],[320.5,400],[16,400],[16,16]],[[64,64],[96,64],[96,96],[64,64]]]},'
        b'"properties":{"objectType":"annotation","classification":{"name":"Tissue","color":[200,0,80]}}},'
        b'{"type":"Feature","geometry":{"type":"MultiPolygon","coordinates":[[[[500,100],[600,100],[600,2e2]]]]}}]}'
    ),
    "settings": (
        b"# of a run\ntile:\n  tile_px: 256\n  tile_mpp: 0.5\n  stride: null\n  edge: pad\n  min_tissue: 0.25\n"
        b"  mpp: 0.25\n  reader: auto\n  overview_mpp: 8.0\n  lowest_threshold: 6\ntrain: &t\n  steps: 50\n  batch: 8\n"
        b"  architecture: 'vit-demo'\nembed: {dtype: float16, batch: 1_6, pooling: own}\nfingerprint: \"0123\"\n"
    ),
    "jobs": (
        b"cpu: &jobs\n  jobs: 4\n  cores: 8\n  memory_gib: 32\n  walltime_h: 2.5\n  partition: long\n"
        b"  directives: [--qos=normal, '--nice=10']\n  prologue:\n    - module load cuda\n    - |\n      true\n"
        b"gpu:\n  <<: *jobs\n  gpus: 2\n  tasks: 4\n  folder: wsi-lmc-jobs\n"
    ),
}

_RECORD = (
    b'{"slide_id":"a","stage":"tile","state":"done","code":"","reason":"","remedy":"","tiles":4,"mpp":0.5,'
    b'"mpp_source":"manifest","seconds":1.5,"fresh":true,"detail":""}'
)

NASTY: dict[str, tuple[bytes, ...]] = {
    "run": (
        _RECORD, b"null", b"1", b"[1]", b"{}", b"\xff", b"", b"[" * 100_000, _RECORD.replace(b"4", b'"4"'),
        _RECORD.replace(b'"done"', b'"dine"'), _RECORD.replace(b'"tile"', b'[]'), _RECORD.replace(b"1.5", b"null"),
        _RECORD.replace(b"0.5", b"{}"), b'{"host":1,"pid":"x"}', b'{"host":"x","pid":-1}', b'{"pid":1}',
        b'{"host":"x","pid":1e999}', b'"text"', b"1" * 5000,
    ),
    "manifest": (
        b"\0", b"slide\n\0.svs\n", b"slide,slide\na,b\n", b"slide\n" + b"a" * 5000, b'slide\n"' + b"x" * 200_000,
        b"\xff\xfe", b"\xef\xbb\xbfslide\n\xed\xa0\x80", b"slide\n.\n..\n/\n", b"slide\n~\n-x\n=1+1\n", b"\n\n\n",
        b"slide,mpp\na.svs,1e999\nb.svs,\xd9\xa3\n",
    ),
    "outline": (
        b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b"1" * 5000, b"null", b"{}", b'{"features":{}}',
        b'{"type":"Polygon","coordinates":[[[NaN,1],[2,3],[4,5]]]}',
        b'{"type":"Polygon","coordinates":[[[1e999,1],[2,-1e999],[4,5]]]}',
        b'{"type":"Polygon","coordinates":[[[1e300,1],[2,-1e300],[4,5]]]}',
        b'{"type":"Polygon","coordinates":[[[1' + b"0" * 400 + b',1],[2,3],[4,5]]]}',
        b'{"type":"Polygon","coordinates":[[]]}', b'{"type":"Polygon","coordinates":[]}',
        b'{"type":"Polygon","coordinates":[[[1,2]]]}', b'{"type":"Polygon","coordinates":"abc"}',
        b'{"type":"Polygon","coordinates":{"a":[[1,2],[3,4],[5,6]]}}',
        b'{"type":["Polygon"],"coordinates":[]}', b'{"geometry":null}', b'{"geometry":{"type":{}}}',
    ),
    "settings": (
        b"tile: " + b"[" * 10_000, b"tile: {a: 2001-99-99}", b"tile: {tile_px: " + b"9" * 5000 + b"}",
        b"tile: !!int x", b"tile: !!float x", b"tile: !!binary x", b"tile: !!timestamp x", b"tile: {<<: [1]}",
        b"? [a]\n: 1", b"tile: &a {tile_px: *a}", b"tile: {? {}\n: 1}", b"tile: {tile_px: 0}", b"tile: {tile_px: -5}",
        b"tile: {stride: 0}", b"tile: {tile_mpp: 0}", b"tile: {tile_mpp: -1}", b"tile: {tile_mpp: 1.0e-300}",
        b"tile: {tile_px: 99999999999999999999}", b"tile: {overview_mpp: 0}", b"tile: {smooth_um: -1.0}",
        b"tile: {stride: 1}", b"tile: {max_gigapixels: 1.0e+300, max_tiles: 99999999999999, tile_mpp: 1.0e-9}",
        b"tile: {1: 2}", b"1: {}", b"~: {}", b"[]: {}", b"--- a\n--- b", b"%YAML 9.9\n---\n", b"\0", b"\xff\xfe",
        b"a: &a [x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 8)) for c in range(98, 110))
        + b"tile: {tile_px: *m}",
    ),
    "jobs": (
        b"cpu: {jobs: 0}", b"cpu: {walltime_h: .nan}", b"cpu: {walltime_h: 1.0e+300}", b"cpu: {cores: -1}",
        b"cpu: {jobs: 99999999999999999999999}", b"cpu: {directives: abc}", b"cpu: {directives: [[]]}",
        b"cpu: {gpus: 1, processes: 2}", b"cpu: {folder: \"\\0\"}", b"gpu: [1]", b"cpu: {prologue: {a: b}}",
    ),
}  # fmt: skip
"""What has broken parsers elsewhere, or here."""
