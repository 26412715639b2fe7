"""Titles to vectors, by ONNX Runtime."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sosie.artifacts import Artifact
from sosie.embedding.characters import spell
from sosie.errors import ModelError, SettingsError
from sosie.tables import DIM

KIND = "text-encoder"
GRAPH = "encoder.onnx"
TOKENIZER = "tokenizer.json"

Vectors = npt.NDArray[np.float32]


Tokens = Callable[[Sequence[str]], list[npt.NDArray[np.int64]]]
"""From texts to what the graph takes of each: [tokens] word pieces, or [words, letters] bytes."""


@dataclass(frozen=True)
class TextEncoder:
    """A BERT-shaped encoder of titles, over word pieces (Devlin et al. 2019, arXiv:1810.04805) or over characters
    (El Boukkouri et al. 2020, arXiv:2010.10392), with a learned head."""

    artifact: Artifact
    _tokens: Tokens
    _session: Any
    _threads: int

    @classmethod
    def load(cls, folder: Path, threads: int = 0, device: str = "cpu") -> "TextEncoder":
        """Read and check the model. `threads` 0 takes every core. Raises `ModelError`."""
        artifact = Artifact.load(folder, KIND)
        session = session_of(artifact.file(GRAPH), device=device)
        width = session.get_outputs()[0].shape[-1]
        if width != DIM:
            raise ModelError(f"{artifact.file(GRAPH)} gives vectors of {width} numbers; needed are {DIM}.")
        return cls(artifact, tokens_of(artifact), session, threads)

    @property
    def version(self) -> str:
        return self.artifact.version

    def encode(self, texts: Sequence[str], batch_size: int) -> Vectors:
        """float32 [n, 128], unit length, in the order of `texts`. Each different text is computed once."""
        unique, places = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
        return run_sorted(self._session, self._tokens(unique.tolist()), batch_size, DIM, self._threads)[places]


def tokens_of(artifact: Artifact) -> Tokens:
    """How an encoder's texts are taken apart. Raises `ModelError`."""
    if "reads" not in artifact.usage:
        raise ModelError(
            f"{artifact.folder} was exported by an older version: its card doesn't tell whether it reads word pieces "
            "or characters; export it again with `make train`, or restore it with `git checkout -- models`."
        )
    most = int(artifact.usage["max_tokens"])
    if artifact.usage["reads"] == "characters":
        return lambda texts: [spell(text, most) for text in texts]
    tokenizer = tokenizer_of(artifact.file(TOKENIZER), most)
    return lambda texts: [np.array(found.ids, dtype=np.int64) for found in tokenizer.encode_batch(list(texts))]


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


def session_of(file: Path, threads: int = 1, device: str = "cpu") -> Any:
    """An ONNX Runtime session on the CPU, or on a GPU (`device` cuda). Raises `ModelError`, `SettingsError`.

    By default it works on the thread that calls it: the many small products of these models gain little from threads of
    their own, which spin where they wait. Whoever has several batches runs them `side_by_side`.
    """
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if device == "cuda":
        providers.insert(0, "CUDAExecutionProvider")
        if providers[0] not in onnxruntime.get_available_providers():
            raise SettingsError(
                "embedding.device is cuda, but this ONNX Runtime knows no GPU: install onnxruntime-gpu in place of "
                "onnxruntime where workers run, or set SOSIE_EMBEDDING__DEVICE=cpu."
            )

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors share no public base
        raise ModelError(f"{file} can't be run by ONNX Runtime {onnxruntime.__version__}: {error}") from error


def side_by_side(work: Callable[[slice], None], parts: Iterable[slice], threads: int) -> None:
    """`work` on every part, by `threads` threads (0: one a core). The first error is raised."""
    with ThreadPoolExecutor(threads or os.cpu_count(), "embed") as pool:
        for _ in pool.map(work, parts):
            pass


def run_sorted(
    session: Any, tokens: Sequence[npt.NDArray[np.int64]], batch_size: int, width: int, threads: int = 0
) -> Vectors:
    """Encode in batches of like length, each padded to its own longest text only; float32 [n, width] in input order."""
    vectors = np.empty((len(tokens), width), dtype=np.float32)
    lengths = np.array([len(text) for text in tokens], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")

    def work(part: slice) -> None:
        batch = order[part]
        ids = np.zeros((len(batch), int(lengths[batch[-1]]), *tokens[batch[0]].shape[1:]), dtype=np.int64)
        for row, place in enumerate(batch):
            ids[row, : lengths[place]] = tokens[place]
        mask = (np.arange(ids.shape[1]) < lengths[batch][:, None]).astype(np.int64)
        vectors[batch] = session.run(None, {"tokens": ids, "mask": mask})[0]

    side_by_side(work, (slice(at, at + batch_size) for at in range(0, len(tokens), batch_size)), threads)
    return vectors
