"""Telling a shortage of memory from other failures: every allocator reports it in its own way."""

import torch

_CPU_ALLOCATOR = "DefaultCPUAllocator"


def out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory was short, on a GPU or on the CPU, where torch has no exception for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR in str(error)
