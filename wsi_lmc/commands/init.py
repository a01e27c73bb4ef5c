"""``wsi-lmc init``: a file of all settings to start from."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import interruptible
from wsi_lmc.errors import UsageError
from wsi_lmc.publish import publish_file
from wsi_lmc.settingsfile import commented_yaml, schema_beside, schema_text


@interruptible
def command(
    file: Annotated[Path, typer.Argument(help="The file to write, in YAML.")] = Path("wsi-lmc.yaml"),
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of such files instead, and write nothing.")
    ] = False,
) -> None:
    """Write a file of all settings at their defaults, each under the sentence that explains it.

    Beside it goes the JSON schema that its first line names: editors complete and check settings by it. Files that are
    there are never replaced.
    """
    if schema:
        typer.echo(schema_text(), nl=False)
        return
    if file.suffix not in (".yaml", ".yml"):
        raise UsageError(f"a file {file}", "a name that ends in .yaml", "Name it so.")
    beside = schema_beside(file)
    for path in (file, beside):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} is there already", "a new file", "Name another, or move that one away.")
    publish_file(beside, schema_text())
    publish_file(file, commented_yaml(beside.name))
    typer.echo(f"{file}: all settings; {beside}: their schema, for editors")
    typer.echo(f"next: wsi-lmc tile slides/ --config {file}")
