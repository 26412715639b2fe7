"""Vectors into the index, neighbours out of it, and a decision on each pair worth one."""

import json

import polars as pl

from sosie import integrity, judgements, spellings
from sosie.decider import Decider
from sosie.decider.model import First
from sosie.decider.neighbourhood import FLOOR
from sosie.errors import IndexOutOfStep
from sosie.index import VectorIndex, open_index
from sosie.lake import Lake
from sosie.pairs import ends, of_either
from sosie.pipeline.candidates import propose
from sosie.pipeline.embed import EMBEDDED, assured, version
from sosie.pipeline.ingest import changes
from sosie.pipeline.retrieval import Retrieval
from sosie.pipeline.run import Run, Tally, step
from sosie.tables import LISTINGS, MODALITIES, NEIGHBOURS, PAIRS, RECIPES, REGROUP, SIDES, Modality, having
from sosie.vectors import matrix


@step
def upsert_vectors(run: Run, tally: Tally) -> None:
    """Bring the index in step with the changed listings: their vectors in, deleted and picture-less ones out."""
    moved = changes(run)
    listings = run.lake.lookup(LISTINGS, "listing_id", moved["listing_id"], columns=EMBEDDED)
    with open_index(run.settings) as index:
        for modality in MODALITIES:
            touches = ("new", modality, "text_and_image", "deleted")
            ids = moved.filter(pl.col("kind").is_in(touches)).select("listing_id")
            vectors = assured(run.lake, run.settings, modality, listings.join(ids, on="listing_id", how="semi"), run.id)
            gone = ids.join(vectors, on="listing_id", how="anti")["listing_id"].to_list()
            _refuse_empty(run, index, modality, moved["listing_id"])
            index.ensure(modality, version(run.settings, modality))
            tally.written(index.exchange(modality, vectors["listing_id"].to_list(), matrix(vectors), gone))
            tally(
                **{
                    f"{modality}_upserted": vectors.height,
                    f"{modality}_deleted": len(gone),
                    f"{modality}_held": index.count(modality),
                }
            )


def _refuse_empty(run: Run, index: VectorIndex, modality: Modality, moved: pl.Series) -> None:
    """Raises `IndexOutOfStep` where a Milvus of one's own was never filled: who changed would find no neighbours there.

    Hours over the embedded index join in process, and `sosie upkeep` mends it.
    """
    if run.settings.milvus_uri is None or index.version(modality) is not None:
        return
    others = run.lake.scan(LISTINGS).filter(having(modality), ~pl.col("listing_id").is_in(moved.implode()))
    if missing := others.select(pl.len()).collect().item():
        raise IndexOutOfStep(
            f"Milvus at {run.settings.milvus_uri} holds no {modality} vectors, and {missing:,} listings had theirs "
            "before this hour. Run `sosie rebuild`, which fills it from the lake, then the hour again."
        )


@step
def match(run: Run, tally: Tally) -> None:
    """Find candidates for each changed listing, decide them, and bring `pairs` in step.

    What is held afterwards depends on the catalogue and the models alone, not on the hours that led to it: a pair is
    proposed by the lists that `sosie.neighbours` keeps, and is decided again when one of its ends changed, when it is
    new, when a person judged it or took that back, and when another pair of one of its ends came, went or has another
    first score, as a pair is scored among the other pairs of its two ends. Beside matches and reviews near misses are
    kept, as others are seen in their light; all else goes. Everything is decided anew where `pairs` was lost, or made
    by other models or limits, or in a catalogue of another order of magnitude, which moves every score.
    """
    from sosie.decider import mlp

    settings, said = run.settings, judgements.active(run.lake)
    catalogue = _live(run.lake)
    decider = mlp.load(settings.decider_model, threads=settings.embedding.threads).in_catalogue(catalogue.height)
    now = recipe(run, decider)
    made_by = run.lake.read(RECIPES, pl.col("name") == PAIRS.name)["recipe"]
    anew = now not in made_by or integrity.without_pairs(run.lake)
    moved = changes(run)["listing_id"]
    retrieve = Retrieval(run, catalogue, decider.vocabulary)
    found = propose(run.lake, settings.blocking, retrieve, moved, anew=anew)
    # All held pairs but for their reasons, which are most of what the table weighs.
    held = run.lake.read(PAIRS, columns=[*SIDES, "score", "first_score", "verdict", "blocked_by"])
    asked = of_either(held, pl.concat([found.asked, moved]))
    before = held if anew else pl.concat([asked, held.join(found.shifted, on=SIDES, how="semi")])
    known = before.clear() if anew else before.join(of_either(before, moved), on=SIDES, how="anti")

    fresh = found.pairs.join(known, on=SIDES, how="anti")
    standing = found.pairs.join(fresh, on=SIDES, how="anti")
    first = decider.first(fresh, *_known(run, retrieve, fresh))
    close = fresh[first.rows].with_columns(first_score=pl.Series(first.near.score))
    gone = before.join(pl.concat([close.select(standing.columns), standing]), on=SIDES, how="anti")
    stay = held.join(gone, on=SIDES, how="anti").join(close, on=SIDES, how="anti")

    seen_otherwise = close.join(before, on=[*SIDES, "first_score"], how="anti")
    in_another_light = of_either(stay, ends(seen_otherwise, gone)).select(SIDES)
    relabelled = standing.join(before, on=[*SIDES, "blocked_by"], how="anti").select(SIDES)
    due = pl.concat([in_another_light, relabelled, _unheeded(held, said)])
    others = _labelled(stay.join(due, on=SIDES, how="semi"), standing)
    again = pl.concat([close.select(standing.columns), others])
    decided = _decided(
        run,
        decider,
        again,
        First.joined([first.near, decider.first(others, *_known(run, retrieve, others))]),
        around=of_either(stay, ends(again)).join(others, on=SIDES, how="anti"),
        said=said,
    )
    # Who is to be grouped again is written before the pairs that say so, and what was proposed after them: a run that
    # died in between finds the same work.
    different = decided.join(held, on=[*SIDES, "score", "verdict"], how="anti")
    touched = ends(different, gone).to_frame().with_columns(run_id=pl.lit(run.id))
    tally.written(
        run.lake.upsert(REGROUP, touched, run_id=run.id),
        run.lake.exchange(PAIRS, decided, gone, run_id=run.id),
        found.lists.write(run.lake, run.id),
        run.lake.upsert(RECIPES, pl.DataFrame([{"name": PAIRS.name, "recipe": now}]), run_id=run.id),
    )
    tally(
        **{**found.counts, "candidates": fresh.height},
        **_verdicts(decided, fresh),
        decided_again=again.height - close.height,
        pairs_removed=gone.height,
    )


def _live(lake: Lake) -> pl.DataFrame:
    """The live catalogue in order of ids, with what candidates are found by."""
    live = lake.scan(LISTINGS).filter(~pl.col("is_deleted"))
    return (
        live.select("listing_id", "title", "gtin", "image_hash", "image_phash", "text_hash")
        .sort("listing_id")
        .collect()
    )


def _decided(
    run: Run, decider: Decider, pairs: pl.DataFrame, first: First, *, around: pl.DataFrame, said: pl.DataFrame
) -> pl.DataFrame:
    """Rows of PAIRS for `pairs` that are worth one, scored among those `around`; what people `said` stands."""
    rules = run.settings.decider
    scored = decider.second(pairs, first, around=around, match_at=rules.match_at, review_at=rules.review_at)
    return (
        _overruled(scored.filter(pl.col("first_score") >= FLOOR), said)
        .with_columns(
            embedding_version=pl.lit("+".join(version(run.settings, modality) for modality in MODALITIES)),
            run_id=pl.lit(run.id),
        )
        .select(*PAIRS.columns)
    )


def _verdicts(decided: pl.DataFrame, fresh: pl.DataFrame) -> dict[str, int]:
    """How many of the `fresh` pairs got which verdict; one that is not worth a row is no match."""
    own = decided.join(fresh, on=SIDES, how="semi")
    counted = dict.fromkeys(("match", "review"), 0) | dict(own.group_by("verdict").len().iter_rows())
    return {
        "match": counted["match"],
        "review": counted["review"],
        "no_match": fresh.height - counted["match"] - counted["review"],
    }


def recipe(run: Run, decider: Decider) -> str:
    """All that a pair's row depends on beside its listings and the pairs around it."""
    thresholds = decider.thresholds(run.settings.decider.match_at, run.settings.decider.review_at)
    indifferent = {"join_above_share", "reverse_neighbours", "spare_neighbours"}  # how, not what
    return json.dumps(
        {
            "decider": decider.version,
            "prior": decider.prior,
            "thresholds": thresholds,
            "embedding": [version(run.settings, modality) for modality in MODALITIES],
            "lists": list(NEIGHBOURS.columns),
            "titles": "clean",
            "blocking": run.settings.blocking.model_dump(exclude=indifferent),
        },
        sort_keys=True,
    )


def _unheeded(held: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """Held pairs that don't show what a person said of them, or show what was taken back."""
    ruled = held.join(said.rename({"verdict": "said"}), on=SIDES, how="left")
    same = (pl.col("verdict") == "match") & (pl.col("score") == 1.0)
    different = (pl.col("verdict") == "no_match") & (pl.col("score") == 0.0)
    shown = pl.when(pl.col("said") == "same").then(same).when(pl.col("said") == "different").then(different)
    return ruled.filter(~shown.otherwise(~same & ~different)).select(SIDES)


def _labelled(held: pl.DataFrame, standing: pl.DataFrame) -> pl.DataFrame:
    """Held pairs with who proposes them now."""
    return held.select(*SIDES, "blocked_by").join(standing, on=SIDES, how="left", suffix="_now").select(
        *SIDES, pl.coalesce("blocked_by_now", "blocked_by").alias("blocked_by")
    )  # fmt: skip


def _known(run: Run, retrieve: Retrieval, pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Listings, their titles taken apart, title vectors and picture vectors of both ends of some pairs."""
    ids = ends(pairs)
    listings = run.lake.lookup(LISTINGS, "listing_id", ids)
    text, image = (retrieve.vectors(modality, ids) for modality in MODALITIES)
    parsed = spellings.kept(run.lake, listings, run.id).to_struct("parsed")
    return listings.with_columns(parsed), text, image


def _overruled(decided: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """What a person said stands: "same" is a match of 1, "different" is none of 0."""
    ruled = decided.join(judged.rename({"verdict": "said"}), on=SIDES, how="left")
    same, different = pl.col("said") == "same", pl.col("said") == "different"
    return ruled.with_columns(
        score=pl.when(same).then(1.0).when(different).then(0.0).otherwise("score"),
        verdict=pl.when(same).then(pl.lit("match")).when(different).then(pl.lit("no_match")).otherwise("verdict"),
    ).drop("said")
