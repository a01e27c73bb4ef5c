"""The manual's examples for SLURM, Kubernetes, Snakemake, Nextflow and containers.

Snakemake's and SLURM's are run, the latter with stand-ins for ``sbatch``; of the others the commands are given to the
program's own parser, and what can be read of the files is checked.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.forked import Commands
from tests.manual import EXAMPLES, ROOT, check_call, program_calls
from tests.onpath import on_path
from wsi_lmc.cohort import SlideEntry, write_manifest
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.synthetic import write_cohort

SCRIPTS = sorted((EXAMPLES / "slurm").iterdir())
_SBATCH = """#!/bin/bash
# sbatch on a machine without SLURM: runs a script at once, each task of its array after the other; tells the job's id.
set -eu
script=${@: -1}
echo "$*" >> "$JOBS"
array=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for task in $(seq "${array:-1}"); do
  if [ -n "$array" ]; then
    export SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$array SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=$array
  fi
  SLURM_CPUS_PER_TASK=0 bash "$script" >&2
done
echo $(($(wc -l < "$JOBS") + 100))
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of two sites in folders of their own, with a manifest each."""
    folder = tmp_path_factory.mktemp("two-sites")
    slides = write_cohort(folder, {"north": 3, "south": 2}, seed=5, size=(1536, 1280)).parent / "slides"
    for site in ("north", "south"):
        own = [SlideEntry(path, path.stem, site=site) for path in sorted(slides.glob(f"{site}-*"))]
        write_manifest(folder / f"{site}.csv", own)
    return folder


def _features(run: Path) -> dict[str, int]:
    stores = [FeatureStore.open(path) for path in sorted((run / "features").glob("*.zarr"))]
    return {store.slide_id: len(store) for store in stores}


@pytest.mark.slow
def test_slurm_scripts_run_in_order(cohort: Path, tmp_path: Path, program: Commands) -> None:
    for name in ("tile.sbatch", "train.sbatch", "embed.sbatch", "submit.sh"):
        shutil.copy(EXAMPLES / "slurm" / name, tmp_path)
    for name, old, new in (("train", "--resume", "--resume --architecture vit-demo"), ("embed", "rs 1", "rs 0")):
        script = tmp_path / f"{name}.sbatch"
        script.write_text(script.read_text().replace(old, new))  # a small network, one process: for time
    with on_path(program) as found:
        (found.folder / "sbatch").write_text(_SBATCH)
        (found.folder / "sbatch").chmod(0o700)
        done = subprocess.run(
            ["bash", "submit.sh"],
            env=found.environment
            | {"SLIDES": str(cohort / "north.csv"), "RUN": str(tmp_path / "run"), "STEPS": "2"}
            | {"JOBS": str(tmp_path / "jobs")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert [words[0] for words, _ in found.calls] == ["tile"] * 4 + ["train"] + ["embed"] * 2
    assert {code for _, code in found.calls} == {0}
    assert "tile 101, train 102, embed 103" in done.stdout
    jobs = (tmp_path / "jobs").read_text().splitlines()
    assert ["afterok:101" in jobs[1], "afterok:102" in jobs[2]] == [True, True]
    assert sorted(_features(tmp_path / "run")) == ["north-01", "north-02", "north-03"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_slurm_scripts_are_bash_and_their_commands_understood(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    calls = [call for call in program_calls(text) if not call.startswith("wsi-lmc status $RUN says")]
    assert calls or script.name == "submit.sh"
    for call in calls:
        check_call(shlex.split(call.replace("${SLURM_CPUS_PER_TASK:-1}", "8").replace("${STEPS:-10000}", "5"))[1:])


@pytest.fixture
def snakemake() -> list[str]:
    """The words that start Snakemake from where ``make places`` put it, or a skip that says how to get it."""
    folder = Path(os.environ.get("WSI_LMC_SNAKEMAKE", Path(sys.prefix) / "snakemake"))
    if not (folder / "snakemake").is_dir():
        message = f"no Snakemake in {folder}: 'make places' puts it there"
        if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); from snakemake.cli import main; main()"
    return [sys.executable, "-c", start]


@pytest.mark.slow
def test_snakemake_runs_its_example(cohort: Path, tmp_path: Path, program: Commands, snakemake: list[str]) -> None:
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(EXAMPLES / "snakemake" / name, tmp_path)
    for site in ("north", "south"):
        shutil.copy(cohort / f"{site}.csv", tmp_path)
    few = ["shards=2", "steps=2", "train_flags=--architecture vit-demo --batch 8"]
    few += ["tile_flags=--workers 0", "embed_flags=--workers 0"]  # one process, for time
    command = [*snakemake, "--cores", "1", "--config", *few]
    with on_path(program) as found:
        environment = found.environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        first = len(found.calls)
        again = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert again.returncode == 0, again.stdout + again.stderr
    names = [words[0] for words, _ in found.calls]
    assert sorted(names) == sorted(["tile"] * 4 + ["train"] + ["embed", "verify", "export"] * 2 + ["evaluate"])
    assert len(found.calls) == first, "what is done is not done again"
    for site, count in (("north", 3), ("south", 2)):
        assert len(_features(tmp_path / "runs" / site)) == count
        assert len(list((tmp_path / "runs" / "clam" / site / "pt_files").iterdir())) == count
    assert (tmp_path / "runs" / "evaluation" / "evaluation.json").is_file()


def test_kubernetes_jobs_are_whole() -> None:
    text = (EXAMPLES / "kubernetes" / "pipeline.yaml").read_text(encoding="utf-8")
    jobs = list(yaml.safe_load_all(text))
    assert [job["metadata"]["labels"]["step"] for job in jobs] == ["tile", "train", "embed"]
    for job in jobs:
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert not container["image"].endswith(":latest")
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in spec["volumes"]}
        (script,) = container["args"]
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        (call,) = program_calls(script)
        words = shlex.split(call.replace("$((JOB_COMPLETION_INDEX + 1))", "1"))
        check_call(words[1:])
        if "--shard" in words:
            assert int(words[words.index("--shard") + 1].split("/")[1]) == job["spec"]["completions"]
        on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert on_gpu == container["image"].endswith("-cuda")


def test_nextflow_is_balanced_and_its_commands_understood() -> None:
    text = (EXAMPLES / "nextflow" / "main.nf").read_text(encoding="utf-8")
    config = (EXAMPLES / "nextflow" / "nextflow.config").read_text(encoding="utf-8")
    for source in (text, config):
        bare = re.sub(r'"""|\'[^\'\n]*\'|"[^"\n]*"|//.*', "", source)
        for left, right in ("{}", "()", "[]"):
            assert bare.count(left) == bare.count(right)
    processes = set(re.findall(r"^process (\w+)", text, re.MULTILINE))
    workflow = text[text.index("workflow {") :]
    assert processes == set(re.findall(r"\b([A-Z]{2,})\(", workflow)) == {"TILE", "TRAIN", "EMBED", "VERIFY"}
    assert set(re.findall(r"label '(\w+)'", text)) <= set(re.findall(r"withLabel: (\w+)", config))
    given = set(re.findall(r"^params\.(\w+) =", text, re.MULTILINE))
    assert set(re.findall(r"params\.(\w+)", text)) == given
    calls = program_calls("\n".join(re.findall(r'"""\n(.*?)"""', text, re.DOTALL)).replace("\\\\\n", "\\\n"))
    assert [call.split()[1] for call in calls] == ["tile", "train", "embed", "verify"]
    for call in calls:
        plain = call.replace("${shard}/${params.tile_shards}", "1/8").replace("${shard}/${params.embed_shards}", "1/2")
        check_call(shlex.split(re.sub(r"\$\{params\.\w+\}|\$\{task\.cpus\}", "8", plain))[1:])


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_images_run_as_somebody_and_hold_what_they_need() -> None:
    found = _instructions()
    stages = [words.split(" AS ") for name, words in found if name == "FROM"]
    assert [stage for _, stage in stages] == ["base", "cpu", "cuda"]
    image, tag = stages[0][0].split(":")
    assert image == "python"
    assert re.fullmatch(r"3\.\d+\.\d+-slim-\w+", tag), "a version of its own, not one that moves"
    for stage in ("cpu", "cuda"):
        own = found[found.index(("FROM", f"base AS {stage}")) + 1 :]
        until = next((i for i, (name, _) in enumerate(own) if name == "FROM"), len(own))
        names = [name for name, _ in own[:until]]
        assert names[-2:] == ["USER", "CMD"]
        assert dict(own[:until])["USER"] == "1000:1000"
        assert dict(own[:until])["CMD"] == '["wsi-lmc", "--help"]'
        assert "constraints.txt" in dict(own[:until])["RUN"]
    copied = [word for name, words in found if name == "COPY" for word in words.split()[:-1]]
    assert sorted(copied) == ["LICENSE", "README.md", "constraints.txt", "pyproject.toml", "wsi_lmc"]
    assert all((ROOT / name).exists() for name in copied)
    assert not {name for name, _ in found} & {"ADD", "ARG"}
    assert not re.search(r"token|password|secret|_key", "\n".join(words for _, words in found), re.IGNORECASE)


def test_only_what_is_installed_gets_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = [word for name, words in _instructions() if name == "COPY" for word in words.split()[:-1]]
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied)
