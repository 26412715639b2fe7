"""A trained title encoder as one ONNX graph: tokens in, pooled features, learned reduction, vectors of unit length."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from sosie.embedding.characters import LETTERS
from sosie.training.text.model import TitleEncoder

OPSET = 17


class _Pooled(nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self, encoder: TitleEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.encoder.pooled(tokens, mask)


def export_pooled(encoder: TitleEncoder, out: Path) -> None:
    """Write the graph up to the pooled features in float32, for any batch size and length.

    Inputs "tokens" int64 [batch, tokens] or [batch, words, letters], "mask" int64 [batch, tokens]; output "pooled".
    """
    shape = (2, 7) if encoder.characters is None else (2, 7, LETTERS)
    tokens = torch.ones(shape, dtype=torch.int64)
    with warnings.catch_warnings():
        # The tracer warns of branches on shapes; that the graph is right at other shapes is measured after export.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Pooled(encoder).eval(),
            (tokens, torch.ones(2, 7, dtype=torch.int64)),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["tokens", "mask"],
            output_names=["pooled"],
            dynamic_axes={
                "tokens": {0: "batch", 1: "tokens"},
                "mask": {0: "batch", 1: "tokens"},
                "pooled": {0: "batch"},
            },
        )


def attach_head(trunk: Path, head: npt.NDArray[np.float32], out: Path) -> None:
    """Append `pooled @ head.T`, scaled to unit length, as output `vector`. `head` is float32 [dim, width]."""
    model = onnx.load(trunk)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(head.T), "head"))
    graph.node.append(helper.make_node("MatMul", ["pooled", "head"], ["projected"]))
    graph.node.append(helper.make_node("LpNormalization", ["projected"], ["vector"], axis=1, p=2))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", head.shape[0]]))
    onnx.checker.check_model(model)
    onnx.save(model, out)
