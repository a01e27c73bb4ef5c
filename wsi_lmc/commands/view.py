"""``wsi-lmc view``: look at a run in the browser."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import interruptible
from wsi_lmc.runfolder import DEFAULT
from wsi_lmc.viewer import ViewConfig, ViewServer


@interruptible
def command(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders; several where a cohort's hospitals have their own.")
    ] = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder of embed, where the features to look at lie elsewhere; may be repeated."),
    ] = None,
    classification: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that classify wrote, where it is not in the run folder; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in this machine's browser.")] = True,
) -> None:
    """Look at a run in the browser: slides, tissue, tiles, values of tiles as maps, and the tiles most like one.

    Serves this machine alone (127.0.0.1), to whoever has the address that is printed, until Ctrl-C. Writes nothing.
    From elsewhere use a tunnel: ssh -L 8000:127.0.0.1:8000 MACHINE, with --port 8000.
    """
    config = ViewConfig(tuple(runs or [DEFAULT]), tuple(features or ()), tuple(classification or ()))
    server = ViewServer(config, port)

    def ready() -> None:
        typer.echo(f"{server.url}\nOpen this address; it works on this machine alone. Ctrl-C ends it.")
        if browser and _has_desktop():
            webbrowser.open(server.ticket_url())

    server.run(ready)


def _has_desktop() -> bool:
    """Whether a browser would open in a window, and not in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
