"""Watches a command and everything it starts: the addresses that they listen on."""

import subprocess
import sys
import time

import psutil

_LOOK_S = 0.1


def listening_of(*arguments: str) -> tuple[set[str], int, str]:
    """Addresses that a Python process and its children ever listened on, its exit code, and what it printed."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    found: set[str] = set()
    while process.poll() is None:
        found |= _now(process.pid)
        time.sleep(_LOOK_S)
    return found, process.returncode, process.communicate()[0]


def _now(pid: int) -> set[str]:
    found: set[str] = set()
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return found
    for member in family:
        try:
            connections = member.net_connections(kind="inet")
        except psutil.Error:  # it has just ended
            continue
        found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found
