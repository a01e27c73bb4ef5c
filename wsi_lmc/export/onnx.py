"""An encoder as one ONNX file, for runtimes that know no torch: RGB tiles as bytes in, features out."""

import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from wsi_lmc.backends import FeaturesModule
from wsi_lmc.encoder import Encoder
from wsi_lmc.errors import UsageError

_STACK = "pkg.torch.onnx.stack_trace"  # names files by their paths on this machine
_OPSET = 20  # knows Gelu; ONNX Runtime reads it since 1.17


def export_onnx(encoder: Encoder, path: Path) -> None:
    """Write an encoder as ONNX, in float32.

    Its input ``tiles`` is uint8 (any number, px, px, 3), with px the size that the network was built for; its output
    ``features`` is float32 (as many, dimensions). Scaling of pixels is part of it. What the encoder is stands in the
    file's metadata.

    Raises:
        UsageError: the packages of the extra ``onnx`` are not there, or ``path`` exists.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} exists", "a new file", "Name another with -o.")
    example = torch.zeros(2, encoder.input_px, encoder.input_px, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own parts
            program = torch.onnx.export(
                FeaturesModule(encoder),
                (example,),
                input_names=["tiles"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("count", min=1)},),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:  # onnx and onnxscript, which torch imports only now
        raise UsageError(
            f"ONNX cannot be written ({error})", "the extra onnx", "Run: pip install 'wsi-lmc[onnx]'."
        ) from error
    if program is None:
        raise RuntimeError("torch exported nothing")
    for node in (node for graph in program.model.graphs() for node in graph):
        node.metadata_props.pop(_STACK, None)
    about = {"wsi_lmc_encoder": encoder.name, "sha256": encoder.sha256, "trained_mpp": str(encoder.trained_mpp or "")}
    program.model.metadata_props.update(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as beside:
        program.save(Path(beside) / path.name)
        (Path(beside) / path.name).rename(path)
