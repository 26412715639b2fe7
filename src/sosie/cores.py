"""Work on every core: parts side by side, and ONNX Runtime sessions that keep to the thread that calls them."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def side_by_side(work: Callable[[slice], None], parts: Iterable[slice], threads: int) -> None:
    """`work` on every part, by `threads` threads (0: one a core). The first error is raised."""
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for _ in pool.map(work, parts):
            pass


def open_session(model: str | bytes, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Any:
    """An ONNX Runtime session of a file, or of a model's bytes.

    By default it works on the thread that calls it: the many small products of our models gain little from threads of
    their own, which spin where they wait. Whoever has several batches runs them `side_by_side`. Raises ONNX Runtime's
    own errors, which share no public base.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=list(providers))
