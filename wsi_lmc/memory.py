"""Telling a shortage of memory from other failures: every allocator reports it in its own way."""

import torch

_SAID_ON_THE_CPU = ("DefaultCPUAllocator", "could not create a primitive")  # torch's own, and oneDNN's


def out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory was short, on a GPU or on the CPU, where torch has no exception for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in _SAID_ON_THE_CPU
    )
