"""``wsi-lmc embed``: tile stores, or slides, to features."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.cluster import LocalWorkers
from wsi_lmc.commands.common import (
    Cluster,
    ConfigFile,
    Crew,
    Insecure,
    Mask,
    Output,
    Overwrite,
    Pseudonyms,
    Quiet,
    Scheduler,
    ShardText,
    SlideTimeout,
    Workers,
    close,
    jobs_for,
    resolve,
    with_settings,
)  # fmt: skip
from wsi_lmc.division import WHOLE, parse_shard
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import visible_gpus
from wsi_lmc.errors import UsageError
from wsi_lmc.progress import ProgressReport
from wsi_lmc.pseudonyms import find_named_slides
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, holds_stores
from wsi_lmc.runfolder import DEFAULT, prepare_run
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.threads import available_cores

_CORES_A_WORKER = 8
_SLIDES_AT_ONCE = 4


@with_settings({"embed": EmbedConfig, "tile": TileConfig})
def command(
    given: dict[str, dict[str, object]],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Run folders or tile stores, or slides to read on the fly; by default wsi-lmc-run."),
    ] = None,
    ckpt: Annotated[str | None, typer.Option(help="Checkpoint folder that train wrote.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Another encoder: timm name, local-dir:PATH, hf-hub:OWNER/NAME, untrained:NAME."),
    ] = None,
    output: Output = DEFAULT,
    config: ConfigFile = None,
    mask: Mask = None,
    pseudonyms: Pseudonyms = None,
    overwrite: Overwrite = False,
    shard: ShardText = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    insecure: Insecure = False,
    cluster: Cluster = None,
    slide_timeout: SlideTimeout = 86400.0,
    quiet: Quiet = False,
) -> None:
    """Turn every tile into features with a frozen encoder.

    From tile stores, or straight from slides (tiled on the fly by the same rules; the tile settings below apply to
    these only). Writes OUT/features/<slide_id>.zarr and slides.csv. Exit code 1 if any slide failed.
    """
    spec = _encoder(ckpt, encoder)
    share = parse_shard(shard, os.environ)
    settings = _absolute(resolve("embed", EmbedConfig, config, given))
    jobs = jobs_for("gpu" if _on_gpu(settings) else "cpu", cluster, scheduler)
    named = inputs or [str(DEFAULT)]
    stores = find_stores([Path(text) for text in named if holds_stores(Path(text))])
    slides = [text for text in named if not holds_stores(Path(text))]
    if pseudonyms is not None and not slides:
        raise UsageError(
            "--pseudonyms without slides", "slides to read on the fly", "Tile stores have their ids already."
        )
    entries = find_named_slides(slides, pseudonyms, output) if slides else []
    prepare_run(output, slides)
    what = EmbedInputs(stores, entries, resolve("tile", TileConfig, config, given))
    total = share.size(len(stores) + len(entries))
    crew = Crew(workers, scheduler, insecure, jobs, slide_timeout)
    with (
        crew.executor_of(_workers(total, workers, settings)) as executor,
        ProgressReport("embed", total, quiet) as progress,
    ):
        options = RunOptions(executor, mask, overwrite, progress.add, share)
        outcomes = embed_cohort(what, spec, output, settings, options)
    where = "" if output == DEFAULT else f" {output}"
    following = f"wsi-lmc export{where} --to trident -o DIR"
    close(outcomes, output, following if share == WHOLE else f"wsi-lmc status {output}")


def _workers(slides: int, asked: int | None, settings: EmbedConfig) -> LocalWorkers:
    """A worker process a GPU; without one, a process for every few cores, since a small network fills no more.

    Each has several slides in work, so that the device never waits for one to be opened, read or written.
    """
    gpus = visible_gpus() if _on_gpu(settings) else []
    count = len(gpus) or -(-available_cores() // _CORES_A_WORKER)
    return LocalWorkers(min(count, max(slides, 1)) if asked is None else asked, _SLIDES_AT_ONCE, gpus)


def _on_gpu(settings: EmbedConfig) -> bool:
    """Whether a GPU is used where there is one."""
    return settings.device in ("auto", "cuda") and settings.backend == "torch"


def _absolute(settings: EmbedConfig) -> EmbedConfig:
    """The same with absolute paths, since workers may run elsewhere."""
    found = {name: getattr(settings, name) for name in ("reference", "weights")}
    return replace(settings, **{name: str(Path(path).resolve()) for name, path in found.items() if path})


def _encoder(ckpt: str | None, encoder: str | None) -> str:
    """The one encoder that was named; a folder as an absolute path, since workers may run elsewhere."""
    if (ckpt is None) == (encoder is None):
        found = "neither --ckpt nor --encoder" if ckpt is None else "both --ckpt and --encoder"
        raise UsageError(found, "one of them", "Give the folder that 'wsi-lmc train' wrote with --ckpt.")
    if encoder is not None:
        source, _, path = encoder.partition(":")
        return f"{source}:{Path(path).resolve()}" if source == "local-dir" else encoder
    folder = Path(ckpt or "")
    if not folder.is_dir():
        raise UsageError(f"no checkpoint folder {folder}", "the folder that 'wsi-lmc train' wrote", "Check --ckpt.")
    return str(folder.resolve())
