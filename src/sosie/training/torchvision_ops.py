"""Lets timm and transformers import where torchvision was built for CUDA and torch was not."""

import importlib.util
from pathlib import Path

import torch

_declared: list[torch.library.Library] = []  # kept alive: an op goes with its library


def declare_missing_ops() -> None:
    """Declare the two ops that such a torchvision describes at import and can't load.

    Nothing here calls them, so declaring them is enough. Does nothing where torchvision is whole, or absent.
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
