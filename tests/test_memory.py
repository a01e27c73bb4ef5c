"""A shortage of memory is told from other failures."""

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
