"""What the commands share: flags made from configurations, executors, the closing lines."""

import functools
import inspect
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.config import build, read_config, settings_of
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import Executor
from wsi_lmc.jobqueue import GROUPS, JobConfig
from wsi_lmc.runfolder import SLIDES
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.threads import available_cores

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; flags override it.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Run folder.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes, by default one a core; 0 works in this process."),
]
Scheduler = Annotated[str | None, typer.Option(help="Address of a running dask scheduler to use instead of workers.")]
Cluster = Annotated[
    Path | None,
    typer.Option("--cluster", help="YAML file of SLURM jobs to start and use instead of workers; see docs/cluster.md."),
]
Insecure = Annotated[bool, typer.Option("--insecure-scheduler", help="Allow a remote scheduler without TLS.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make results anew that differ from what is asked for.")]
Mask = Annotated[Path | None, typer.Option(help="Tissue outline to use: a GeoJSON, or a folder of <slide_id>.geojson.")]
Pseudonyms = Annotated[
    Path | None,
    typer.Option(
        help="CSV with columns slide and slide_id (and patient): ids of the slides, whose own names appear nowhere."
    ),
]
ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="i/n",
        help="Do only the i-th (from 1) of n shares of the slides, for array jobs; auto asks SLURM.",
    ),
]
SlideTimeout = Annotated[
    float,
    typer.Option(min=0.0, help="Seconds after which a slide (in embed: a block of it) counts as failed; 0: never."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system sends it: unwinds like Ctrl-C, so that nothing half-written stays."""


def interruptible[**P](command: Callable[P, None]) -> Callable[P, None]:
    """Let Ctrl-C and SIGTERM end a command with one line and the exit code 130 or 143."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as error:
            typer.echo("interrupted; what is published is whole, the same command goes on from there", err=True)
            raise SystemExit(143 if isinstance(error, Terminated) else 130) from error

    return run


def with_settings(configs: Mapping[str, type]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each setting of its configurations (by section), beside its own parameters.

    The command receives ``given``: the flags that were really used, by section.
    """
    flags = {setting.name: (section, setting) for section, config in configs.items() for setting in settings_of(config)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @interruptible
        def run(**arguments: Any) -> None:  # noqa: ANN401  whatever the flags are
            given: dict[str, dict[str, object]] = {section: {} for section in configs}
            for name, (section, _) in flags.items():
                value = arguments.pop(name)
                if value is not None:
                    given[section][name] = value
            command(**arguments, given=given)

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        made = [_flag(setting.name, setting.type, setting.default, setting.doc) for _, setting in flags.values()]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=keyword) for parameter in (*own, *made)]
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = command.__doc__
        return run

    return decorate


def resolve[C](section: str, config: type[C], file: Path | None, given: Mapping[str, Mapping[str, object]]) -> C:
    """A stage's configuration: its defaults, the file's section over them, the flags over both."""
    from_file = read_config(file).get(section, {}) if file else {}
    if from_file:
        build(config, from_file, f"{file}, section {section}")  # so that the message names the file
    return build(config, {**from_file, **given[section]}, "flags")


def jobs_for(section: str, file: Path | None, scheduler: str | None) -> JobConfig | None:
    """The jobs that a cluster file has for a command: those of its ``section`` (cpu or gpu), or of the other one.

    Raises:
        UsageError: a cluster and a scheduler, or a file that does not fit.
    """
    if file is None:
        return None
    if scheduler is not None:
        raise UsageError("both --cluster and --scheduler", "one of them", "Leave one out.")
    sections = read_config(file, GROUPS)
    if not sections:
        raise UsageError(f"no jobs in {file}", "a section cpu:, gpu: or both", "See docs/cluster.md.")
    found = section if section in sections else next(iter(sections))
    jobs = build(JobConfig, sections[found], f"{file}, section {found}")
    typer.echo(f"jobs of {file}, section {found}: {jobs.jobs}; their logs are in {jobs.folder}", err=True)
    return jobs


@dataclass(frozen=True)
class Crew:
    """Who does the work, as asked for on the command line; ``timeout_s`` a slide, 0 for none."""

    workers: int | None
    scheduler: str | None = None
    insecure: bool = False
    jobs: JobConfig | None = None
    timeout_s: float = 0.0

    def executor(self, tasks: int) -> Executor:
        """Jobs or workers as asked for; by default a worker a core, and not more than there are tasks."""
        wanted = min(available_cores(), max(tasks, 1)) if self.workers is None else self.workers
        return self.executor_of(LocalWorkers(wanted))

    def executor_of(self, workers: LocalWorkers) -> Executor:
        """The same, with other workers where they are of this machine."""
        return make_executor(self.jobs or workers, self.scheduler, self.insecure, self.timeout_s or None)


def close(outcomes: Sequence[Outcome], out: Path, following: str) -> None:
    """Say how the slides came out, name the next command, and leave with 1 where some failed."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        typer.echo(f"{outcome.slide_id}: {outcome.code}: {outcome.reason}. {outcome.remedy}", err=True)
    states = Counter(outcome.state for outcome in outcomes)
    before = sum(not outcome.fresh for outcome in outcomes)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no slides in this share"
    typer.echo(
        f"{counts}{f' ({before} before)' if before else ''}; {sum(o.tiles for o in outcomes)} tiles; see {out / SLIDES}"
    )
    if len(failed) < len(outcomes) and following:
        typer.echo(f"next: {following}")
    if failed:
        raise typer.Exit(1)


def _terminate(number: int, frame: object) -> None:
    del number, frame
    raise Terminated


def _flag(name: str, kind: object, default: object, doc: str) -> inspect.Parameter:
    shown = "" if default is None else f" [default: {default}]"
    option = typer.Option(help=f"{doc}{shown}", show_default=False)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
