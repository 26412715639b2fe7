"""Vectors into the index, neighbours out of it, and a decision on each pair worth one."""

import polars as pl

from sosie import blocking, judgements, lexical
from sosie.index import open_index
from sosie.pipeline.embed import MODALITIES, Modality, assured, current, version
from sosie.pipeline.ingest import changes
from sosie.pipeline.run import Run, Tally, log, step
from sosie.tables import LISTINGS, PAIRS
from sosie.vectors import matrix

_SIDES = ["left_id", "right_id"]


@step
def upsert_vectors(run: Run, tally: Tally) -> None:
    """Bring the index in step with the changed listings: their vectors in, deleted and picture-less ones out."""
    moved = changes(run)
    listings = run.lake.lookup(LISTINGS, "listing_id", moved["listing_id"])
    with open_index(run.settings) as index:
        for modality in MODALITIES:
            touches = ("new", modality, "text_and_image", "deleted")
            ids = moved.filter(pl.col("kind").is_in(touches)).select("listing_id")
            vectors = assured(run.lake, run.settings, modality, listings.join(ids, on="listing_id", how="semi"), run.id)
            gone = ids.join(vectors, on="listing_id", how="anti")["listing_id"].to_list()
            index.ensure(modality, version(run.settings, modality))
            tally.written(
                index.upsert(modality, vectors["listing_id"].to_list(), matrix(vectors)), index.delete(modality, gone)
            )
            tally(
                **{
                    f"{modality}_upserted": vectors.height,
                    f"{modality}_deleted": len(gone),
                    f"{modality}_held": index.count(modality),
                }
            )


@step
def match(run: Run, tally: Tally) -> None:
    """Find candidates for each changed listing, decide them, and bring `pairs` in step.

    Every pair of a changed listing is decided anew, also one that its neighbours found in an earlier hour. A pair is
    scored among the other pairs of its two ends, so those of each changed pair's ends are decided again with it. What
    is kept beside matches and reviews are near misses, as others are seen in their light; all else goes.
    """
    from sosie.decider import mlp
    from sosie.decider.neighbourhood import FLOOR

    settings = run.settings
    moved = changes(run)["listing_id"]
    catalogue = (
        run.lake.scan(LISTINGS)
        .filter(~pl.col("is_deleted"))
        .select("listing_id", "title", "gtin", "image_hash", "image_phash")
        .collect()
    )
    changed = catalogue.join(moved.to_frame(), on="listing_id", how="semi").sort("listing_id")["listing_id"]
    before = _of_either(run, moved)

    decider = mlp.load(settings.decider_model, threads=settings.embedding.threads).in_catalogue(catalogue.height)
    keys = blocking.exact_keys(changed, catalogue, settings.blocking.exact_key_limit)
    near = _neighbours(run, changed, catalogue)
    near |= lexical.neighbours(
        changed, catalogue, decider.vocabulary, settings.blocking, threads=settings.embedding.threads
    )
    found = blocking.candidates(near, keys, settings.blocking.candidates_per_listing)
    alive = catalogue.select("listing_id")
    kept = both_in(before, alive).select(*_SIDES, "blocked_by")
    pairs = pl.concat([found.pairs, kept]).unique(_SIDES, keep="first").sort(_SIDES)

    close = pairs[decider.first(pairs, *_known(run, pairs)).rows]
    light = _of_either(run, _ends(close, before)).join(before, on=_SIDES, how="anti")
    again = pl.concat([close, light.select(*_SIDES, "blocked_by")])
    around = _of_either(run, _ends(again)).join(before, on=_SIDES, how="anti")
    decided = decider.decide(
        again,
        *_known(run, again),
        around=around.select(*_SIDES, "first_score"),
        match_at=settings.decider.match_at,
        review_at=settings.decider.review_at,
    ).filter(pl.col("first_score") >= FLOOR)
    decided = _overruled(decided, judgements.active(run.lake)).with_columns(
        embedding_version=pl.lit("+".join(version(settings, modality) for modality in MODALITIES)),
        run_id=pl.lit(run.id),
    )
    gone = before.join(decided, on=_SIDES, how="anti").select(_SIDES)
    tally.written(
        run.lake.upsert(PAIRS, decided.select(*PAIRS.columns), run_id=run.id),
        run.lake.delete(PAIRS, gone, run_id=run.id),
    )
    own = decided.join(pairs, on=_SIDES, how="semi")
    verdicts = dict(own.group_by("verdict").len().iter_rows())
    matched, review = verdicts.get("match", 0), verdicts.get("review", 0)
    tally(
        **{**found.counts, "candidates": pairs.height},
        match=matched,
        review=review,
        no_match=pairs.height - matched - review,
        decided_again=light.height,
        pairs_removed=gone.height,
    )


def _of_either(run: Run, ids: pl.Series) -> pl.DataFrame:
    """Held pairs with one end or both among `ids`."""
    return run.lake.read(PAIRS, pl.col("left_id").is_in(ids.implode()) | pl.col("right_id").is_in(ids.implode()))


def _ends(*pairs: pl.DataFrame) -> pl.Series:
    """Every listing of some pairs, once."""
    return pl.concat([each[side].alias("listing_id") for each in pairs for side in _SIDES]).unique()


def _known(run: Run, pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Listings, title vectors and picture vectors of both ends of some pairs."""
    listings = run.lake.lookup(LISTINGS, "listing_id", _ends(pairs))
    text, image = (current(run.lake, modality, version(run.settings, modality), listings) for modality in MODALITIES)
    return listings, text, image


def both_in(pairs: pl.DataFrame, listings: pl.DataFrame) -> pl.DataFrame:
    """Pairs of which both ends are among `listings` (listing_id)."""
    left = pairs.join(listings, left_on="left_id", right_on="listing_id", how="semi")
    return left.join(listings, left_on="right_id", right_on="listing_id", how="semi")


def _overruled(decided: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """What a person said stands: "same" is a match of 1, "different" is none of 0."""
    ruled = decided.join(judged.rename({"verdict": "said"}), on=_SIDES, how="left")
    same, different = pl.col("said") == "same", pl.col("said") == "different"
    return ruled.with_columns(
        score=pl.when(same).then(1.0).when(different).then(0.0).otherwise("score"),
        verdict=pl.when(same).then(pl.lit("match")).when(different).then(pl.lit("no_match")).otherwise("verdict"),
    ).drop("said")


def _neighbours(run: Run, changed: pl.Series, catalogue: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Nearest listings by each modality: asked of the index, or joined in process where much of the catalogue moved.

    Both give the same where the index is exact; the join reads every live vector once, which pays above a share.
    """
    rules = run.settings.blocking
    limits: dict[Modality, tuple[int, float]] = {
        "text": (rules.text_neighbours, rules.min_text_similarity),
        "image": (rules.image_neighbours, rules.min_image_similarity),
    }
    joined = len(changed) > rules.join_above_share * catalogue.height
    log.info(
        "find neighbours", by="join in process" if joined else "index", changed=len(changed), live=catalogue.height
    )
    listings = run.lake.lookup(LISTINGS, "listing_id", catalogue["listing_id"] if joined else changed)
    found: dict[str, pl.DataFrame] = {}
    if joined:
        for modality, (k, floor) in limits.items():
            held = current(run.lake, modality, version(run.settings, modality), listings)
            found[modality] = blocking.join_frame(changed, held, k, floor)
        return found
    with open_index(run.settings) as index:
        for modality, (k, floor) in limits.items():
            query = current(run.lake, modality, version(run.settings, modality), listings)
            index.ensure(modality, version(run.settings, modality))
            found[modality] = index.search(
                modality, query["listing_id"].to_list(), matrix(query), k, min_similarity=floor
            )
    return found
