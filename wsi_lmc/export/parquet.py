"""Parquet for databases and data frames: ``tiles/<id>.parquet``, a row a tile, ``slides.parquet``, a row a slide."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # pyright: ignore[reportMissingImports]  an extra
import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

from wsi_lmc.export.bags import Bag, Exported, Skipped
from wsi_lmc.publish import publishing


def write_parquet(bag: Bag, out: Path) -> list[Path]:
    """Write x, y (level-0 px, top-left), column, row, tissue fraction and the features as a list of fixed size.

    What the tiles are (mpp, size, encoder) stands in the file's metadata under ``wsi-lmc``, as JSON.
    """
    dim = bag.features.shape[1]
    flat = pa.array(bag.features.reshape(-1), pa.float32())
    steps = bag.steps
    columns: dict[str, Any] = {
        "slide_id": pa.DictionaryArray.from_arrays(pa.array([0] * len(bag.origins), pa.int32()), [bag.slide_id]),
        "x": bag.origins[:, 0],
        "y": bag.origins[:, 1],
        "column": steps[:, 0],
        "row": steps[:, 1],
        "tissue_fraction": bag.tissue_fraction,
        "features": pa.FixedSizeListArray.from_arrays(flat, dim),
    }
    about = {"tile": bag.attributes["tile"], "encoder": bag.attributes["encoder"]["name"]}
    table = pa.table(columns).replace_schema_metadata({"wsi-lmc": json.dumps(about, sort_keys=True)})
    return [_write(table, out, out / "tiles" / f"{bag.slide_id}.parquet")]


def finish_parquet(slides: Sequence[Exported], out: Path) -> tuple[list[Path], list[Skipped]]:
    """Write what is known of every slide; unknown patients, sites and labels are null."""
    columns = {
        "slide_id": [slide.slide_id for slide in slides],
        "patient": pa.array([slide.entry.patient or None for slide in slides], pa.string()),
        "site": pa.array([slide.entry.site or None for slide in slides], pa.string()),
        "label": pa.array([slide.entry.label or None for slide in slides], pa.string()),
        "tiles": pa.array([slide.tiles for slide in slides], pa.int64()),
        "mpp_x": pa.array([slide.attributes["slide"]["mpp"][0] for slide in slides], pa.float64()),
        "mpp_y": pa.array([slide.attributes["slide"]["mpp"][1] for slide in slides], pa.float64()),
    }
    return [_write(pa.table(columns), out, out / "slides.parquet")], []


def _write(table: "pa.Table", out: Path, final: Path) -> Path:
    with publishing(out, final) as draft:
        pq.write_table(table, draft, compression="zstd")
    return final
