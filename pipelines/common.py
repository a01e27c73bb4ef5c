"""What the experiments share: their command line, their settings, and who is told what.

``python -m pipelines.NAME --config configs/NAME/paper.yaml`` prepares the data set's run folders, then makes the study
of them. ``--check`` only looks whether a download is complete.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_lmc.commands.common import Crew
from wsi_lmc.config import build, flat_settings, read_config
from wsi_lmc.downloads import Finding
from wsi_lmc.errors import WsiLmcError
from wsi_lmc.executor import Executor
from wsi_lmc.publish import prepare_output, publish_text
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.study import Study, StudyConfig, StudyResult, compare_all, make_features, open_workshop, run_study

SETTINGS = "settings.json"


@dataclass
class Call:
    """One call of a pipeline: its settings, where its data lie and its results go; collects slides that failed."""

    settings: Mapping[str, object]
    data: Path
    out: Path
    workers: int | None = 1
    checksums: bool = True
    failures: list[Outcome] = field(default_factory=list)

    def section[C](self, name: str, kind: type[C]) -> C:
        """A section's settings."""
        found = self.settings[name]
        assert isinstance(found, kind)  # noqa: S101  as the pipeline's table of sections says
        return found

    def executor(self, tasks: int) -> Executor:
        """Who does the work on slides."""
        return Crew(self.workers).executor(tasks)

    def say(self, text: str) -> None:
        """Tell the user how far it is."""
        print(text, flush=True)

    def heard(self, stage: str, outcomes: Sequence[Outcome]) -> None:
        """Say how slides came out of a stage, and remember those that failed."""
        failed = [outcome for outcome in outcomes if outcome.state == "failed"]
        for outcome in failed:
            self.say(f"  {outcome.slide_id}: {outcome.code}: {outcome.reason}. {outcome.remedy}")
        tiles = sum(outcome.tiles for outcome in outcomes)
        self.say(f"{stage}: {tiles} tiles of {len(outcomes) - len(failed)} slides, {len(failed)} failed")
        self.failures += failed


@dataclass(frozen=True)
class Pipeline:
    """One experiment: sections of its settings beside ``study``, how its data are checked, how they are prepared.

    Several studies, by name of their source, are compared together in the end; None where all is done already.
    """

    name: str
    about: str
    sections: Mapping[str, type]
    check: Callable[[Call], list[Finding]]
    prepare: Callable[[Call], Study | Mapping[str, Study] | None]


def main(pipeline: Pipeline, arguments: Sequence[str] | None = None) -> int:
    """Run one experiment from its command line; returns the exit code."""
    given = _parser(pipeline).parse_args(arguments)
    try:
        sections = {**pipeline.sections, "study": StudyConfig}
        settings = read_settings(given.config, sections)
        call = Call(settings, given.data, given.output, given.workers, not given.no_checksums)
        return _check(pipeline, call) if given.check else _run(pipeline, call, given.prepare_only, given.features_only)
    except WsiLmcError as error:
        print(f"{pipeline.name}: {error}", file=sys.stderr)
        return error.exit_code


def read_settings(path: Path, sections: Mapping[str, type]) -> dict[str, object]:
    """Every section's settings: those the file states, and defaults.

    Raises:
        UsageError: a section or a key that nobody knows, or a value of another type.
    """
    stated = read_config(path, tuple(sections))
    return {
        name: build(kind, {key: _as_tuple(value) for key, value in stated.get(name, {}).items()}, f"{path}: {name}")
        for name, kind in sections.items()
    }


def numbered(what: str, first: int, last: int, suffix: str, digits: int = 3) -> tuple[str, ...]:
    """Names of files such as ``normal_001.tif``."""
    return tuple(f"{what}{number:0{digits}d}{suffix}" for number in range(first, last + 1))


def _run(pipeline: Pipeline, call: Call, prepare_only: bool, features_only: bool) -> int:
    prepare_output(call.out)
    resolved = {name: flat_settings(each) for name, each in call.settings.items()}
    publish_text(call.out, call.out / SETTINGS, json.dumps(resolved, indent=1) + "\n")
    found = pipeline.prepare(call)
    if found is None:
        return 1 if call.failures else 0
    for study in found.values() if isinstance(found, Mapping) else (found,):
        call.say(f"prepared: classes {', '.join(study.classes)}; targets {', '.join(study.targets)}; see {call.out}")
    if not prepare_only:
        _study_all(call, found, features_only)
    return 1 if call.failures else 0


def _study_all(call: Call, found: Study | Mapping[str, Study], features_only: bool) -> None:
    """Make the studies and say their tables, or make their features and no more."""
    config = call.section("study", StudyConfig)
    out = call.out / "study"
    if isinstance(found, Study):
        if features_only:
            make_features(open_workshop(found, config, out), call.say)
            return
        result = run_study(found, config, out, call.say)
        call.say((out / "table.md").read_text(encoding="utf-8"))
        call.say(f"see {', '.join(str(file) for file in result.files)}")
        return
    workshops = {source: open_workshop(study, config, out / source) for source, study in found.items()}
    for seed in range(config.seeds):  # of all studies, so that processes which share the work have some
        for source, workshop in workshops.items():
            call.say(f"source {source}")
            make_features(workshop, call.say, [seed])
    if features_only:
        return
    results: dict[str, StudyResult] = {}
    for source, study in found.items():
        results[source] = run_study(study, config, out / source, call.say)
        call.say(f"source {source}")
        call.say((out / source / "table.md").read_text(encoding="utf-8"))
    compare_all(results, out)
    call.say((out / "table.md").read_text(encoding="utf-8"))
    call.say(f"see {out / 'table.md'}, and the tables of each source")


def _check(pipeline: Pipeline, call: Call) -> int:
    found = pipeline.check(call)
    for finding in found:
        call.say(f"{finding.found}. {finding.remedy}")
    call.say(f"{pipeline.name}: {len(found) or 'nothing'} wrong with {call.data}; see docs/data.md")
    return 1 if found else 0


def _as_tuple(value: object) -> object:
    """YAML has lists, settings are frozen."""
    return tuple(_as_tuple(each) for each in value) if isinstance(value, list) else value


def _parser(pipeline: Pipeline) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m pipelines.{pipeline.name}", description=pipeline.about)
    default = Path("configs") / pipeline.name / "paper.yaml"
    parser.add_argument("--config", type=Path, default=default, help="settings in YAML [%(default)s]")
    data, out = Path("data") / pipeline.name, Path("runs") / pipeline.name
    parser.add_argument("--data", type=Path, default=data, help="folder of the download [%(default)s]")
    parser.add_argument("-o", "--output", type=Path, default=out, help="folder of the results [%(default)s]")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes for slides, 0 for none but this one [one a core]"
    )
    parser.add_argument("--check", action="store_true", help="look whether the download is complete, and do no more")
    parser.add_argument("--no-checksums", action="store_true", help="with --check: do not read whole files")
    parser.add_argument("--prepare-only", action="store_true", help="stop once the run folders are made")
    parser.add_argument(
        "--features-only",
        action="store_true",
        help="stop once encoders are trained and features made: for any number of processes that share the work",
    )
    return parser
