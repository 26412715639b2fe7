"""Text vectors by encoders that have not seen the groups in question.

The shipped encoder's head was trained on the train half, so there its cosines of duplicates are higher than on any
catalogue that it will meet (median 0.77 against 0.74 on Shopee's titles). A decider that trains on them trusts the
cosine too much. So the head is trained once more for each fold of the groups, without that fold; the trunk is the same.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import polars as pl
import structlog

from sosie.artifacts import Artifact
from sosie.embedding.text import GRAPH, KIND, TOKENIZER
from sosie.evaluate import datasets
from sosie.training.decider.pools import Catalogue, View
from sosie.training.text import train as text
from sosie.vectors import frame

log = structlog.get_logger()

POOLED = "pooled"
"""The graph's mean over token states, before the head."""


def fold_of(groups: pl.Series, folds: int) -> npt.NDArray[np.int64]:
    """A fold for each group, int64 [n], by bits of its digest that `split_of` leaves alone."""
    unique = groups.unique()
    numbers = [int.from_bytes(hashlib.sha256(group.encode()).digest()[1:5], "big") % folds for group in unique]
    return groups.replace_strict(unique, numbers, return_dtype=pl.Int64).to_numpy()


def with_views(catalogues: list[Catalogue], model: Path, cache: Path, folds: int) -> list[Catalogue]:
    """The catalogues that the text encoder was trained on, with a view for each fold of their train halves."""
    artifact = Artifact.load(model, KIND)
    trunk = cache / f"trunk-{artifact.version}.onnx"
    _save_trunk(artifact.file(GRAPH), trunk)
    corpora, pooled, fold = [], [], []
    for catalogue in catalogues:
        rows = catalogue.listings.select("listing_id", "title").join(
            catalogue.truth, on="listing_id", maintain_order="left"
        )
        groups = rows["group"].rank("dense").to_numpy().astype(np.int64) - 1
        is_train = (datasets.split(rows["group"]) == "train").to_numpy()
        corpora.append(text.Corpus(catalogue.name, rows["title"].to_list(), groups, is_train))
        pooled.append(text.frozen(corpora[-1].titles, trunk, artifact.file(TOKENIZER), cache, 1))
        fold.append(fold_of(rows["group"], folds))
    views: list[list[View]] = [[] for _ in catalogues]
    for number in range(folds):
        seen = [
            replace(corpus, is_train=corpus.is_train & (own != number))
            for corpus, own in zip(corpora, fold, strict=True)
        ]
        start = text.uncentred_pca(np.concatenate([rows[c.is_train] for c, rows in zip(seen, pooled, strict=True)]))
        head = text.train_head(start, seen, pooled, text.Knobs())
        for place, catalogue in enumerate(catalogues):
            ids = catalogue.listings["listing_id"]
            vectors = text.unit(pooled[place] @ head.T).astype(np.float32)
            views[place].append(View(ids.filter(pl.Series(fold[place] == number)), frame(ids, vectors)))
        log.info("text head without a fold", fold=number + 1, of=folds)
    return [replace(catalogue, views=tuple(own)) for catalogue, own in zip(catalogues, views, strict=True)]


def _save_trunk(graph: Path, out: Path) -> None:
    """The encoder's graph, cut before its head."""
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(graph)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(POOLED, onnx.TensorProto.FLOAT, ["batch", None]))
    onnx.save(model, out)
