"""Clusters made again around some listings, with events, decisions and held merges: by an hour, or by a veto."""

from datetime import UTC, datetime, timedelta

import polars as pl

from sosie import canonical, clusters
from sosie.lake import Written
from sosie.lineage import evolve
from sosie.pairs import ends
from sosie.pipeline.run import Run, Tally
from sosie.tables import CLUSTER_EVENTS, CLUSTERS, DECISIONS, HELD_MERGES, LISTINGS, PAIRS, SIDES


def regroup(run: Run, tally: Tally, seeds: pl.Series, judged: pl.DataFrame, held: pl.DataFrame) -> None:
    """Group anew every component that one of `seeds` is in, by the pairs as they are.

    `judged` are the judgements that stand (left_id, right_id, verdict), `held` is all of tables.CLUSTERS.
    """
    edges = run.lake.read(PAIRS, pl.col("verdict") != "no_match", columns=[*SIDES, "score", "verdict"])
    affected = _component(seeds, edges, judged, held)

    listings = run.lake.lookup(LISTINGS, "listing_id", affected).filter(~pl.col("is_deleted"))
    living = listings.select("listing_id")
    inside = _both_in(edges, living)
    grouping = clusters.resolve(
        inside,
        _both_in(judged, living),
        min_mean_link=run.settings.clusters.min_mean_link,
        max_size=run.settings.clusters.max_size,
        listings=living["listing_id"],
    )
    lineage = evolve(
        held.filter(pl.col("listing_id").is_in(affected.implode())),
        grouping.groups,
        listings,
        run.id,
        held["cluster_id"],
        canonical.chosen(run.lake),
    )
    # The clusters go last: while they don't show a change, a run that died makes the same events and decisions again.
    tally.written(
        run.lake.append(CLUSTER_EVENTS, lineage.events, run_id=run.id),
        _decide(run, affected, lineage.rows, inside),
        _hold(run, affected, grouping.held, lineage.rows),
        run.lake.exchange(CLUSTERS, lineage.rows, lineage.gone, run_id=run.id),
    )
    tally(
        affected=len(affected),
        held_for_review=grouping.held.filter(pl.col("cause") != "judged_different").height,
    )


def amiss(judged: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """Those of `judged` that `held` (listing_id, cluster_id) doesn't show: *same* apart, or *different* together."""
    left, right = (
        held.select(pl.col("listing_id").alias(side), pl.col("cluster_id").alias(f"{side}_cluster")) for side in SIDES
    )
    placed = judged.join(left, on="left_id", how="left").join(right, on="right_id", how="left")
    together = pl.col("left_id_cluster").eq(pl.col("right_id_cluster")).fill_null(False)
    return placed.filter(together != (pl.col("verdict") == "same"))


def _both_in(pairs: pl.DataFrame, listings: pl.DataFrame) -> pl.DataFrame:
    """Pairs of which both ends are among `listings` (listing_id)."""
    left = pairs.join(listings, left_on="left_id", right_on="listing_id", how="semi")
    return left.join(listings, left_on="right_id", right_on="listing_id", how="semi")


def _hold(run: Run, affected: pl.Series, held: pl.DataFrame, rows: pl.DataFrame) -> Written:
    """Keep the matches that were not joined, with their cause, for a person to look at."""
    cluster_of = rows.select("listing_id", "cluster_id")
    told = (
        held.join(cluster_of, left_on="left_id", right_on="listing_id", how="left")
        .join(cluster_of, left_on="right_id", right_on="listing_id", how="left", suffix="_right")
        .select(
            *held.columns,
            clusters=pl.concat_list("cluster_id", "cluster_id_right").list.drop_nulls(),
            run_id=pl.lit(run.id),
        )
    )
    ids = affected.implode()
    before = run.lake.read(HELD_MERGES, pl.col("left_id").is_in(ids) | pl.col("right_id").is_in(ids))
    return run.lake.exchange(HELD_MERGES, told, before.select(SIDES), run_id=run.id)


def _component(seeds: pl.Series, edges: pl.DataFrame, judged: pl.DataFrame, held: pl.DataFrame) -> pl.Series:
    """All listings that hang together with the seeds: by matches, by judgements, or by a cluster they are in."""
    links = pl.concat(
        [
            edges.filter(pl.col("verdict") == "match").select(SIDES),
            judged.select(SIDES),
            held.select(left_id="canonical_id", right_id="listing_id"),
        ]
    )
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids = pl.concat([ends(links), seeds]).unique().sort()
    numbers = pl.DataFrame({"id": ids, "number": range(len(ids))}, schema={"id": pl.String, "number": pl.Int64})
    left, right = (
        links.join(numbers, left_on=side, right_on="id", maintain_order="left")["number"].to_numpy() for side in SIDES
    )
    graph = coo_matrix(([True] * len(left), (left, right)), shape=(len(ids), len(ids)))
    placed = numbers.with_columns(component=pl.Series(connected_components(graph, directed=False)[1]))
    touched = placed.filter(pl.col("id").is_in(seeds.implode())).select("component").unique()
    return placed.join(touched, on="component", how="semi")["id"].sort().alias("listing_id")


def _decide(run: Run, affected: pl.Series, rows: pl.DataFrame, pairs: pl.DataFrame) -> Written:
    """Append what the storefront will be told of each affected listing, where that is something new."""
    ends = [pairs.select(listing_id=side, other=other, score="score") for side, other in (SIDES, SIDES[::-1])]
    member = rows.select("listing_id", "cluster_id")
    scores = (
        pl.concat(ends)
        .join(member, on="listing_id")
        .join(member.rename({"listing_id": "other"}), on=["other", "cluster_id"])
        .group_by("listing_id")
        .agg(pl.col("score").max())
    )
    told = (
        run.lake.lookup(DECISIONS, "listing_id", affected)
        .sort("event_timestamp", "created_timestamp")
        .unique("listing_id", keep="last")
    )
    said = ["listing_id", "is_duplicate", "cluster_id", "canonical_id", "score"]
    now = (
        affected.to_frame()
        .join(rows.select("listing_id", "cluster_id", "canonical_id"), on="listing_id", how="left")
        .join(scores, on="listing_id", how="left")
        .with_columns(is_duplicate=(pl.col("canonical_id") != pl.col("listing_id")).fill_null(False))
        .select(said)
        .join(told.select(said), on=said, how="anti", nulls_equal=True)
        .join(told.select("listing_id", last="event_timestamp"), on="listing_id", how="left")
        # What is decided last is newest, also within an hour and where one runs after later ones: Feast's Redis store
        # keeps what it holds where the times are equal.
        .with_columns(
            event_timestamp=pl.max_horizontal(pl.lit(run.hour), pl.col("last") + timedelta(seconds=1)),
            created_timestamp=pl.lit(datetime.now(UTC)),
            run_id=pl.lit(run.id),
        )
    )
    return run.lake.append(DECISIONS, now.select(*DECISIONS.columns), run_id=run.id)
