"""Shards of an hour are embedded at the same time: no lock of ours stands between two of them."""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from sosie import pipeline
from sosie.settings import load
from sosie.simulate import Marketplace, write
from sosie.tables import DIM, TEXT_EMBEDDINGS

WAIT = 120


def test_two_shards_are_inside_the_model_at_once(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, Marketplace(listings=40, hours=1, with_pictures=False))
    home = load(home=tmp_path / "home", landing=tmp_path / "landing", embedding={"shard_size": 20, "max_shards": 2})
    run = pipeline.Run.of("2026-01-05T00", settings=home)
    pipeline.validate(run)
    pipeline.detect_changes(run)
    plan = pipeline.shards(run)
    assert [(part["modality"], part["shards"]) for part in plan] == [("text", 2)] * 2

    both = threading.Barrier(2, timeout=WAIT)

    def encode(_: object, __: object, contents: pl.DataFrame) -> Sequence[Sequence[float]]:
        both.wait()  # breaks where the other shard is kept out until this one is done
        return np.eye(DIM, dtype=np.float32)[: contents.height]

    monkeypatch.setattr(sys.modules["sosie.pipeline.embed"], "encode", encode)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda part: pipeline.embed(run, **part), plan))
    computed = [counts["text_computed"] for counts in done]
    assert min(computed) > 0
    assert run.lake.read(TEXT_EMBEDDINGS)["content_hash"].n_unique() == sum(computed), "no shard lost its commit"
