"""The second version beside the live one, on the catalogue as it is: what to look at before a switch."""

from pathlib import Path
from typing import Any

import polars as pl

from sosie import blocking, judgements, registry
from sosie.index import open_index
from sosie.lake import Lake
from sosie.pairs import ends
from sosie.pipeline.embed import among, located, version
from sosie.places import write_atomically
from sosie.rebuild import measures
from sosie.rebuild.target import Target
from sosie.settings import Settings
from sosie.tables import CLUSTERS, LISTINGS, MODALITIES, PAIRS, SIDES, Modality
from sosie.vectors import Picked

Held = dict[Modality, tuple[pl.Series, Picked]]
"""Ids, in order, and vectors of all live listings under one version; the vectors lie where the lake has them."""

_SEED = 7
_FLIPS = 50


def folder(settings: Settings, target: Target) -> Path:
    """Where the comparison of a target is kept: comparison.json and index.html."""
    return settings.reports / "rebuild" / target.name


def compare(settings: Settings, target: Target) -> dict[str, Any]:
    """Measure, write the page, and return what comparison.json holds. Both versions must be in the lake as a whole.

    Neighbours and recall are exact, by joins in process over a sample (`rebuild.compare_…`), so that they say what the
    vectors are worth and not what an index loses. Both deciders judge the same pairs among the same others.
    """
    lake, served = Lake(settings.lake_uri), target.settings(settings)
    columns = ["listing_id", "category", "is_deleted", *(f"{modality}_hash" for modality in MODALITIES)]
    live = lake.read(LISTINGS, ~pl.col("is_deleted"), columns=columns)
    old = {modality: located(lake, modality, version(settings, modality), live) for modality in MODALITIES}
    new = {
        modality: old[modality]
        if (stamp := version(served, modality)) == version(settings, modality)
        else located(lake, modality, stamp, live)
        for modality in MODALITIES
    }
    vectors: dict[str, Held] = {"old": old, "new": new}
    sample = live["listing_id"].sort().sample(min(settings.rebuild.compare_listings, live.height), seed=_SEED)
    near = {which: _near(held, sample, settings.rebuild.compare_neighbours) for which, held in vectors.items()}
    overlaps = {modality: measures.overlap(near["old"][modality], near["new"][modality]) for modality in MODALITIES}
    decided = _decided(settings, lake, live.height, vectors, served)
    found: dict[str, Any] = {
        "when": registry.now(),
        "old": {"id": registry.live_id(settings), "versions": registry.versions_of(settings.models)},
        "new": {"id": target.id, "versions": target.versions},
        "listings": live.height,
        "counts": _counts(settings, served, live),
        "overlap": {
            modality: {
                "listings": rows.height,
                "neighbours": settings.rebuild.compare_neighbours,
                "mean": rows["overlap"].mean(),
            }
            for modality, rows in overlaps.items()
        },
        "recall": _recall(settings, lake, vectors),
        "decisions": measures.agreement(*decided),
        "drift": measures.drift(*decided),
        "categories": _categories(live, vectors, overlaps),
        "flipped": _with_titles(lake, measures.flipped(*decided, limit=_FLIPS)),
    }
    found["concerns"] = measures.concerns(found)
    _write(folder(settings, target), found)
    return found


def _near(held: Held, asking: pl.Series, k: int) -> dict[Modality, pl.DataFrame]:
    return {modality: blocking.join_ordered(asking, *every, k, -1.0) for modality, every in held.items()}


def _counts(settings: Settings, served: Settings, live: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Live listings that have the modality, and rows in both collections; one that no hour has made yet holds none."""
    with open_index(settings) as index:

        def held(modality: Modality, name: str) -> int:
            return index.count(modality, version=name) if name in index.versions(modality) else 0

        return {
            modality: {
                "expected": live[f"{modality}_hash"].drop_nulls().len(),
                "old": held(modality, version(settings, modality)),
                "new": held(modality, version(served, modality)),
            }
            for modality in MODALITIES
        }


def _recall(settings: Settings, lake: Lake, vectors: dict[str, Held]) -> dict[str, dict[str, Any]]:
    """Share of known duplicates that either modality's neighbours propose, as many as blocking asks for."""
    judged = judgements.active(lake).filter(pl.col("verdict") == "same").select(SIDES)
    together = measures.inside_clusters(lake.read(CLUSTERS))
    most = settings.rebuild.compare_pairs
    known = {"judged the same": judged, "in one cluster": together.sample(min(most, together.height), seed=_SEED)}
    rules = settings.blocking
    limits: dict[Modality, int] = {"text": rules.text_neighbours, "image": rules.image_neighbours}
    told = {}
    for name, pairs in known.items():
        asking = ends(pairs)
        shares = {}
        for which, held in vectors.items():
            near = [blocking.join_ordered(asking, *held[modality], k, -1.0) for modality, k in limits.items()]
            shares[which] = measures.recalled(pairs, pl.concat(near))
        told[name] = {"pairs": pairs.height, **shares}
    return told


def _decided(
    settings: Settings, lake: Lake, live: int, vectors: dict[str, Held], served: Settings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The held pairs of whole neighbourhoods, up to a limit, decided by both."""
    from sosie.decider import mlp

    pairs = lake.read(PAIRS, columns=[*SIDES, "blocked_by"]).sort(SIDES)
    ids = ends(pairs).sort().shuffle(seed=_SEED)
    rank = pl.DataFrame({"left_id": ids, "rank": range(len(ids))}, schema={"left_id": pl.String, "rank": pl.Int64})
    # All pairs of a listing go in together, as each is decided among the others.
    chosen = (
        pairs.join(rank, on="left_id")
        .join(rank.rename({"left_id": "right_id", "rank": "other"}), on="right_id")
        .sort(pl.min_horizontal("rank", "other"), *SIDES)
        .head(settings.rebuild.compare_pairs)
        .select(*SIDES, "blocked_by")
    )
    asked = ends(chosen)
    listings, told = lake.lookup(LISTINGS, "listing_id", asked), []
    for of, held in ((settings, vectors["old"]), (served, vectors["new"])):
        decider = mlp.load(of.decider_model, threads=of.embedding.threads).in_catalogue(live)
        text, image = (among(held[modality], asked) for modality in MODALITIES)
        rules = of.decider
        told.append(
            decider.decide(chosen, listings, text, image, match_at=rules.match_at, review_at=rules.review_at, reasons=0)
        )
    return told[0], told[1]


def _categories(
    live: pl.DataFrame, vectors: dict[str, Held], overlaps: dict[Modality, pl.DataFrame]
) -> list[dict[str, Any]]:
    """Of each category, largest first: listings, those with vectors in both versions, mean overlap of the sample."""
    rows = live.select("listing_id", category=pl.col("category").fill_null("–"))
    told = rows.group_by("category").agg(listings=pl.len())
    for modality in MODALITIES:
        for which, held in vectors.items():
            ids, _ = held[modality]
            counted = rows.filter(pl.col("listing_id").is_in(ids.implode())).group_by("category")
            told = told.join(counted.agg(pl.len().alias(f"{modality}_{which}")), on="category", how="left")
        shared = rows.join(overlaps[modality], left_on="listing_id", right_on="query_id").group_by("category")
        told = told.join(shared.agg(pl.col("overlap").mean().alias(f"{modality}_overlap")), on="category", how="left")
    counts = [f"{modality}_{which}" for modality in MODALITIES for which in vectors]
    told = told.with_columns(pl.col(counts).fill_null(0))
    return told.sort("listings", "category", descending=[True, False]).to_dicts()


def _with_titles(lake: Lake, pairs: pl.DataFrame) -> list[dict[str, Any]]:
    titles = lake.lookup(LISTINGS, "listing_id", ends(pairs), columns=["listing_id", "title"])
    for side in ("left", "right"):
        pairs = pairs.join(
            titles.rename({"listing_id": f"{side}_id", "title": f"{side}_title"}), on=f"{side}_id", how="left",
            maintain_order="left",
        )  # fmt: skip
    return pairs.to_dicts()


def _write(place: Path, found: dict[str, Any]) -> None:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    registry.write(place / "comparison.json", found)
    pages = Environment(loader=PackageLoader("sosie.rebuild"), autoescape=True, undefined=StrictUndefined)
    pages.filters["share"] = lambda value: "–" if value is None else f"{value:.1%}"
    pages.filters["number"] = lambda value: "–" if value is None else f"{value:,}"
    pages.filters["score"] = lambda value: "–" if value is None else f"{value:.3f}"
    write_atomically(place / "index.html", pages.get_template("comparison.html.j2").render(found=found).encode())
