"""``wsi-lmc push``: an encoder to the Hugging Face Hub, after a look at what would go there."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import interruptible
from wsi_lmc.encoder.hub import Publication, check_token, prepare_publication, publish
from wsi_lmc.errors import UsageError


@interruptible
def command(
    ckpt: Annotated[Path, typer.Argument(help="Checkpoint folder that train wrote.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; made if need be.")],
    public: Annotated[bool, typer.Option("--public/--private", help="Who may see it.")] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", "--license", help="Licence of the weights, such as cc-by-4.0; else what README.md says."
        ),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Another Hub than HF_ENDPOINT or huggingface.co.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Publish an encoder on the Hugging Face Hub: its weights, configuration and model card, and nothing else.

    Shows what would be uploaded, and asks. Slides, features, provenance.json and training states stay here. Log in with
    "hf auth login", or set HF_TOKEN. Read encoder/README.md before, and say in it where your slides came from.
    """
    publication = prepare_publication(ckpt, repository, licence, private=not public, endpoint=endpoint)
    check_token()
    if not yes and not sys.stdin.isatty():
        raise UsageError("no terminal to ask on", "--yes", "Pass --yes if this upload is meant.")
    typer.echo(_describe(publication))
    if not yes and not typer.confirm("Upload?"):
        typer.echo("nothing was uploaded")
        raise typer.Exit(1)
    typer.echo(f"published: {publish(publication)}")
    typer.echo(f"next: wsi-lmc embed --encoder hf-hub:{repository}")


def _describe(publication: Publication) -> str:
    seen = "only by you and whom you let" if publication.private else "BY EVERYBODY"
    lines = [f"{publication.url}, to be seen {seen}; licence of the weights: {publication.licence}"]
    lines += [f"  {name:<20}{len(content):>12,} bytes" for name, content in publication.files.items()]
    return "\n".join(lines)
