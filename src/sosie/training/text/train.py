"""Train and export the text encoder: `python -m sosie.training.text --data DIR --out models/text`.

all-MiniLM-L6-v2 stays frozen; a linear head 384 → 128 is learned on top by a supervised contrastive loss (Khosla et
al. 2020, arXiv:2004.11362) over the groups that `split_of` puts into the train half. The head sees the vectors of the
*quantised* trunk, which is what it will meet in use.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from sosie import artifacts
from sosie.embedding.text import GRAPH, KIND, TOKENIZER, TextEncoder, run_sorted, session_of, tokenizer_of
from sosie.evaluate import datasets, knn, metrics
from sosie.evaluate.dataset import Dataset
from sosie.listings import clean_titles
from sosie.tables import DIM
from sosie.training.quantise import quantise
from sosie.training.text import graph as text_graph

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MAX_TOKENS = 64
BATCH_SIZE = 32
NEIGHBOURS = 40


@dataclass(frozen=True)
class Knobs:
    """How the head is trained."""

    temperature: float = 0.05
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 12
    batch_groups: int = 512
    rows_per_group: int = 4
    hard_share: float = 0.5
    seed: int = 7


@dataclass(frozen=True)
class Corpus:
    """Clean titles with their group, and the half (train or test) that the group belongs to."""

    name: str
    titles: list[str]
    groups: Ints
    is_train: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, dataset: Dataset) -> "Corpus":
        rows = dataset.listings.select("listing_id", clean_titles(pl.col("title"))).join(dataset.truth, on="listing_id")
        codes = rows["group"].rank("dense").to_numpy().astype(np.int64) - 1
        return cls(dataset.name, rows["title"].to_list(), codes, (datasets.split(rows["group"]) == "train").to_numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the text encoder.")
    parser.add_argument("--data", type=Path, required=True, help="folder with shopee/ and pricerunner/")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sosie-text-training")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 takes all")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.cache.mkdir(parents=True, exist_ok=True)
    base = text_graph.base_model()
    full, quantised = args.cache / "trunk-fp32.onnx", args.cache / "trunk-int8.onnx"
    _say("exporting the trunk")
    text_graph.export_trunk(base, full)
    quantise(full, quantised)

    corpora = [Corpus.of(datasets.load(args.data / name)) for name in ("shopee", "pricerunner")]
    pooled = [frozen(corpus.titles, quantised, base / TOKENIZER, args.cache, args.threads) for corpus in corpora]
    started = time.monotonic()
    pca = uncentred_pca(np.concatenate([rows[c.is_train] for c, rows in zip(corpora, pooled, strict=True)]))
    head = train_head(pca, corpora, pooled, Knobs())
    seconds = time.monotonic() - started

    about: dict[str, object] = {
        "base": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), frozen",
        "base_sha256": text_graph.WEIGHTS_SHA256,
        "trained_on": {
            c.name: {"rows": int(c.is_train.sum()), "groups": _count(c.groups[c.is_train])} for c in corpora
        },
        "head_seconds": round(seconds, 1),
        "reduction": {
            corpus.name: {
                name: compared(corpus, rows if matrix is None else rows @ matrix.T)
                for name, matrix in (("full_384", None), ("pca_128_uncentred", pca), ("head_128", head))
            }
            for corpus, rows in zip(corpora, pooled, strict=True)
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    text_graph.attach_head(quantised, head, args.out / GRAPH)
    shutil.copyfile(base / TOKENIZER, args.out / TOKENIZER)
    exact = args.cache / "encoder-fp32.onnx"
    text_graph.attach_head(full, head, exact)
    usage = {"max_tokens": MAX_TOKENS, "dim": DIM, "pooling": "mean", "text": "clean_title(title)"}
    artifacts.save(args.out, KIND, [GRAPH, TOKENIZER], usage, about)
    about["titles_per_cpu_second"] = speed(args.out, base, corpora[0].titles[::100])
    about["vectors"] = parity(args.out, exact, corpora[0].titles[::50], args.threads)
    artifact = artifacts.save(args.out, KIND, [GRAPH, TOKENIZER], usage, about)
    _say(f"wrote {args.out}, version {artifact.version}: {about}")


def frozen(titles: list[str], trunk: Path, tokenizer: Path, cache: Path, threads: int) -> Array:
    """Pooled trunk vectors, float32 [n, 384] of unit length, kept under `cache` by the digest of trunk and titles."""
    key = hashlib.sha256(trunk.read_bytes() + "\0".join(titles).encode()).hexdigest()[:16]
    file = cache / f"pooled-{key}.npy"
    if not file.exists():
        unique, places = np.unique(np.asarray(titles, dtype=object), return_inverse=True)
        _say(f"encoding {len(unique)} different titles")
        session = session_of(trunk, threads)
        width = session.get_outputs()[0].shape[-1]
        width = width if isinstance(width, int) else 384
        vectors = run_sorted(session, tokenizer_of(tokenizer, MAX_TOKENS), unique.tolist(), BATCH_SIZE, width)
        np.save(file, unit(vectors)[places])
    return np.asarray(np.load(file), dtype=np.float32)


def unit(rows: Array) -> Array:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def uncentred_pca(rows: Array) -> Array:
    """float32 [128, width]: leading eigenvectors of the second-moment matrix; keeps cosines better than centring."""
    _, vectors = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIM].T, dtype=np.float32)


def train_head(start: Array, corpora: list[Corpus], pooled: list[Array], knobs: Knobs) -> Array:
    """The learned reduction, float32 [128, width], begun at `start`; only rows of the train half are seen."""
    torch.manual_seed(knobs.seed)
    random = np.random.default_rng(knobs.seed)
    head = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimiser = torch.optim.AdamW([head], lr=knobs.learning_rate, weight_decay=knobs.weight_decay)
    parts = [_TrainHalf.of(corpus, rows) for corpus, rows in zip(corpora, pooled, strict=True)]
    steps = knobs.epochs * sum(part.steps(knobs) for part in parts)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(knobs.epochs):
        losses = []
        batches = [(part, batch) for part in parts for batch in part.batches(head.detach().numpy(), knobs, random)]
        random.shuffle(batches)
        for part, batch in batches:
            projected = torch.nn.functional.normalize(torch.from_numpy(part.rows[batch]) @ head.T)
            loss = supervised_contrastive(projected, torch.from_numpy(part.groups[batch]), knobs.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        _say(f"epoch {epoch + 1} of {knobs.epochs}: loss {np.mean(losses):.4f}")
    return np.ascontiguousarray(head.detach().numpy(), dtype=np.float32)


def supervised_contrastive(vectors: torch.Tensor, groups: torch.Tensor, temperature: float) -> torch.Tensor:
    """Khosla et al.'s L_out, over the rows that have a partner in the batch; `vectors` [n, d] of unit length."""
    itself = torch.eye(len(vectors), dtype=torch.bool)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, float("-inf"))
    log_share = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(itself, 0.0)
    partner = (groups[:, None] == groups[None, :]) & ~itself
    partners = partner.sum(1)
    per_row = (log_share * partner).sum(1)[partners > 0] / partners[partners > 0]
    return -per_row.mean()


@dataclass(frozen=True)
class _TrainHalf:
    """Rows of the train half, ordered by group; `starts[g]:starts[g + 1]` are those of group g."""

    rows: Array
    groups: Ints
    starts: Ints

    @classmethod
    def of(cls, corpus: Corpus, pooled: Array) -> "_TrainHalf":
        kept = np.flatnonzero(corpus.is_train)
        order = kept[np.argsort(corpus.groups[kept], kind="stable")]
        _, groups, counts = np.unique(corpus.groups[order], return_inverse=True, return_counts=True)
        return cls(pooled[order], groups.astype(np.int64), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def steps(self, knobs: Knobs) -> int:
        return -(-(len(self.starts) - 1) // knobs.batch_groups)

    def batches(self, head: Array, knobs: Knobs, random: np.random.Generator) -> Iterator[Ints]:
        """Row numbers a batch. In `hard_share` of the batches the groups are neighbours of one another."""
        count = len(self.starts) - 1
        steps = self.steps(knobs)
        shuffled = random.permutation(count)
        centres = unit(np.add.reduceat(self.rows, self.starts[:-1], axis=0) @ head.T)
        for step in range(steps):
            if random.random() < knobs.hard_share:
                seeds = random.choice(count, size=max(1, knobs.batch_groups // 16), replace=False)
                near = np.argpartition(-(centres[seeds] @ centres.T), 16, axis=1)[:, :16]
                chosen = np.unique(near)
            else:
                chosen = shuffled[step * knobs.batch_groups : (step + 1) * knobs.batch_groups]
            yield np.concatenate([self._draw(group, knobs.rows_per_group, random) for group in chosen])

    def _draw(self, group: int, most: int, random: np.random.Generator) -> Ints:
        members = np.arange(self.starts[group], self.starts[group + 1])
        return members if len(members) <= most else random.choice(members, size=most, replace=False)


def compared(corpus: Corpus, vectors: Array) -> dict[str, float]:
    """Threshold fitted on the train half's pool, scored on the test half's: each half is its own catalogue."""
    vectors = unit(vectors)
    halves = []
    for half in (corpus.is_train, ~corpus.is_train):
        links = knn.nearest(vectors[half], NEIGHBOURS)
        halves.append((links, corpus.groups[half]))
    (fit_links, fit_groups), (links, groups) = halves
    threshold = knn.fit_threshold(fit_links, fit_groups)
    score = metrics.score(metrics.counts_of_pairs(links.above(threshold), groups))
    return {
        "threshold": round(threshold, 4),
        "row_f1": round(score.row.f1, 4),
        "recall_at_40": round(metrics.pair_recall(links.pairs, groups), 4),
    }


def parity(out: Path, exact: Path, titles: list[str], threads: int) -> dict[str, float]:
    """Cosines of the shipped vectors to the float32 graph's, and to themselves when a title is encoded alone."""
    encoder = TextEncoder.load(out, threads)
    shipped = encoder.encode(titles, BATCH_SIZE)
    tokenizer = tokenizer_of(out / TOKENIZER, MAX_TOKENS)
    cosines = (shipped * run_sorted(session_of(exact, threads), tokenizer, titles, BATCH_SIZE, DIM)).sum(1)
    alone = (shipped[:128] * encoder.encode(titles[:128], 1)).sum(1)
    return {
        "titles": len(titles),
        "cosine_mean": round(float(cosines.mean()), 4),
        "cosine_min": round(float(cosines.min()), 4),
        "alone_against_batch_mean": round(float(alone.mean()), 4),
        "alone_against_batch_min": round(float(alone.min()), 4),
    }


def speed(out: Path, base: Path, titles: list[str]) -> dict[str, float]:
    """Titles per second of CPU time on one thread, batches of 32: ours, and plain transformers on the same weights."""
    encoder = TextEncoder.load(out, threads=1)
    bert = text_graph.MeanPooled(text_graph.load_bert(base))
    tokenizer = tokenizer_of(base / TOKENIZER, MAX_TOKENS)
    tokenizer.enable_padding()

    def plain() -> None:
        for start in range(0, len(titles), BATCH_SIZE):
            batch = tokenizer.encode_batch(titles[start : start + BATCH_SIZE])
            with torch.inference_mode():
                bert(torch.tensor([t.ids for t in batch]), torch.tensor([t.attention_mask for t in batch]))

    rates = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, run in (("onnx_int8", lambda: encoder.encode(titles, BATCH_SIZE)), ("torch_fp32", plain)):
        run()  # warm
        started = time.process_time()
        run()
        rates[name] = round(len(titles) / (time.process_time() - started), 1)
    torch.set_num_threads(threads)
    return rates


def _count(groups: Ints) -> int:
    return len(np.unique(groups))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
