"""Memory: a shortage told from other failures, as every allocator reports it in its own way; and giving it back."""

import ctypes
import sys

import torch

_SAID_ON_THE_CPU = ("DefaultCPUAllocator", "could not create a primitive")  # torch's own, and oneDNN's


def out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory was short, on a GPU or on the CPU, where torch has no exception for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in _SAID_ON_THE_CPU
    )


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it: glibc does, more with every slide."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
