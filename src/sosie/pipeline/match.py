"""Vectors into the index, neighbours out of it, and a decision on each pair worth one."""

import polars as pl

from sosie import blocking, judgements, lexical
from sosie.index import open_index
from sosie.pipeline.embed import MODALITIES, Modality, current, version
from sosie.pipeline.ingest import changes
from sosie.pipeline.run import Run, Tally, log, step
from sosie.tables import LISTINGS, PAIRS
from sosie.vectors import matrix

_SIDES = ["left_id", "right_id"]
_DECIDED_AT_ONCE = 200_000
"""Pairs whose features are in memory together: about 200 MB."""


@step
def upsert_vectors(run: Run, tally: Tally) -> None:
    """Bring the index in step with the changed listings: their vectors in, deleted and picture-less ones out."""
    moved = changes(run)
    listings = run.lake.lookup(LISTINGS, "listing_id", moved["listing_id"])
    with open_index(run.settings) as index:
        for modality in MODALITIES:
            touches = ("new", modality, "text_and_image", "deleted")
            ids = moved.filter(pl.col("kind").is_in(touches)).select("listing_id")
            vectors = current(
                run.lake, modality, version(run.settings, modality), listings.join(ids, on="listing_id", how="semi")
            )
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

    Every pair of a changed listing is decided anew, also one that its neighbours found in an earlier hour; a pair that
    is no match and nothing to review any more goes.
    """
    from sosie.decider.model import Decider

    settings = run.settings
    moved = changes(run)["listing_id"]
    catalogue = (
        run.lake.scan(LISTINGS)
        .filter(~pl.col("is_deleted"))
        .select("listing_id", "title", "gtin", "image_hash", "image_phash")
        .collect()
    )
    changed = catalogue.join(moved.to_frame(), on="listing_id", how="semi").sort("listing_id")["listing_id"]
    touched = pl.col("left_id").is_in(moved.implode()) | pl.col("right_id").is_in(moved.implode())
    before = run.lake.read(PAIRS, touched)

    decider = Decider.load(settings.models / "decider", threads=settings.embedding.threads)
    keys = blocking.exact_keys(changed, catalogue, settings.blocking.exact_key_limit)
    near = _neighbours(run, changed, catalogue)
    near |= lexical.neighbours(
        changed, catalogue, decider.vocabulary, settings.blocking, threads=settings.embedding.threads
    )
    found = blocking.candidates(near, keys, settings.blocking.candidates_per_listing)
    alive = catalogue.select("listing_id")
    kept = both_in(before, alive).select(*_SIDES, "blocked_by")
    pairs = pl.concat([found.pairs, kept]).unique(_SIDES, keep="first").sort(_SIDES)

    ids = pl.concat([pairs["left_id"], pairs["right_id"]]).unique()
    listings = run.lake.lookup(LISTINGS, "listing_id", ids)
    text, image = (current(run.lake, modality, version(settings, modality), listings) for modality in MODALITIES)
    decided = pl.concat(
        [
            decider.decide(
                pairs.slice(start, _DECIDED_AT_ONCE),
                listings,
                text,
                image,
                match_at=settings.decider.match_at,
                review_at=settings.decider.review_at,
            ).filter(pl.col("verdict") != "no_match")
            for start in range(0, max(pairs.height, 1), _DECIDED_AT_ONCE)
        ]
    )
    decided = _overruled(decided, judgements.active(run.lake)).with_columns(
        embedding_version=pl.lit("+".join(version(settings, modality) for modality in MODALITIES)),
        run_id=pl.lit(run.id),
    )
    gone = before.join(decided, on=_SIDES, how="anti").select(_SIDES)
    tally.written(
        run.lake.upsert(PAIRS, decided.select(*PAIRS.columns), run_id=run.id),
        run.lake.delete(PAIRS, gone, run_id=run.id),
    )
    verdicts = dict(decided.group_by("verdict").len().iter_rows())
    matched, review = verdicts.get("match", 0), verdicts.get("review", 0)
    tally(
        **{**found.counts, "candidates": pairs.height},
        match=matched,
        review=review,
        no_match=pairs.height - matched - review,
        pairs_removed=gone.height,
    )


def both_in(pairs: pl.DataFrame, listings: pl.DataFrame) -> pl.DataFrame:
    """Pairs of which both ends are among `listings` (listing_id)."""
    left = pairs.join(listings, left_on="left_id", right_on="listing_id", how="semi")
    return left.join(listings, left_on="right_id", right_on="listing_id", how="semi")


def _overruled(decided: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """What a person said stands: "same" is a match of 1, "different" is no pair at all."""
    ruled = decided.join(judged.rename({"verdict": "said"}), on=_SIDES, how="left")
    same = pl.col("said") == "same"
    return ruled.filter(pl.col("said").ne_missing("different")).with_columns(
        score=pl.when(same).then(1.0).otherwise("score"),
        verdict=pl.when(same).then(pl.lit("match")).otherwise("verdict"),
    ).drop("said")  # fmt: skip


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
