"""Locks exclude, and outlive no holder: by flock, and by claims as on NFS, where a claim is broken once it is dead."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from wsi_lmc import locks
from wsi_lmc.locks import SETTING, file_system, locked, uses_claims

pytestmark = pytest.mark.row(16)


@pytest.fixture(params=["flock", "claims"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(SETTING, request.param)
    uses_claims.cache_clear()
    return request.param


@pytest.fixture(autouse=True)
def _forget() -> None:
    uses_claims.cache_clear()


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own in which ``folder`` and ``locked`` are known; returns once it has said "ready"."""
    head = "import sys, time\nfrom pathlib import Path\nfrom wsi_lmc.locks import locked\nfolder = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


HOLDER = """
    with locked(folder, "a") as held:
        assert held
        print("ready", flush=True)
        time.sleep(60)
    """


def test_a_holder_keeps_others_out_until_it_is_killed(kind: str, tmp_path: Path) -> None:
    process = start(HOLDER, tmp_path)
    try:
        with locked(tmp_path, "a", 1.5) as held:
            assert not held
        with locked(tmp_path, "b", 0.5) as held:
            assert held, "another name is nobody's business"
    finally:
        end(process)
    with locked(tmp_path, "a", 10.0) as held:
        assert held


def test_nothing_is_lost_between_four_processes(kind: str, tmp_path: Path) -> None:
    """Each adds 40 to a number in a file, read and written back under the lock."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = """
        print("ready", flush=True)
        for _ in range(40):
            with locked(folder, "counter"):
                counter = folder / "counter"
                counter.write_text(str(int(counter.read_text()) + 1))
        """
    processes = [start(code, tmp_path) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert counter.read_text() == "160"


def test_a_lock_is_released_by_an_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), locked(tmp_path, "a"):
        raise ValueError("inside")
    with locked(tmp_path, "a", 1.0) as held:
        assert held


def test_a_claim_of_another_machine_is_broken_only_once_it_gives_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder calls itself by another machine's name, so that its process number says nothing here."""
    monkeypatch.setenv(SETTING, "claims")
    monkeypatch.setattr(locks, "_LEASE_S", 4.0)
    code = """
        import socket
        socket.gethostname = lambda: "elsewhere"
        from wsi_lmc import locks
        locks._BEAT_S = 0.5
        """
    process = start(textwrap.dedent(code) + textwrap.dedent(HOLDER), tmp_path)
    try:
        with locked(tmp_path, "a", 7.0) as held:
            assert not held, "it lives"
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with locked(tmp_path, "a", 30.0) as held:
            assert held, "no sign of life for as long as a lease lasts"
        assert time.monotonic() - began > 3
    finally:
        process.send_signal(signal.SIGCONT)
        end(process)


def test_threads_of_one_process_exclude_each_other_too(kind: str, tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(10):
            with locked(tmp_path, "a"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(most) == 1


def test_the_file_system_decides_unless_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert file_system(tmp_path), "every folder lies on one"
    assert file_system(Path("/proc")) == "proc"
    assert not uses_claims(tmp_path)
    uses_claims.cache_clear()
    monkeypatch.setattr(locks, "file_system", lambda folder: "nfs4")
    assert uses_claims(tmp_path)
    uses_claims.cache_clear()
    monkeypatch.setenv(SETTING, "flock")
    assert not uses_claims(tmp_path)
