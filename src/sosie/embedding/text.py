"""Titles to vectors, by ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sosie.artifacts import Artifact
from sosie.errors import ModelError
from sosie.tables import DIM

KIND = "text-encoder"
GRAPH = "encoder.onnx"
TOKENIZER = "tokenizer.json"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TextEncoder:
    """A BERT-shaped encoder with mean pooling and a learned head (Reimers and Gurevych 2019, arXiv:1908.10084)."""

    artifact: Artifact
    _tokenizer: Any
    _session: Any

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> "TextEncoder":
        """Read and check the model. `threads` 0 lets ONNX Runtime take every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        tokenizer = tokenizer_of(artifact.file(TOKENIZER), max_tokens=int(artifact.usage["max_tokens"]))
        session = session_of(artifact.file(GRAPH), threads)
        width = session.get_outputs()[0].shape[-1]
        if width != DIM:
            raise ModelError(f"{artifact.file(GRAPH)} gives vectors of {width} numbers; needed are {DIM}.")
        return cls(artifact, tokenizer, session)

    @property
    def version(self) -> str:
        return self.artifact.version

    def encode(self, texts: Sequence[str], batch_size: int) -> Vectors:
        """float32 [n, 128], unit length, in the order of `texts`. Each different text is computed once."""
        unique, places = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
        return run_sorted(self._session, self._tokenizer, unique.tolist(), batch_size, DIM)[places]


def tokenizer_of(file: Path, max_tokens: int) -> Any:
    """The tokenizer, cutting at `max_tokens` and not padding. Raises `ModelError`."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises bare Exception
        raise ModelError(f"{file} is no tokenizer ({error}).") from error
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


def session_of(file: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU. Raises `ModelError`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no public base
        raise ModelError(f"{file} can't be run by ONNX Runtime {onnxruntime.__version__}: {error}") from error


def run_sorted(session: Any, tokenizer: Any, texts: Sequence[str], batch_size: int, width: int) -> Vectors:
    """Encode in batches of like length, each padded to its own longest text only; float32 [n, width] in input order."""
    vectors = np.empty((len(texts), width), dtype=np.float32)
    encoded = tokenizer.encode_batch(list(texts))
    lengths = np.fromiter((len(text.ids) for text in encoded), dtype=np.int64, count=len(encoded))
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(texts), batch_size):
        batch = order[start : start + batch_size]
        ids = np.zeros((len(batch), int(lengths[batch[-1]])), dtype=np.int64)
        for row, place in enumerate(batch):
            ids[row, : lengths[place]] = encoded[place].ids
        mask = (np.arange(ids.shape[1]) < lengths[batch][:, None]).astype(np.int64)
        vectors[batch] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return vectors
