"""The command line as a user meets it: real processes, their exit codes, what they print."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.forked import Commands
from wsi_lmc import __version__
from wsi_lmc.cli import COMMANDS


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``wsi-lmc`` in a process of its own."""
    command = [sys.executable, "-m", "wsi_lmc", *(str(argument) for argument in arguments)]
    environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=300)


def test_help_is_quick_and_names_every_command() -> None:
    process = psutil.Popen([sys.executable, "-m", "wsi_lmc", "--help"], stdout=subprocess.PIPE, text=True)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str, program: Commands) -> None:
    result = program(name, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout
    assert len(result.stdout.splitlines()) > 8


def complete(line: str, shell: str = "bash") -> list[str]:
    """What pressing Tab at the end of a line gives, by the protocol of the shell's completion function."""
    words = line.split(" ")
    told = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    return installed(**told, _WSI_LMC_COMPLETE=f"complete_{shell}").split("\n")


def installed(*arguments: str, **environment: str) -> str:
    """What the program says under the name that it is installed by."""
    code = f"import sys; sys.argv = {['wsi-lmc', *arguments]}; from wsi_lmc.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=True
    )
    return found.stdout


def test_tab_completes_commands_and_flags() -> None:
    assert complete("wsi-lmc tr")[:-1] == ["train"]
    assert complete("wsi-lmc re")[:-1] == ["report", "retry-failed"]
    assert complete("wsi-lmc status --js")[:-1] == ["--json"]
    assert any("--json" in said for said in complete("wsi-lmc status --js", "fish"))
    assert any("--json" in said for said in complete("wsi-lmc status --js", "zsh"))


def test_bash_asks_the_program_as_typed(tmp_path: Path) -> None:
    """A real bash takes the script that is shown, and fills in what the program says."""
    program = tmp_path / "wsi-lmc"
    program.write_text(f"#!{sys.executable}\nfrom wsi_lmc.cli import main\nmain()\n")
    program.chmod(0o755)
    # Which shell calls is guessed from the processes above, of which a test's may be none: so it is told.
    shown = installed("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    typed = 'COMP_WORDS=(wsi-lmc tr); COMP_CWORD=1; _wsi_lmc_completion wsi-lmc; echo "${COMPREPLY[@]}"'
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        ["bash", "--norc", "-c", f"{shown}\n{typed}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
        check=True,
    )
    assert (found.stdout, found.stderr) == ("train\n", "")


def test_version_is_one_line() -> None:
    assert run("--version").stdout == f"wsi-lmc {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tle"], "tile"),
        (["tile"], "slides"),
        (["tile", "x.svs", "--tile-mp", "0.5"], "--tile-mpp"),
        (["tile", "x.svs", "--tile-mpp", "half"], "--tile-mpp"),
        (["tile", "nothing*.svs"], "no slides in nothing*.svs"),
        (["tile", "x.svs", "--config", "none.yaml"], "none.yaml"),
        (["plan", "nothing*.svs"], "no slides in nothing*.svs"),
        (["plan", "x.svs", "--slide-timeout", "-1"], "--slide-timeout"),
        (["plan", "x.svs", "--csv", "none/plan.csv"], "no folder none"),
        (["plan", "x.svs", "--tile-mpp", "half"], "--tile-mpp"),
        (["train"], "no tile stores in wsi-lmc-run"),
        (["pack"], "neither a folder nor a table of images"),
        (["pack", "none", "--columns", "size=x"], "--columns"),
        (["pack", "none", "--mpp", "0.5", "--nominal-mpp", "0.5"], "both --mpp and --nominal-mpp"),
        (["train", "--steps", "0"], "steps = 0"),
        (["embed"], "neither --ckpt nor --encoder"),
        (["embed", "--ckpt", "none"], "no checkpoint folder none"),
        (["export", "--to", "trident", "-o", "x"], "no features in wsi-lmc-run"),
        (["export", "--to", "excel", "-o", "x"], "excel"),
        (["push", "none", "lab/name", "--yes"], "no config.json in none"),
        (["view"], "no run in wsi-lmc-run"),
        (["view", "--port", "70000"], "--port"),
    ],
)
def test_usage_errors_are_one_message_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, program: Commands
) -> None:
    result = program(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_misspelt_key_in_the_file_is_named(tmp_path: Path, program: Commands) -> None:
    (tmp_path / "my.yaml").write_text("tile:\n  tile_mppp: 0.5\n")
    result = program("tile", "x.svs", "--config", "my.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "Did you mean tile_mpp?" in result.stderr


def test_the_three_commands_work_as_they_stand(small_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("train:\n  architecture: vit-demo\n  batch: 8\n  steps: 100\n")
    assert run("tile", small_cohort / "slides", cwd=tmp_path).returncode == 0
    trained = run("train", "--config", "quick.yaml", "--steps", 4, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "4 steps on cpu" in trained.stdout, "a flag overrides the file"
    embedded = run("embed", "--ckpt", "wsi-lmc-run/checkpoint", cwd=tmp_path)
    assert embedded.returncode == 0, embedded.stderr
    assert len(list((tmp_path / "wsi-lmc-run" / "features").glob("*.zarr"))) == 4
    for target in ("trident", "clam"):
        assert run("export", "--to", target, "-o", target, cwd=tmp_path).returncode == 0
        assert len(list((tmp_path / target).rglob("*.h5"))) >= 4
    again = run("embed", "--ckpt", "wsi-lmc-run/checkpoint", "--workers", 0, cwd=tmp_path)
    assert "(4 before)" in again.stdout
    known = [path for path in (tmp_path / "trident").rglob("*") if str(tmp_path).encode() in _content(path)]
    assert known == [], "no absolute path in what is exported"


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.real
def test_a_broken_slide_beside_a_good_one(real_slides: Path, tmp_path: Path) -> None:
    slides = (real_slides / "CMU-1-Small-Region.svs", real_slides / "broken.svs")
    result = run("tile", *slides, "-o", "out", cwd=tmp_path)
    assert result.returncode == 1
    assert "broken: not_a_slide" in result.stderr
    assert "Traceback" not in result.stderr
    rows = (tmp_path / "out" / "slides.csv").read_text().splitlines()
    assert [row.split(",")[0:4] for row in rows[1:]] == [
        ["CMU-1-Small-Region", "tile", "done", ""],
        ["broken", "tile", "failed", "not_a_slide"],
    ]
    assert [path.name for path in (tmp_path / "out" / "tiles").iterdir()] == ["CMU-1-Small-Region.zarr"]


@pytest.mark.real
@pytest.mark.slow
def test_the_largest_real_slide_from_end_to_end(real_slides: Path, tmp_path: Path) -> None:
    slide = next((real_slides / "kang_P2_0039").glob("*.tif"))
    assert run("tile", slide, cwd=tmp_path).returncode == 1, "it states no pixel size"
    assert "mpp_missing" in (tmp_path / "wsi-lmc-run" / "slides.csv").read_text()
    assert run("tile", slide, "--mpp", 0.25, "--codec", "jpeg", cwd=tmp_path).returncode == 0
    flags = ("--architecture", "vit-demo", "--batch", 8, "--steps", 5)
    assert run("train", *flags, cwd=tmp_path).returncode == 0
    assert run("embed", "--ckpt", "wsi-lmc-run/checkpoint", cwd=tmp_path).returncode == 0
    assert run("export", "--to", "trident", "-o", "trident", cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "trident" / "20x_256px_0px_overlap").rglob("*.h5"))) == 2


def test_an_interrupted_run_goes_on(small_cohort: Path, tmp_path: Path) -> None:
    """SIGTERM in the middle: exit code 143, nothing half-written, and the same command finishes."""
    command = [sys.executable, "-m", "wsi_lmc", "tile", str(small_cohort / "slides"), "-o", "out", "--workers", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    tiles = tmp_path / "out" / "tiles"
    while process.poll() is None and not (tiles.is_dir() and any(tiles.iterdir())):
        pass
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert list((tmp_path / "out" / ".tmp").iterdir()) == []
    done = len(list(tiles.iterdir()))
    assert 1 <= done < 4
    again = run("tile", small_cohort / "slides", "-o", "out", cwd=tmp_path)
    assert again.returncode == 0
    assert f"4 done ({done} before)" in again.stdout


def test_a_cohort_is_looked_at_before_any_work(small_cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(small_cohort / "slides", tmp_path / "slides")
    good = run("plan", "slides", "--workers", 1, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "4 ok; " in good.stdout
    whole = (tmp_path / "slides" / "south-02.svs").read_bytes()
    (tmp_path / "slides" / "south-02.svs").write_bytes(whole[: len(whole) // 2])
    bad = run("plan", "slides", "--no-overviews", "--workers", 0, "--csv", "plan.csv", cwd=tmp_path)
    assert bad.returncode == 1, bad.stderr
    assert "south-02: truncated: " in bad.stdout
    assert "3 ok, 1 failed; at most " in bad.stdout
    with (tmp_path / "plan.csv").open() as file:
        assert [row["code"] for row in csv.DictReader(file)] == ["", "", "", "truncated"]
    assert {path.name for path in tmp_path.iterdir()} == {"slides", "plan.csv"}, "nothing else was written"


def test_a_disk_that_is_too_small_is_told(small_cohort: Path, tmp_path: Path) -> None:
    full = Path("/proc")  # whose disk has no room at all
    if not full.is_dir():
        pytest.skip("no file system without room here")
    result = run("plan", small_cohort / "slides", "-o", full / "run", "--workers", 0, cwd=tmp_path)
    assert result.returncode == 1
    assert "NOT ENOUGH" in result.stdout
