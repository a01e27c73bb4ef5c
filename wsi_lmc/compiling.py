"""Functions and networks that are compiled, and used so only where that works and gives what they give themselves.

A compiler that is missing, or that gives other numbers (one torch release compiled a float32 ViT on the CPU to
embeddings at a cosine of -0.02 to the right ones), must cost speed, never a result.
"""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from wsi_lmc.memory import out_of_memory

_log = logging.getLogger(__name__)
_LEAST_COSINE = {torch.float32: 0.9999, torch.bfloat16: 0.99}
_MOST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of the greatest value


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
            _warn_not_compiled(error)
            return expected
        worst = max(float((a.float() - b.float()).abs().max()) for a, b in zip(expected, found, strict=True))
        if not worst <= self._tolerance:
            _log.warning("the compiled code differs by %.3g: not used, which is slower", worst)
            return expected
        self._chosen = candidate
        return found


class CheckedNetwork:
    """A network in its precision, and its compiled self for each shape of input at which that has proven equal.

    Proven: at the first batch of a shape the features, centred over the batch as the loss centres them, and (where
    gradients are wanted) the gradient of all weights have nearly the direction, and no value far from that, of the
    plain network's. On CUDA the compiled network runs as CUDA graphs.

    Args:
        network: from images (b, 3, h, w) to features (b, d).
        dtype: of its computation, float32 or bfloat16; weights and results are float32.
        compiled: False leaves the network alone.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, compiled: bool) -> None:
        self._network, self._dtype = network, dtype
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._graphs = compiled and self._weights[0].is_cuda
        self._compiled: Callable[..., Tensor] | None = None
        if compiled:
            self._compiled = torch.compile(network, dynamic=False, mode="reduce-overhead" if self._graphs else None)
        self._trusted: dict[tuple[object, ...], bool] = {}

    @property
    def used(self) -> str:
        """What is called: "undecided" before the first call, then "compiled", "eager", or "both" for other shapes."""
        if self._compiled is None:
            return "eager"
        kinds = set(self._trusted.values())
        return "both" if len(kinds) > 1 else {True: "compiled", False: "eager"}[kinds.pop()] if kinds else "undecided"

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float32[Tensor, "b d"]:
        """Features of ``images``, with a graph to their gradient where torch records one."""
        if self._compiled is None:
            return self._run(self._network, images)
        case = (*images.shape, torch.is_grad_enabled())  # with and without gradients are two compiled programs
        if case not in self._trusted:
            self._trusted[case] = self._agree(self._compiled, images)
        return self._run(self._compiled if self._trusted[case] else self._network, images)

    def _run(self, network: Callable[..., Tensor], images: Tensor) -> Tensor:
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            features = network(images).float()
        # a CUDA graph writes its next result over this one
        return features.clone() if self._graphs and not torch.is_grad_enabled() else features

    def _agree(self, compiled: Callable[..., Tensor], images: Tensor) -> bool:
        """Whether the compiled network gives the plain one's features and gradient."""
        expected = self._features_and_gradient(self._network, images)
        try:
            found = self._features_and_gradient(compiled, images)
        except (RuntimeError, OSError, ImportError) as error:
            if out_of_memory(error):
                raise
            _warn_not_compiled(error)
            return False
        for what in expected:
            difference = (found[what] - expected[what]).abs().max() / expected[what].abs().max()
            cosine = float(nn.functional.cosine_similarity(found[what], expected[what], dim=0))
            if not (cosine >= _LEAST_COSINE[self._dtype] and float(difference) <= _MOST_DIFFERENCE[self._dtype]):
                _log.warning(
                    "the compiled network's %s differs (cosine %.4f, by %.3g of the greatest value): not used, "
                    "which is slower",
                    *(what, cosine, float(difference)),
                )
                return False
        return True

    def _features_and_gradient(self, network: Callable[..., Tensor], images: Tensor) -> dict[str, Tensor]:
        """In float64, flat; the gradient of the features' product with the same random numbers at every call."""
        features = self._run(network, images)
        measured = {"features": (features - features.mean(0)).detach().double().flatten()}
        if torch.is_grad_enabled():
            direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(0)).to(features)
            gradients = torch.autograd.grad((features * direction).sum(), self._weights)
            measured["gradient"] = torch.cat([gradient.double().flatten() for gradient in gradients])
        return measured


def _warn_not_compiled(error: Exception) -> None:
    _log.warning("not compiled (%s): slower, same results", str(error).strip().splitlines()[0])
