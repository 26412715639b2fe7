"""Stage `train_light_text`: a title encoder without a transformer, for who has many titles and no GPU.

A title's vector is the sum of its word pieces' own, rows of one table that know nothing of their neighbours (bags of
words in Joulin et al. 2016, arXiv:1607.01759; "static embeddings" today). A row starts as what the base says of the
piece alone, weighed by how rare it is (Arora et al. 2017, "A simple but tough-to-beat baseline for sentence
embeddings"), and learns by contrast between titles of one product, as `bert` does.

It is trained twice, as `bert` is: what is served learns from the encoders' part, and what learns from the decider's
part gives the vectors by which the decider learns from the encoders' part too (see `training.text.crossed`).
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import structlog
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from sosie import artifacts
from sosie.embedding.text import GRAPH, KIND, TOKENIZER, TextEncoder, tokenizer_of
from sosie.tables import DIM
from sosie.training.losses import supervised_contrastive
from sosie.training.profile import Light, Profile, stage
from sosie.training.quantise import held_to_parity
from sosie.training.schedule import warm_then_cosine
from sosie.training.text import base, measure
from sosie.training.text.batches import Sampler
from sosie.training.text.model import Encoded
from sosie.training.text.pretrain import base_vectors, tokenised
from sosie.training.text.titles import Titles

log = structlog.get_logger()

Table = npt.NDArray[np.float32]

OPSET = 17
_LEVELS = 127
_START = 0.1
"""Length of the rows at first, in idf: steps of a usual rate move them then, and don't drown them."""

_BATCH = 2_048


def main(profile: Profile) -> None:
    """Write work/models/light/text, which is served, and work/text/light-crossed."""
    if profile.text.threads:
        torch.set_num_threads(profile.text.threads)
    learned, other = Titles.read(profile.data("encoder")), Titles.read(profile.data("decider"))
    pieces = profile.models / "text-bert" / TOKENIZER
    known = alone(profile, tokenizer_of(pieces, profile.text.max_tokens))
    crossed = profile.light.model_copy(update={"epochs": profile.light.crossed_epochs})
    train(profile, profile.light, learned, other, known, pieces, profile.light_models / "text")
    train(profile, crossed, other, learned, known, pieces, profile.light_crossed_text)


class StaticEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A title's tokens int64 [n, tokens] and their mask → vectors [n, 128] of unit length."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(table))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return F.normalize((F.embedding(tokens, self.table) * mask.unsqueeze(-1)).sum(1), dim=1)


def alone(profile: Profile, tokenizer: Tokenizer) -> Table:
    """What the base says of each piece by itself, float32 [pieces, 128]: leading components, of unit length."""
    bert, old = base.load(profile.text.base)
    numbers = tokenizer.get_vocab()
    names = [name.removeprefix("##") for name in sorted(numbers, key=numbers.__getitem__)]
    with tempfile.TemporaryDirectory() as scratch:  # kept vectors would be taken for those of another vocabulary
        said = base_vectors(bert, tokenised(old, names, profile.text.max_tokens), Path(scratch))
    said = said - said.mean(axis=0)
    _, components = np.linalg.eigh(said.T.astype(np.float64) @ said)
    leading = said @ components[:, ::-1][:, :DIM].astype(np.float32)
    return np.asarray(leading / np.linalg.norm(leading, axis=1, keepdims=True), dtype=np.float32)


def train(profile: Profile, knobs: Light, seen: Titles, unseen: Titles, known: Table, pieces: Path, out: Path) -> None:
    """Learn from `seen` and write the model folder `out`, measured on `unseen`. `known` is what `alone` gave."""
    torch.manual_seed(profile.seed)
    tokenizer = tokenizer_of(pieces, profile.text.max_tokens)
    encoded = tokenised(tokenizer, seen.texts, profile.text.max_tokens)
    encoder = StaticEncoder(known * _START * rarity(encoded, len(known))[:, None])
    history = learn(encoder, encoded, seen, knobs, profile.seed)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    onnx.save(graph(encoder.table.detach().numpy()), out / GRAPH)
    shutil.copyfile(pieces, out / TOKENIZER)
    usage = {"max_tokens": profile.text.max_tokens, "dim": DIM, "reads": "pieces", "text": "clean_title(title)"}
    artifacts.save(out, KIND, [GRAPH, TOKENIZER], usage, {})
    served = TextEncoder.load(out).encode(unseen.texts, _BATCH)
    exact = vectors(encoder, tokenised(tokenizer, unseen.texts, profile.text.max_tokens))
    cosines = (served * exact).sum(axis=1)
    parity = {
        "titles": len(unseen),
        "cosine_mean": round(float(cosines.mean()), 4),
        "cosine_min": round(float(cosines.min()), 4),
    }
    about = {
        "base": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)"
        if profile.text.base == base.PACKAGED
        else profile.text.base,
        "recipe": knobs.model_dump(exclude={"crossed_epochs"}),
        "seed": profile.seed,
        "parameters": encoder.table.numel(),
        "trained_on": {
            corpus: {"titles": len(mine := seen.of(corpus)), "groups": len(np.unique(mine.groups))}
            for corpus in sorted(set(seen.corpora))
        },
        "loss_by_epoch": history,
        "unseen_groups": measure.compared(unseen, served),
        "parity": held_to_parity("the static encoder", parity),
        "limits": "Titles of the corpora named above, in Indonesian, English and Malay; other languages were not seen. "
        "The order of words says nothing to it.",
    }
    artifact = artifacts.save(out, KIND, [GRAPH, TOKENIZER], usage, about)
    log.info("exported", folder=str(out), version=artifact.version, unseen=about["unseen_groups"])


def rarity(encoded: Encoded, pieces: int) -> Table:
    """Smoothed idf of each piece in the titles, float32 [pieces]; 0 of one that all have, as the mark of the start."""
    frequency = np.bincount(np.concatenate([np.unique(row) for row in encoded.tokens]), minlength=pieces)
    return np.log((1 + len(encoded)) / (1 + frequency)).astype(np.float32)


def learn(encoder: StaticEncoder, encoded: Encoded, titles: Titles, knobs: Light, seed: int) -> list[float]:
    """Train in place; the mean loss of each epoch."""
    optimiser = torch.optim.Adam(encoder.parameters(), lr=knobs.rate)
    history = []
    for epoch in range(knobs.epochs):
        sampler = Sampler(titles, vectors(encoder, encoded), knobs.rows_per_group, knobs.hard_share)
        batches = sampler.epoch(knobs.batch, np.random.default_rng([seed, epoch]))
        losses = []
        for place, rows in enumerate(batches):
            progress = (epoch + place / len(batches)) / knobs.epochs
            optimiser.param_groups[0]["lr"] = knobs.rate * warm_then_cosine(progress, knobs.warmup)
            groups = torch.from_numpy(titles.groups[rows])
            loss = supervised_contrastive(encoder(*encoded.padded(rows)), groups, knobs.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        history.append(round(float(np.mean(losses)), 4))
        log.info("metric learning", epoch=epoch + 1, of=knobs.epochs, loss=history[-1])
    return history


def vectors(encoder: StaticEncoder, encoded: Encoded) -> Table:
    """float32 [titles, 128] of unit length, in the titles' order."""
    found = np.empty((len(encoded), DIM), np.float32)
    with torch.inference_mode():
        for rows in encoded.in_like_lengths(np.arange(len(encoded)), _BATCH):
            found[rows] = encoder(*encoded.padded(rows)).numpy()
    return found


def graph(table: Table) -> onnx.ModelProto:
    """The encoder as it is served, with the table in int8 under one scale.

    What has one scale is summed in whole numbers, so a title has the very same vector in every batch.
    """
    small = np.rint(table / np.abs(table).max() * _LEVELS).astype(np.int8)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["small"]),
        helper.make_node("Cast", ["small"], ["rows"], to=TensorProto.INT32),
        helper.make_node("Cast", ["mask"], ["inside"], to=TensorProto.INT32),
        helper.make_node("Unsqueeze", ["inside", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "words"], ["whole"], keepdims=0),
        helper.make_node("Cast", ["whole"], ["summed"], to=TensorProto.FLOAT),
        helper.make_node("LpNormalization", ["summed"], ["vector"], axis=1, p=2),
    ]
    made = helper.make_graph(
        nodes,
        "static",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", "tokens"]),
        ],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", DIM])],
        [
            numpy_helper.from_array(small, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "words"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    stage(main, __doc__)
