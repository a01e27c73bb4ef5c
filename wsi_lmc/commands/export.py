"""``wsi-lmc export``: features in the files other tools read, or the encoder for other runtimes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsi_lmc.errors import UsageError
from wsi_lmc.export import Target, export_features
from wsi_lmc.featuresets import tiled_in
from wsi_lmc.run import find_features
from wsi_lmc.runfolder import DEFAULT, list_slides


def command(
    to: Annotated[
        Literal[Target, "onnx"],
        typer.Option(
            help="Whose layout: trident is also Patho-Bench's and TITAN's, transmil also DSMIL's, spatialdata also "
            "LazySlide's; or onnx, for an encoder."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the exported files; of onnx, the file.")],
    run: Annotated[Path, typer.Argument(help="Run folder; for onnx, the folder that train wrote.")] = DEFAULT,
) -> None:
    """Write a run's features as another tool reads them; tiles that could not be read are left out.

    Tables to train from (CLAM's dataset.csv, STAMP's clini.csv, eva's manifest.csv and the like) hold the patients and
    labels of the manifest that the slides came from. anndata and spatialdata need the package's extra scverse, parquet
    the extra parquet. With --to onnx, an encoder: bytes of RGB tiles in, features out, in float32 (the extra onnx).
    """
    if to == "onnx":
        _export_encoder(run, output)
        return
    stores = find_features(run)
    tiled = tiled_in(run)
    entries = {entry.slide_id: entry for home in (*set(tiled.values()), run) for entry in list_slides(home)}
    outlines = {
        store.slide_id: tiled.get(store.slide_id, run) / "contours" / f"{store.slide_id}.geojson" for store in stores
    }
    result = export_features(stores, to, output, entries.values(), outlines)
    for slide in result.skipped:
        typer.echo(f"{slide.slide_id}: {slide.reason}", err=True)
    for slide_id, count in result.dropped.items():
        typer.echo(f"{slide_id}: {count} unreadable tiles left out", err=True)
    typer.echo(f"{len(result.files)} files in {output}, as {to} reads them")


def _export_encoder(checkpoint: Path, path: Path) -> None:
    from wsi_lmc.encoder import load_encoder, resolve_device  # torch only where it is needed
    from wsi_lmc.export.onnx import export_onnx

    if not checkpoint.is_dir():
        raise UsageError(f"no folder {checkpoint}", "a checkpoint folder that train wrote", "Name it.")
    encoder = load_encoder(str(checkpoint.resolve()), resolve_device("cpu"))
    export_onnx(encoder, path)
    typer.echo(f"{path}: {encoder.architecture}, tiles of {encoder.input_px} px to {encoder.dim} features")
