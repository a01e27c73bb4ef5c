"""``wsi-lmc evaluate``: how much of the site is in the features, of several encoders side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import interruptible
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import (
    Baseline,
    EvaluateConfig,
    Evaluation,
    evaluate,
    gains_text,
    left_out_text,
    prepare,
    report_text,
    write_evaluation,
)
from wsi_lmc.featuresets import Reading, load_feature_sets
from wsi_lmc.regrouping import LABEL, PATIENT, SITE, Columns, regroup
from wsi_lmc.tilepairs import load_pairs
from wsi_lmc.trainedslides import slides_trained_on

_DEFAULT = EvaluateConfig()


@interruptible
def command(
    features: Annotated[
        list[str], typer.Argument(help="Run folders that embed wrote, as NAME=FOLDER; one name in several: one set.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path("wsi-lmc-evaluation"),
    by: Annotated[str, typer.Option(help="What features should not show: site, or a column of --manifest.")] = SITE,
    label: Annotated[str, typer.Option(help="What they should show: label, or a column of --manifest.")] = LABEL,
    group: Annotated[
        str, typer.Option(help="What stays on one side of a split: patient, slide, or a column of --manifest.")
    ] = PATIENT,
    manifest: Annotated[
        Path | None, typer.Option(help="Manifest that goes before those of the run folders; columns as for tile.")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="Labels that count, with commas between; of two the last is positive.")
    ] = "",
    source: Annotated[str, typer.Option(help="Site where classes are learnt; by default each in turn.")] = "",
    pairs: Annotated[
        Path | None, typer.Option(help="CSV of the same tissue in two scans: slide_a,x_a,y_a,slide_b,x_b,y_b.")
    ] = None,
    seen: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoint folder whose slides count in transfer and pairs alone; may be repeated."),
    ] = None,
    baseline: Annotated[str, typer.Option(help="Baselines to measure as well: colour,texture (reads the tiles).")] = "",
    tiles_per_slide: Annotated[int, typer.Option(min=0, help="Tiles read of a slide at the most; 0: all.")] = 0,
    tiles_per_site: Annotated[
        int, typer.Option(min=20, help="Tiles measured of a site at the most.")
    ] = _DEFAULT.tiles_per_site,
    k: Annotated[int, typer.Option(min=6, help="Neighbours that count.")] = _DEFAULT.k,
    seed: Annotated[int, typer.Option(help="Decides which tiles are drawn, and the intervals.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measure the batch effect in features, and what it does to a classifier, for one encoder or several.

    Every value comes with its interval, and with what it has to be held against: the floor (no batch effect) or chance.
    Writes evaluation.json, evaluation.csv and pictures.
    """
    reading = Reading(
        manifest, tuple(part.strip() for part in classes.split(",") if part.strip()), tiles_per_slide, seed
    )
    config = EvaluateConfig(
        by=by, source=source, k=k, seed=seed, tiles_per_site=tiles_per_site, seen=slides_trained_on(seen or ())
    )
    sets = regroup(load_feature_sets(features, reading), Columns(by, label, group), manifest)
    found_pairs = load_pairs(features, reading, pairs) if pairs else None
    ready, dropped = prepare(sets, config, _baselines(baseline))

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    evaluation = evaluate(ready, config, found_pairs, say)
    _tell(evaluation, write_evaluation(evaluation, ready, output, seed), dropped)
    if config.seen:
        count = f"{evaluation.settings['seen']} of {evaluation.encoders[-1].slides} slides"
        typer.echo(f"seen in training: {count}; only transfer and pairs count them")


def _tell(evaluation: Evaluation, files: Sequence[Path], dropped: int) -> None:
    """The tables, what they rest on, and where everything lies."""
    typer.echo("\n\n".join(filter(None, (report_text(evaluation), gains_text(evaluation)))))
    missing = left_out_text(evaluation)
    typer.echo(f"\n{missing}" if missing else "")
    first, by = evaluation.encoders[-1], evaluation.by
    typer.echo(f"measured on {first.tiles} of {first.of} tiles, {first.groups} groups, {len(evaluation.sites)} {by}s")
    if dropped:
        typer.echo(f"{dropped} tiles were left out: not every encoder has features of them")
    typer.echo("Brackets: 95 % interval; floor: what there is without a batch effect; chance: what guessing gives.")
    typer.echo("Look at:")
    for file in files:
        typer.echo(f"  {file}")


def _baselines(text: str) -> list[Baseline]:
    known: tuple[Baseline, ...] = ("colour", "texture")
    asked = [part.strip() for part in text.split(",") if part.strip()]
    found: list[Baseline] = [kind for kind in known if kind in asked]
    unknown = set(asked) - set(known)
    if unknown:
        raise UsageError(f"baseline {min(unknown)}", f"one of {', '.join(known)}", "Check --baseline.")
    return found
