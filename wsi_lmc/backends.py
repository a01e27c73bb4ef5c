"""What computes features: torch, or OpenVINO, which is several times as fast on a CPU and an extra of this package.

OpenVINO gets the network as torch exports it, once for each size of tiles. Its features are compared with torch's of
the same tiles before any is used; where the two differ, or the network cannot be converted, torch goes on.
"""

import dataclasses
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from threading import Lock
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from wsi_lmc.encoder import Encoder
from wsi_lmc.errors import UsageError
from wsi_lmc.threads import threads_of_process

Backend = Literal["torch", "openvino"]

_CHECKED_TILES = 16
# |a - b| / |b| of a tile's features: these are cosines of 0.99999 and 0.999, and catch another length too
_LARGEST_ERROR = {"float32": 0.0045, "bfloat16": 0.045}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_FAILURES = ("GeneralFailure", "InitializationFailure", "NotImplementedFailure", "OpConversionFailure")

_log = logging.getLogger(__name__)


def accelerated(encoder: Encoder, backend: Backend) -> Encoder:
    """The encoder with its features computed by ``backend``.

    Raises:
        UsageError: OpenVINO is not installed, or the encoder is not on the CPU.
    """
    if backend == "torch":
        return encoder
    if encoder.device.type != "cpu":
        raise UsageError(f"backend openvino for device {encoder.device}", "the CPU", "Leave --device or --backend out.")
    return dataclasses.replace(encoder, runner=OpenVino(encoder))


def lanes_of(encoder: Encoder) -> int:
    """Batches that are best computed at a time: OpenVINO gives each core a batch of its own.

    Cores that share one wait for each other after every layer, and all of them for one that decodes meanwhile.
    """
    return threads_of_process() if isinstance(encoder.runner, OpenVino) else 1


def used_by(encoder: Encoder) -> Backend:
    """What really computes an encoder's features, as far as known: torch, where OpenVINO had to be refused."""
    return encoder.runner.used if isinstance(encoder.runner, OpenVino) else "torch"


class OpenVino:
    """An encoder's features by OpenVINO, in the encoder's precision, where they prove equal to torch's in float32.

    Each batch is computed by one core, so that features do not depend on how many there are; threads may share it.

    Args:
        encoder: on the CPU; it computes the features itself once OpenVINO was refused.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._exact = dataclasses.replace(encoder, precision="float32")
        self._library = openvino_library()
        self._compiled: dict[tuple[object, ...], Callable[[Tensor], Tensor]] = {}
        self._compiling = Lock()
        self.used: Backend = "openvino"

    def __call__(self, images: Tensor) -> Tensor:
        """What `Encoder.features` gives of the same images."""
        if self.used == "torch":
            return self._encoder.features(images)
        kind = (images.dtype, *images.shape[1:])
        with self._compiling:  # the first of the threads that come here at once does it
            network = self._compiled.get(kind)
            if network is None and self.used == "openvino":
                return self._first(kind, images)
        return network(images) if network else self._encoder.features(images)

    def _first(self, kind: tuple[object, ...], images: Tensor) -> Tensor:
        """Features of the first batch of a kind, which decide whether OpenVINO is used."""
        try:
            compiled = self._compile(images)
            features = compiled(images)
        except self._failures as error:
            return self._refuse(f"cannot run {self._encoder.name} ({_said(error)})", images)
        expected = self._exact.features(images[:_CHECKED_TILES])
        found = features[:_CHECKED_TILES]
        if found.shape != expected.shape:
            return self._refuse(f"gives features of shape {tuple(found.shape)}, not {tuple(expected.shape)}", images)
        worst = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
        if not worst <= _LARGEST_ERROR[self._encoder.precision]:
            return self._refuse(f"gives features that differ by {worst:.2g} of their length", images)
        self._compiled[kind] = compiled
        return features

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What export, conversion and compilation raise; most of OpenVINO's own are no RuntimeError."""
        own = [getattr(self._library.frontend, name) for name in _FAILURES]
        return (RuntimeError, TypeError, ValueError, *own)

    def _refuse(self, why: str, images: Tensor) -> Tensor:
        _log.warning("OpenVINO %s: not used, torch computes the features, which is slower", why)
        self.used = "torch"
        self._compiled.clear()
        return self._encoder.features(images)

    def _compile(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The network, and the scaling of its input, for any number of images of this size and type."""
        example = torch.zeros(2, *images.shape[1:], dtype=images.dtype)
        converted = cast(Any, _convert(FeaturesModule(self._exact), example))
        converted.reshape([-1, *images.shape[1:]])
        hints = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._encoder.precision],
            "NUM_STREAMS": str(threads_of_process()),
            "INFERENCE_NUM_THREADS": threads_of_process(),
        }
        network = self._library.Core().compile_model(converted, "CPU", hints)
        idle: SimpleQueue[Any] = SimpleQueue()  # requests, of which each serves one thread at a time
        for _ in range(threads_of_process()):
            idle.put(network.create_infer_request())

        def compute(given: Tensor) -> Tensor:
            request = idle.get()
            try:
                return torch.from_numpy(request.infer([given.contiguous().numpy()], share_inputs=True)[0])
            finally:
                idle.put(request)

        return compute


class FeaturesModule(nn.Module):
    """`Encoder.features` as a module, which is what can be exported."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.module
        self._encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Features of images, uint8 or float in [0, 1]."""
        return self._encoder.features(images)


def _convert(module: nn.Module, example: Tensor) -> object:
    """OpenVINO's form of a module, for any number of images.

    These are the steps of ``openvino.convert_model``, without its reports to its makers.
    """
    parts = "openvino.frontend.pytorch"
    operations = import_module(f"{parts}.torchdynamo.export_decompositions").ops_to_not_decompose()
    table = torch.export.default_decompositions()
    for operation in operations:
        with suppress(KeyError):  # some it names are unknown to some releases of torch
            table.pop(operation)
    exported = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
    graph = exported.run_decompositions(table).module()
    decoder = import_module(f"{parts}.fx_decoder").TorchFXPythonDecoder(graph, dynamic_shapes=True)
    frontend = import_module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


def openvino_library() -> ModuleType:
    """OpenVINO, kept from sending word of its use over the network, which it does when it is imported.

    It does without the package that sends it where that cannot be imported; None is Python's own mark of that.

    Raises:
        UsageError: it cannot be imported.
    """
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)
    try:
        return import_module("openvino")
    except (ImportError, OSError) as error:  # the latter where a shared library of the system is missing
        raise UsageError(
            f"OpenVINO cannot be used ({_said(error)})",
            "the package openvino",
            "Run: pip install 'wsi-lmc[openvino]', or leave --backend out.",
        ) from error


def _said(error: Exception) -> str:
    """The line of an error's text that says most: OpenVINO begins with a place in its own source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if lines[0].startswith("Check ") else lines[0]
