"""``wsi-lmc`` as a program on PATH, for scripts and workflow managers that start it themselves.

A call is a fork of the process of :class:`tests.forked.Commands`, so that it takes as long as its work.
"""

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.forked import Commands

_PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    line.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    code, out, err = json.loads(line.makefile().readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


@dataclass
class OnPath:
    """The folder to be found on PATH, and every call so far: its words and exit code."""

    folder: Path
    calls: list[tuple[list[str], int]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which the program is found first."""
        return os.environ | {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def on_path(program: Commands) -> Iterator[OnPath]:
    """Put ``wsi-lmc`` on a PATH; calls come one after another."""
    folder = Path(tempfile.mkdtemp())  # sockets have short names
    found = OnPath(folder / "bin")
    found.folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
        server.listen()
        script = found.folder / "wsi-lmc"
        script.write_text(_PROGRAM.format(python=sys.executable, address=str(folder / "s")))
        script.chmod(0o700)
        serving = threading.Thread(target=_serve, args=(server, program, found))
        serving.start()
        try:
            yield found
        finally:
            server.shutdown(socket.SHUT_RDWR)
            serving.join()
            shutil.rmtree(folder)


def _serve(server: socket.socket, program: Commands, found: OnPath) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:  # shut down
            return
        with line, line.makefile("rw") as stream:
            words, cwd, environment = json.loads(stream.readline())
            task = {name: value for name, value in environment.items() if name.startswith("SLURM_")}
            done = program(*words, cwd=Path(cwd), environment=task)
            found.calls.append((words, done.returncode))
            stream.write(json.dumps([done.returncode, done.stdout, done.stderr]) + "\n")
