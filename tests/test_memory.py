"""A shortage of memory is told from other failures; freed memory is returned, or kept, as asked."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from wsi_lmc.memory import out_of_memory


def test_what_the_cpu_allocator_says_is_a_shortage() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


def test_shortages_of_other_allocators_and_other_failures() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("could not create a primitive")), "oneDNN"
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


_HOLDS_AND_FREES = """
import psutil
from wsi_lmc.memory import give_back
me = psutil.Process()
held = [bytearray(100_000) for _ in range(3000)]
last = held[-1]
before = me.memory_info().rss
del held
freed = me.memory_info().rss
give_back()
print(before, freed, me.memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to do")
def test_freed_memory_is_given_back() -> None:
    found = subprocess.run([sys.executable, "-c", _HOLDS_AND_FREES], capture_output=True, text=True, check=True)
    before, freed, after = (int(value) / 1e6 for value in found.stdout.split())
    assert after < before - 250
    assert freed > after + 100, "the C library keeps what is freed, else this would prove nothing"


_TAKES_AND_FREES = """
import resource, sys
import torch
from wsi_lmc.memory import keep_freed
if sys.argv[1] == "keep":
    keep_freed()
def take():
    return [torch.ones(10_000_000) for _ in range(3)]
for _ in range(5):
    take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to do")
def test_freed_memory_is_used_again() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = {}
    for name in ("return", "keep"):
        command = [sys.executable, "-c", _TAKES_AND_FREES, name]
        found = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
        faults[name] = int(found.stdout)
    assert faults["return"] > 20_000, "the C library returns what is freed, else this would prove nothing"
    assert faults["keep"] < faults["return"] / 3
