"""Publishing: whole or not at all, whatever happens in between; locks that die with their holders."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from wsi_lmc.errors import UsageError
from wsi_lmc.publish import LOCKS, TEMPORARY, exclusive, holders, prepare_output, publish_text, publishing, working


def start(code: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """A Python process of its own that says "ready" on its first line; returns once it has said so."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def publish_folder(run: Path, final: Path, error: type[BaseException] | None = None) -> None:
    """Publish a folder of one file, or fail with ``error`` once the file is written."""
    with publishing(run, final) as draft:
        draft.mkdir()
        (draft / "new").write_text("whole")
        if error is not None:
            raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "features" / "slide.h5"
    with publishing(tmp_path, final) as draft:
        assert draft.name == "slide.h5"
        draft.write_bytes(b"half")
        assert not final.exists()
        draft.write_bytes(b"half and half")
    assert final.read_bytes() == b"half and half"
    assert names(tmp_path / TEMPORARY) == []


def test_a_folder_is_replaced_as_one(tmp_path: Path) -> None:
    final = tmp_path / "tiles" / "slide.zarr"
    for version, files in enumerate((["a", "b/c"], ["a"])):
        with publishing(tmp_path, final) as draft:
            for name in files:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_text(f"version {version}")
            if version:
                assert (final / "b" / "c").read_text() == "version 0", "the old one stays until the new one is whole"
    assert names(final) == ["a"]
    assert (final / "a").read_text() == "version 1"
    assert names(tmp_path / TEMPORARY) == []


def test_a_file_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    final = tmp_path / "result"
    with publishing(tmp_path, final) as draft:
        draft.mkdir()
        (draft / "inside").write_text("x")
    publish_text(tmp_path, final, "a file")
    assert final.read_text() == "a file"
    assert names(tmp_path / TEMPORARY) == []


def test_an_interrupt_between_the_two_renames_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "slide.zarr"
    final.mkdir()
    (final / "old").write_text("old")

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_folder(tmp_path, final)
    assert names(final) == ["old"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("published", [True, False])
def test_an_error_leaves_what_was_there(error: type[BaseException], published: bool, tmp_path: Path) -> None:
    final = tmp_path / "slide.zarr"
    if published:
        final.mkdir()
        (final / "old").write_text("old")
    with pytest.raises(error):
        publish_folder(tmp_path, final, error)
    assert names(final) == (["old"] if published else [])
    assert names(tmp_path / TEMPORARY) == []


def test_nothing_written_is_an_error_and_not_an_empty_result(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), publishing(tmp_path, tmp_path / "slide.zarr"):
        pass
    assert not (tmp_path / "slide.zarr").exists()


@pytest.mark.parametrize("published", [True, False])
def test_a_killed_process_leaves_nothing_under_the_final_name(published: bool, tmp_path: Path) -> None:
    final = tmp_path / "tiles" / "slide.zarr"
    if published:
        final.mkdir(parents=True)
        (final / "old").write_text("old")
    process = start(
        """
        import sys, time
        from pathlib import Path
        from wsi_lmc.publish import publishing
        run, final = map(Path, sys.argv[1:])
        with publishing(run, final) as draft:
            draft.mkdir()
            (draft / "new").write_text("half")
            print("ready", flush=True)
            time.sleep(60)
        """,
        *(tmp_path, final),
    )
    kill(process)
    assert names(final) == (["old"] if published else [])
    publish_folder(tmp_path, final)
    assert names(final) == ["new"]
    assert (final / "new").read_text() == "whole"


def test_kills_at_any_time_leave_old_or_new_but_never_half(tmp_path: Path) -> None:
    """A process publishes version after version of one folder of 20 files and is killed five times along the way."""
    final = tmp_path / "tiles" / "slide.zarr"
    seen = set()
    for attempt in range(5):
        process = start(
            """
            import sys
            from pathlib import Path
            from wsi_lmc.publish import publishing
            run, final, attempt = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
            for version in range(100_000):
                with publishing(run, final) as draft:
                    draft.mkdir()
                    for number in range(20):
                        (draft / str(number)).write_text(f"{attempt}.{version}")
                if version == 0:
                    print("ready", flush=True)
            """,
            *(tmp_path, final, str(attempt)),
        )
        time.sleep(0.05 + 0.037 * attempt)
        kill(process)
        if final.exists():  # between the two renames that replace a folder, neither stands there
            assert len(names(final)) == 20
            versions = {path.read_text() for path in final.iterdir()}
            assert len(versions) == 1
            seen |= versions
    assert seen


def test_text_is_utf8(tmp_path: Path) -> None:
    publish_text(tmp_path, tmp_path / "logs" / "a.txt", "Größe 5 µm\n")
    assert (tmp_path / "logs" / "a.txt").read_bytes() == "Größe 5 µm\n".encode()


HOLDER = """
    import sys, time
    from pathlib import Path
    from wsi_lmc.publish import exclusive
    with exclusive(Path(sys.argv[1]), "tile-a") as held:
        assert held
        print("ready", flush=True)
        time.sleep(60)
    """


def test_a_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    process = start(HOLDER, tmp_path)
    try:
        with exclusive(tmp_path, "tile-a", wait_s=0.1) as held:
            assert not held
        with exclusive(tmp_path, "tile-b", wait_s=0.1) as held:
            assert held, "another slide is nobody's business"
    finally:
        kill(process)
    with exclusive(tmp_path, "tile-a", wait_s=5.0) as held:
        assert held


def test_two_processes_on_one_lock_never_overlap(tmp_path: Path) -> None:
    """Each adds 200 to a number in a file, read and written back under the lock: none of the additions is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = """
        import sys
        from pathlib import Path
        from wsi_lmc.publish import exclusive
        print("ready", flush=True)
        for _ in range(200):
            with exclusive(Path(sys.argv[1]), "counter"):
                counter = Path(sys.argv[1]) / "counter"
                counter.write_text(str(int(counter.read_text()) + 1))
        """
    processes = [start(code, tmp_path) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert counter.read_text() == "400"


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), exclusive(tmp_path, "x"):
        raise ValueError("inside")
    with exclusive(tmp_path, "x", wait_s=0.0) as held:
        assert held
    assert names(tmp_path / LOCKS) in ([], ["x.lock"])


def test_an_output_folder_is_made_and_left_clean(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    prepare_output(folder)
    prepare_output(folder)
    assert names(folder / TEMPORARY) == []


def test_a_folder_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        prepare_output(tmp_path / "file" / "run")
    with pytest.raises(UsageError, match="cannot write to"):
        prepare_output(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_usage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="Permission denied"):
            prepare_output(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_who_holds_a_lock_can_be_seen_and_whether_it_still_lives(tmp_path: Path) -> None:
    assert holders(tmp_path) == []
    process = start(
        HOLDER.replace("exclusive(", "working(").replace("exclusive", "working").replace("assert held", "pass"),
        tmp_path,
    )
    try:
        (holder,) = holders(tmp_path)
        assert (holder.name, holder.pid, holder.alive) == ("tile-a", process.pid, True)
        assert holder.of("tile").name == "a"
    finally:
        kill(process)
    assert [holder.alive for holder in holders(tmp_path)] == [False]
    with working(tmp_path, "tile-a"):
        assert [holder.pid for holder in holders(tmp_path)] == [os.getpid()]
    assert holders(tmp_path) == []


def test_a_note_from_elsewhere_or_half_written_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / ".working").mkdir()
    (tmp_path / ".working" / "tile-a.json").write_text('{"host": "another machine", "pid": 1}')
    (tmp_path / ".working" / "tile-b.json").write_text("")
    assert [(holder.name, holder.alive) for holder in holders(tmp_path)] == [("tile-a", None)]
