"""Where the hour's listings and pairs went, as flows and as the diagrams of them."""

from sosie.report.counts import Counts
from sosie.report.sankey import Diagram, Flow, sankey


def diagrams(count: Counts) -> list[tuple[str, Diagram | None]]:
    """What the hour's diagrams are of, and the diagrams: None where nothing flowed."""
    return [("Listings", sankey(listing_flow(count))), ("Pairs", sankey(pair_flow(count)))]


def listing_flow(count: Counts) -> list[Flow]:
    """Rows read → accepted or quarantined → what changed → what that costs."""
    embedded, nothing = "Embedded anew", "No work"
    kinds = (
        ("New", "new", embedded, "work"),
        ("New title", "text", embedded, "work"),
        ("New picture", "image", embedded, "work"),
        ("New title and picture", "text_and_image", embedded, "work"),
        ("Price or details only", "attributes", "Decided again", "light"),
        ("Deleted", "deleted", "Taken out of the index", "light"),
        ("Unchanged", "unchanged", nothing, "idle"),
        ("Late (newer known)", "stale", nothing, "idle"),
        ("Superseded in the hour", "superseded", nothing, "idle"),
    )
    return [
        Flow("Rows read", "Accepted", count("validate.rows_accepted"), "idle"),
        Flow("Rows read", "Quarantined", count("validate.rows_quarantined"), "bad"),
        *(Flow("Accepted", label, count(f"detect_changes.{name}"), tone) for label, name, _, tone in kinds),
        *(Flow(label, target, count(f"detect_changes.{name}"), tone) for label, name, target, tone in kinds),
    ]


def pair_flow(count: Counts) -> list[Flow]:
    """Candidate pairs → verdicts."""
    return [
        Flow("Candidate pairs", "Match", count("match.match"), "good"),
        Flow("Candidate pairs", "Needs a person", count("match.review"), "warn"),
        Flow("Candidate pairs", "No match", count("match.no_match"), "idle"),
    ]
