"""The trained image encoder as an ONNX graph: uint8 pixels in, unit vectors out.

Products with weights are int8; what else has many weights (convolutions) is stored in half precision.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from sosie.training.quantise import quantise

OPSET = 17
_SMALL = 1_024  # numbers; below this halving saves nothing


class _FromBytes(nn.Module):  # type: ignore[misc]
    """[n, s, s, 3] uint8 → [n, dim]."""

    def __init__(self, encoder: Any, head: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Parameter(torch.from_numpy(head))

    def forward(self, pixels: Tensor) -> Tensor:
        pooled = self.encoder.pooled(pixels.permute(0, 3, 1, 2).float())
        return F.normalize(F.linear(pooled, self.head), dim=1)


def export(encoder: Any, head: npt.NDArray[np.float32], side: int, out: Path) -> None:
    """Write the graph: input "pixels" uint8 [batch, s, s, 3] (RGB), output "vector" float32 [batch, dim].

    `encoder.pooled` gives features of pictures, which `head` float32 [dim, width] reduces.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracer warns of branches on shapes; that the graph is right at other batch sizes is tested.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _FromBytes(encoder, head).eval(),
            (torch.zeros(2, side, side, 3, dtype=torch.uint8),),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["vector"],
            dynamic_axes={"pixels": {0: "batch"}, "vector": {0: "batch"}},
        )
    quantise(out, out)
    onnx.save(_halved(onnx.load(out)), out)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as float16 with a cast in front of their use: half the file, and ONNX Runtime folds the casts at load."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < _SMALL:
            continue
        name = weight.name
        half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}_half")
        weight.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    for place, cast in enumerate(casts):
        model.graph.node.insert(place, cast)
    onnx.checker.check_model(model, full_check=True)
    return model
