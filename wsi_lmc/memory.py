"""Memory: a shortage told from other failures, as every allocator reports it; keeping and returning what is freed."""

import ctypes
import logging
import sys
from collections.abc import Callable

import torch

_log = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_TOP_PAD = 64 << 20  # bytes asked of the system at once, at least
_ONEDNN = "could not create a primitive"
_SAID_ON_THE_CPU = ("DefaultCPUAllocator", _ONEDNN)  # torch's own allocator, and oneDNN


def out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory was short, on a GPU or on the CPU, where torch has no exception for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in _SAID_ON_THE_CPU
    )


def make_room(device: torch.device, said: str) -> None:
    """Let another, smaller attempt succeed after a shortage that ``said`` so; whatever the first one made must be gone.

    oneDNN that once got no memory for code which it compiles compiles nothing more in that thread, whatever is free
    (its generator's error is never cleared; seen with torch 2.15): from then on torch does without it, which is slower.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    give_back()
    if _ONEDNN in said and torch.backends.mkldnn.enabled:
        torch.backends.mkldnn.set_flags(False)
        _log.warning("oneDNN got no memory for code that it compiles: going on without it, which is slower")


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it: glibc does, more with every slide."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def keep_freed() -> None:
    """Let this process use its freed memory again, where glibc would return every large block to the system.

    A training step on the CPU takes and frees the same hundreds of MB. Fetched from the system each time, every page of
    them faults, which is more than a quarter of a small network's step (benchmarks/bench_memory.py).
    """
    set_option = _of_glibc("mallopt")
    if set_option is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD)):
            set_option(option, value)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, or None where it has no such function."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
