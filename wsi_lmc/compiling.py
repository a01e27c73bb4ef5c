"""Functions compiled at their first call, and used so only where that works and gives what they give themselves.

A compiler that is missing, or that gives other numbers (one torch release compiled a float32 ViT on the CPU to
embeddings at a cosine of -0.02 to the right ones), must cost speed, never a result.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


class Checked:
    """A pure function of tensors, which returns tensors, and its compiled self once that has proven equal.

    Args:
        function: called as it is until the compiled one is trusted, and for ever where it is not.
        tolerance: greatest difference of any value that is put down to rounding.
        compiled: False leaves the function alone.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], tolerance: float, compiled: bool = True) -> None:
        self._function, self._tolerance = function, tolerance
        self._chosen: Callable[..., tuple[Tensor, ...]] | None = None if compiled else function

    @property
    def used(self) -> str:
        """What is called: "undecided" before the first call, then "compiled" or "eager"."""
        if self._chosen is None:
            return "undecided"
        return "eager" if self._chosen is self._function else "compiled"

    def __call__(self, *arguments: object) -> tuple[Tensor, ...]:
        """Call the better of the two; the first call compares them, on its own arguments."""
        if self._chosen is not None:
            return self._chosen(*arguments)
        expected = self._function(*arguments)
        self._chosen = self._function
        candidate: Callable[..., tuple[Tensor, ...]] = torch.compile(self._function, dynamic=False)
        try:
            found = candidate(*arguments)
        except (RuntimeError, OSError, ImportError) as error:  # no C++ compiler, no Triton, or one that fails
            _log.warning("not compiled (%s): slower, same results", str(error).strip().splitlines()[0])
            return expected
        worst = max(float((a.float() - b.float()).abs().max()) for a, b in zip(expected, found, strict=True))
        if not worst <= self._tolerance:
            _log.warning("the compiled code differs by %.3g: not used, which is slower", worst)
            return expected
        self._chosen = candidate
        return found
