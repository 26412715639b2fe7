"""What people are asked beside the most valuable pairs: what teaches most, and what measures without leaning."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sosie import sampling
from sosie.sampling import Shares

SIDES = ["left_id", "right_id"]
NOBODY = pl.DataFrame(schema={"left_id": pl.String, "right_id": pl.String, "verdict": pl.String})

scores = st.floats(0, 1, allow_nan=False)
rows = st.lists(
    st.tuples(scores, scores, st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 4)), min_size=0, max_size=40
)
shares = st.builds(Shares, learning=st.floats(0, 0.5), random=st.floats(0, 0.4))


def frame(of: list[tuple[float, float, str, int, int]]) -> pl.DataFrame:
    made = [
        (f"l{place:03}", f"r{place:03}", score, first, kind, f"c{one}", f"d{other}")
        for place, (score, first, kind, one, other) in enumerate(of)
    ]
    schema = dict.fromkeys((*SIDES, "kind", "one", "other"), pl.String)
    columns = ["left_id", "right_id", "score", "first_score", "kind", "one", "other"]
    typed = {name: schema.get(name, pl.Float64) for name in columns}
    return pl.DataFrame(made, schema=typed, orient="row")


def said(pairs: pl.DataFrame, verdicts: list[str]) -> pl.DataFrame:
    return pairs.select(SIDES).with_columns(verdict=pl.Series(verdicts, dtype=pl.String))


@settings(deadline=None)
@given(rows, st.data())
def test_what_is_learnt_from_is_the_greedy_choice(
    of: list[tuple[float, float, str, int, int]], data: st.DataObject
) -> None:
    pairs = frame(of)
    judged = pairs.filter(
        pl.Series(data.draw(st.lists(st.booleans(), min_size=len(of), max_size=len(of))), dtype=pl.Boolean)
    )
    chosen = sampling.to_learn(pairs, judged)
    assert chosen.join(judged, on=SIDES, how="semi").is_empty()
    assert chosen["score"].is_between(sampling.CERTAIN, 1 - sampling.CERTAIN).all()
    assert chosen["worth"].is_sorted(descending=True)
    assert chosen["worth"].is_between(0, 1).all()
    # One pair after the other, each time the best for what was taken before, gives the same worths.
    open_ = pairs.filter(pl.col("score").is_between(sampling.CERTAIN, 1 - sampling.CERTAIN)).join(
        judged, on=SIDES, how="anti"
    )
    own: dict[tuple[str, str], list[float]] = {}
    for row in sorted(open_.to_dicts(), key=lambda row: -4 * row["score"] * (1 - row["score"])):
        held = own.setdefault((row["one"], row["other"]), [])
        held.append(4 * row["score"] * (1 - row["score"]) / (1 + len(held)))
    assert chosen.height == sum(map(len, own.values()))
    greedy, kinds = [], dict(judged.group_by("kind").len().iter_rows())
    left = chosen.with_columns(place=pl.int_range(pl.len()).over("kind")).with_columns(
        known=pl.col("kind").replace_strict(kinds, default=0, return_dtype=pl.Int64)
    )
    bare = (left["worth"] * (1 + left["known"] + left["place"])).to_list()
    remaining = list(zip(bare, left["kind"], strict=True))
    while remaining:
        best = max(remaining, key=lambda one: one[0] / (1 + kinds.get(one[1], 0)))
        greedy.append(best[0] / (1 + kinds.get(best[1], 0)))
        kinds[best[1]] = kinds.get(best[1], 0) + 1
        remaining.remove(best)
    assert greedy == pytest.approx(chosen["worth"].to_list())


def test_two_alike_are_not_asked_one_after_the_other() -> None:
    pairs = frame([(0.50, 0.5, "shoes", 0, 0), (0.51, 0.5, "shoes", 1, 1), (0.40, 0.5, "lamps", 2, 2)])
    assert sampling.to_learn(pairs, NOBODY)["kind"].to_list() == ["shoes", "lamps", "shoes"]
    lamps = sampling.to_learn(pairs, pairs.filter(kind="shoes").head(1))
    assert lamps["kind"].to_list() == ["lamps", "shoes"], "of shoes one was judged already"


@settings(deadline=None)
@given(rows, shares)
def test_the_queue_keeps_its_order_and_gets_its_share(
    of: list[tuple[float, float, str, int, int]], wanted: Shares
) -> None:
    pairs = frame(of)
    queue = pairs.filter(pl.col("score").is_between(0.2, 0.8)).sort("score")
    learning = sampling.to_learn(pairs, NOBODY)
    matches, others = (sampling.sure(pairs, matches=which) for which in (True, False))
    found = sampling.mixed(queue, learning, matches, others, wanted)
    assert found.select(SIDES).is_unique().all()
    assert queue.join(found, on=SIDES, how="anti").is_empty(), "nothing that waits is lost"
    valued = found.filter(~pl.col("sampled"))
    assert valued.select(SIDES).equals(queue.join(valued, on=SIDES, how="semi", maintain_order="left").select(SIDES))
    sampled = found.filter("sampled")
    assert sampled.height <= found.height * (wanted.learning + wanted.random) + 3
    known = pl.concat([each.select(SIDES) for each in (learning, matches, others)])
    assert sampled.join(known, on=SIDES, how="anti").is_empty()
    if wanted == Shares(0, 0):
        assert found.select(SIDES).equals(queue.select(SIDES))
    if queue.is_empty():
        assert found.is_empty()


@settings(deadline=None)
@given(st.integers(0, 60), st.lists(st.booleans(), min_size=60, max_size=60), shares)
def test_where_there_is_enough_of_everything_each_kind_has_its_share_of_all(
    waits: int, within: list[bool], wanted: Shares
) -> None:
    """However many of the pairs to learn from wait in the queue anyway."""
    queue = frame([(0.5, 0.5, "a", place, place) for place in range(waits)])
    of_queue = queue.filter(pl.Series(within[:waits], dtype=pl.Boolean)).select(SIDES)
    elsewhere = [
        frame([(score, score, "b", 0, 0)] * 900).with_columns(left_id=pl.lit(name) + pl.col("left_id"))
        for name, score in (("u", 0.4), ("m", 0.99), ("o", 0.01))
    ]
    learning = pl.concat([of_queue, elsewhere[0].select(SIDES)]).sample(fraction=1, shuffle=True, seed=waits)
    found = sampling.mixed(queue, learning, elsewhere[1], elsewhere[2], wanted)
    assert found.select(SIDES).is_unique().all()
    assert queue.join(found, on=SIDES, how="anti").is_empty()
    sampled = found.filter("sampled").select(SIDES)
    by_lot = sampled.join(pl.concat(elsewhere[1:]), on=SIDES, how="semi")
    taught = sampled.join(by_lot, on=SIDES, how="anti")
    assert set(taught.rows()) == set(learning.head(taught.height).rows()), "the best to learn from come first"
    assert taught.height == pytest.approx(wanted.learning * found.height, abs=1.5)
    assert by_lot.height == pytest.approx(wanted.random * found.height, abs=1.5)
    if not waits:
        assert found.is_empty()


def test_samples_come_all_along_the_queue() -> None:
    waiting = frame([(0.5, 0.5, "a", place, place) for place in range(80)])
    more = frame([(0.3, 0.99 if place % 2 else 0.03, "b", place, place) for place in range(200)]).with_columns(
        left_id="m" + pl.col("left_id")
    )
    drawn = [sampling.sure(more, matches=which) for which in (True, False)]
    found = sampling.mixed(waiting, sampling.to_learn(more, NOBODY).head(0), *drawn, Shares(0, 0.2))
    assert found["sampled"].sum() == 20
    assert [found.head(50)["sampled"].sum(), found.tail(50)["sampled"].sum()] == [10, 10]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), unique=True, max_size=30))
def test_a_lot_is_a_pair_s_own(ids: list[tuple[str, str]]) -> None:
    pairs = pl.DataFrame(ids, schema=dict.fromkeys(SIDES, pl.String), orient="row")
    drawn = sampling.lot(pairs)
    assert drawn.is_between(0, 1).all()
    assert sampling.lot(pairs.reverse()).reverse().equals(drawn)


@settings(deadline=None)
@given(rows.filter(len), st.data())
def test_only_what_the_lot_has_come_to_is_a_sample(
    of: list[tuple[float, float, str, int, int]], data: st.DataObject
) -> None:
    drawn = sampling.sure(frame([(score, 0.95, *rest) for score, _, *rest in of]), matches=True)
    answers = data.draw(st.lists(st.sampled_from(["same", "different", None]), min_size=len(of), max_size=len(of)))
    judged = said(drawn, answers).drop_nulls()  # type: ignore[arg-type]
    until = answers.index(None) if None in answers else len(answers)
    found = sampling.estimate(drawn, judged)
    if not until:
        assert found is None
        return
    assert found is not None
    assert (found.judged, found.same) == (until, answers[:until].count("same"))
    assert 0 <= found.low <= found.same / found.judged <= found.high <= 1


def test_an_estimate_is_not_bent_by_what_people_pick_out() -> None:
    """A reviewer who hunts for errors among the sure pairs does not make them look worse than they are."""
    random, found = np.random.default_rng(5), []
    for _ in range(200):
        ids = [(f"{random.integers(1 << 40)}", f"z{place}", 1.0, 0.97) for place in range(300)]
        pairs = pl.DataFrame(
            ids,
            schema={"left_id": pl.String, "right_id": pl.String, "score": pl.Float64, "first_score": pl.Float64},
            orient="row",
        )
        drawn = sampling.sure(pairs, matches=True).with_columns(
            verdict=pl.Series(np.where(random.random(300) < 0.1, "different", "same").tolist())
        )
        hunted = drawn.filter(pl.col("verdict") == "different")
        judged = pl.concat([drawn.head(60), hunted]).unique(SIDES)
        told = sampling.estimate(drawn.drop("verdict"), judged)
        assert told is not None
        found.append(told.same / told.judged)
    assert np.mean(found) == pytest.approx(0.9, abs=0.01)
