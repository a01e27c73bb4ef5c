"""``wsi-lmc classify``: heads on frozen features, trained on one site, applied to others."""

import time
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.classification import MODEL, Hearers, Selection, Task, apply, classify
from wsi_lmc.commands.common import Quiet, with_settings
from wsi_lmc.config import build
from wsi_lmc.errors import UsageError
from wsi_lmc.heads.config import HeadConfig
from wsi_lmc.heads.learning import HEADS
from wsi_lmc.heads.model import HeadKind, Level
from wsi_lmc.heads.reporting import scores_text
from wsi_lmc.progress import LINE_EVERY_S
from wsi_lmc.runfolder import DEFAULT


@with_settings({"classify": HeadConfig})
def command(
    given: dict[str, dict[str, object]],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for predictions, scores, model and maps.")],
    sets: Annotated[
        list[str] | None,
        typer.Argument(help="Run folders that embed wrote, of one encoder: FOLDER or NAME=FOLDER."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Site to train on, as in the manifest's column site.")] = None,
    level: Annotated[Level | None, typer.Option(help="What has labels: tiles (labels/) or slides (manifest).")] = None,
    head: Annotated[
        HeadKind | None,
        typer.Option(help="logistic, knn, mlp for tiles; mean, abmil, transformer for slides. [default: the first]"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Labels that count, separated by commas; of two, the last is the positive one.")
    ] = None,
    label: Annotated[str, typer.Option(help="Column of --manifest with the slides' labels.")] = "label",
    manifest: Annotated[
        Path | None, typer.Option(help="Sites, patients and labels; goes before the run folders' own.")
    ] = None,
    apply_model: Annotated[
        Path | None, typer.Option("--apply", help="Use this model (OUT/model of an earlier call) and train nothing.")
    ] = None,
    maps: Annotated[bool, typer.Option(help="GeoJSON and picture of each slide.")] = True,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on one site's features and labels, and apply it to every site.

    All is chosen on the source alone, by folds of its patients. Writes OUT/predictions.csv, scores.json, scores.csv,
    model/ and attention/ (for QuPath and as pictures). Slides and sites without labels are predicted, too.
    """
    names = tuple(name.strip() for name in (classes or "").split(",") if name.strip())
    selection = Selection(tuple(sets or [str(DEFAULT)]), manifest, label, names)
    config = build(HeadConfig, given["classify"], "flags")
    hearers = _hearers(quiet)
    if apply_model is not None:
        if source or level or head:
            raise UsageError("--apply with --source, --level or --head", "one of them", "The model has its own.")
        sites = apply(selection, apply_model, output, (_device(config), maps), hearers)
    else:
        if source is None:
            raise UsageError("no --source", "the site to train on", "Name it, or a model with --apply.")
        sites = classify(selection, Task(source, _head(level, head), config, maps), output, hearers)
    typer.echo(scores_text(sites) if sites else "no labels at any target: predictions only")
    typer.echo(f"see {output}")
    if apply_model is None:
        typer.echo(f"next: wsi-lmc classify --apply {output / MODEL} RUN -o DIR")


def _head(level: Level | None, head: HeadKind | None) -> HeadKind:
    """The head asked for; of a level alone its first one."""
    if head is None:
        return HEADS[level or "tile"][0]
    if level is not None and head not in HEADS[level]:
        raise UsageError(f"--level {level} --head {head}", " or ".join(HEADS[level]), "Change one of them.")
    return head


def _device(config: HeadConfig) -> str:
    from wsi_lmc.encoder import resolve_device  # torch only where it is needed

    return str(resolve_device(config.device))


def _hearers(quiet: bool) -> Hearers:
    """Lines on standard error, and one every half minute of how many slides are predicted."""
    done, last = 0, time.monotonic()

    def line(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    def slide(slide_id: str) -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            line(f"{done} slides predicted, {slide_id} the last")

    return Hearers(line, slide)
