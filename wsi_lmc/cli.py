"""The command line: names the commands, turns errors into one line and an exit code.

Notable: only the command that is run gets imported, and with it torch or dask; ``wsi-lmc --help`` imports none.
"""

import importlib
import keyword
import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from wsi_lmc import __version__
from wsi_lmc.errors import UsageError, WsiLmcError
from wsi_lmc.passing import is_full

COMMANDS = {
    "init": "Write a file of all settings to start from, each explained.",
    "plan": "Look at slides before any work: what would fail and why, tiles, disk, hours.",
    "doctor": "Check this machine and installation: versions, codecs, devices, the output's disk.",
    "tile": "Find tissue and cut calibrated tiles: slides in, tile stores out.",
    "pack": "Make tile stores of images that are tiles already: published patch data sets, your own.",
    "train": "Train a stain-invariant encoder on one site's tiles (LMC).",
    "embed": "Turn tile stores or slides into features with a frozen encoder.",
    "import": "Take features that TRIDENT or CLAM made, for evaluate, classify, report, export.",
    "evaluate": "Measure the batch effect in features of one encoder or several, and what it does.",
    "classify": "Train a classifier of tiles or slides on one site's features, apply it to others.",
    "view": "Look at a run in the browser: slides, tiles, maps of values, the most similar tiles.",
    "report": "Write one page about a run: slides, failures, training, evaluation, classifiers.",
    "status": "Say how far a run is, from any shell: counts, pace, time left, failures.",
    "verify": "Check that all of a run is there, whole and of what it claims to be; --repair mends.",
    "retry-failed": "Run again what failed, as it was asked for.",
    "export": "Write features as other tools read them (TRIDENT, CLAM, STAMP, QuPath, ...), or an encoder as ONNX.",
    "push": "Publish an encoder on the Hugging Face Hub, after asking.",
    "demo": "Run everything on synthetic slides of two sites, or on yours.",
}


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0, 1 (some slides failed), 2 (usage), 130 or 143."""
    words = _words_before_tab() if "_WSI_LMC_COMPLETE" in os.environ else sys.argv[1:]
    named = next((word for word in words if not word.startswith("-")), "")
    try:
        build_app(named)()
    except WsiLmcError as error:
        print(f"wsi-lmc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # of a disk, in the main process: slides' own are outcomes
        said = "no room left: free space" if is_full(error) else "check the disk and the permissions"
        print(f"wsi-lmc: {error}; {said}, then run the same command again.", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    sys.exit(0)


def _words_before_tab() -> list[str]:
    """Words of a line that a shell wants completed, without the last one: typer's protocol for bash and the others."""
    if "COMP_WORDS" in os.environ:
        return os.environ["COMP_WORDS"].split()[1 : int(os.environ.get("COMP_CWORD", "1"))]
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1 : None if line.endswith(" ") else -1]


def build_app(named: str) -> typer.Typer:
    """All commands, of which only the one ``named`` can be run; the others stand there with their one-line help."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_wsi_lmc)
    for name, summary in COMMANDS.items():
        if name == named:
            command: Callable[..., None] = importlib.import_module(module_of(name)).command
            app.command(name)(command)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def module_of(name: str) -> str:
    """Module of a command; one that Python has as a word of its own has an underscore behind."""
    return f"wsi_lmc.commands.{name.replace('-', '_')}{'_' if keyword.iskeyword(name) else ''}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wsi-lmc {__version__}")
        raise typer.Exit


def _wsi_lmc(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Whole-slide images in, features out that do not depend on the hospital's stain.

    In order: tile slides/, train, embed --ckpt CKPT, export. Results lie in wsi-lmc-run/ unless -o says otherwise.
    """
    del version


def _not_loaded() -> None:
    raise AssertionError("only the named command is ever run")
