"""What the rules look at: for each rule of a finished run, values with the facts that its text names.

A measure reads the run's manifest and the lake, and knows neither thresholds nor words; `evaluate` compares.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from sosie.alerts.look import Look
from sosie.stability import population_stability
from sosie.tables import MODALITIES

EXAMPLES = 3
HISTORY = 24
FEWEST_RUNS = 3
"""Earlier runs without which "as usual" means nothing."""


@dataclass(frozen=True)
class Measured:
    """A value, how many cases it rests on, and what else is worth saying. `subject` tells several of one rule apart."""

    value: float
    facts: dict[str, Any] = field(default_factory=dict)
    cases: int = 0
    subject: str = ""


Measure = Callable[[Look, float, int], Iterator[Measured]]
"""Called with the threshold and the fewest cases, for rules that choose examples by them."""

MEASURES: dict[str, Measure] = {}


def _measure(body: Measure) -> Measure:
    MEASURES[body.__name__] = body
    return body


@_measure
def quarantine_share(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    read, refused = look.count("validate.rows_read"), look.count("validate.rows_quarantined")
    if read:
        worst = ", ".join(f"{rule} ({rows:,})" for rule, rows in look.broken_rules[:EXAMPLES]) or "see the report"
        yield Measured(refused / read, {"read": read, "refused": refused, "worst": worst}, read)


@_measure
def pictures_refused(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    read, refused = look.count("validate.rows_read"), look.count("validate.pictures_refused")
    if read:
        yield Measured(refused / read, {"read": read, "refused": refused}, read)


@_measure
def candidates_capped(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    changed, capped = look.count.changed, look.count("match.capped_listings")
    if capped:
        limit = look.settings.blocking.candidates_per_listing
        yield Measured(
            capped / changed if changed else 1.0, {"capped": capped, "changed": changed, "limit": limit}, changed
        )


@_measure
def candidate_explosion(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    changed, pairs = look.count.changed, look.count("match.candidates")
    usual = look.usual_candidates(HISTORY)
    if changed and len(usual) >= FEWEST_RUNS:
        middle = median(usual)
        if middle > 0:
            per_listing = pairs / changed
            facts = {"per_listing": per_listing, "usual": middle, "runs": len(usual), "changed": changed}
            yield Measured(per_listing / middle, facts, changed)


@_measure
def large_merge(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    # The second largest of the merged clusters says whether two large ones met.
    large = [merge for merge in look.merges if merge.sizes[1] > threshold]
    if large:
        shown = "; ".join(f"{merge.cluster_id} of {' + '.join(map(str, merge.sizes))}" for merge in large[:EXAMPLES])
        yield Measured(large[0].sizes[1], {"merges": len(large), "examples": shown}, len(large))


@_measure
def merge_share(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    merged, moved = look.count("cluster.merged"), look.count.total("cluster", ("formed", "grew", "merged"))
    if moved:
        yield Measured(merged / moved, {"merged": merged, "moved": moved}, merged)


@_measure
def held_for_review(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    held = look.count("cluster.held_for_review")
    yield Measured(held, {"held": held, "max_size": look.settings.clusters.max_size}, held)


@_measure
def seller_flood(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    floods = look.sellers_in_clusters(threshold)
    if not floods.is_empty():
        shown = "; ".join(
            f"{row['seller_id']} {row['listings']:,} times in {row['cluster_id']}"
            for row in floods.head(EXAMPLES).iter_rows(named=True)
        )
        facts = {"sellers": floods["seller_id"].n_unique(), "examples": shown}
        yield Measured(floods["listings"][0], facts, floods.height)


@_measure
def price_outlier(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    far = look.prices_far_off(threshold, fewest)
    if not far.is_empty():
        shown = "; ".join(
            f"{row['listing_id']} at {row['price']:g} {row['currency'] or ''} against {row['middle']:g} "
            f"in {row['cluster_id']}"
            for row in far.head(EXAMPLES).iter_rows(named=True)
        )
        yield Measured(far["times"][0], {"outliers": far.height, "examples": shown}, int(far["priced"][0]))


@_measure
def embedding_drift(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    for modality in MODALITIES:
        now, before = look.vectors(modality, fewest)
        if len(now) >= max(fewest, 1) and len(before) >= max(fewest, 1):
            spread = float((before.var(axis=0).sum()) ** 0.5) or 1.0
            shift = float(((now.mean(axis=0) - before.mean(axis=0)) ** 2).sum() ** 0.5) / spread
            facts = {"modality": modality, "now": len(now), "before": len(before)}
            yield Measured(shift, facts, len(now), subject=modality)


@_measure
def score_drift(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    now, before = look.scores
    if min(len(now), len(before)) >= max(fewest, 1):
        yield Measured(
            population_stability(before, now), {"now": len(now), "before": len(before)}, min(len(now), len(before))
        )


@_measure
def index_mismatch(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    for modality in MODALITIES:
        held = look.count_or_none(f"upsert_vectors.{modality}_held")
        # What an hour that ran again counted is from its first time; the lake went on since.
        if held is not None and look.is_newest:
            lake = look.live_with(modality)
            facts = {"modality": modality, "lake": lake, "index": held}
            yield Measured(abs(lake - held), facts, lake, subject=modality)


@_measure
def review_queue(look: Look, threshold: float, fewest: int) -> Iterator[Measured]:
    waiting = look.waiting
    yield Measured(waiting, {"waiting": waiting}, waiting)
