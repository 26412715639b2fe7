"""Numbers, times, titles and rule names as people read them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sosie import hours
from sosie.report.counts import Counts
from sosie.report.data import Listing

FOUND_BY = {
    "text": "similar titles",
    "lexical": "similar spelling",
    "image": "similar pictures",
    "gtin": "same GTIN",
    "image_hash": "same picture file",
    "title": "same title",
    "phash": "same perceptual hash",
    "near_phash": "similar perceptual hash",
}

VERDICTS = {"match": "Match", "review": "Needs a person"}

KINDS = {
    "formed": "New",
    "grew": "Grew",
    "shrank": "Shrank",
    "merged": "Merged",
    "split": "Split",
    "dissolved": "Dissolved",
}

STEPS = {
    "validate": "Check the feed",
    "detect_changes": "Find what changed",
    "embed": "Embed titles and pictures",
    "upsert_vectors": "Update the index",
    "match": "Find and decide pairs",
    "cluster": "Group duplicates",
    "publish_features": "Publish features",
    "follow": "Update the second index",
    "check_stores": "Compare and mend the stores",
    "drop_versions": "Drop old embedding versions",
    "clear_staging": "Clear scratch",
    "forget_history": "Forget old history",
    "forget_pictures": "Forget old pictures",
    "compact_tables": "Compact tables",
    "report": "Write the report",
    "alert": "Send alerts",
}


@dataclass(frozen=True)
class Word:
    """A word of a title; `alone` where the other title has no such word left."""

    text: str
    alone: bool


def number(value: float | None) -> str:
    """1234567 → 1,234,567."""
    return "–" if value is None else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """A feature's value in three digits or so."""
    if value is None or math.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def percent(share: float | None) -> str:
    """0.974 → 97 %; never rounds up to certainty."""
    if share is None or math.isnan(share):
        return "–"
    if 0.99 <= share < 1:
        return f"{math.floor(share * 1000) / 10:.1f} %"
    if 0 < share < 0.01:
        return "< 1 %"
    return f"{share * 100:.0f} %"


def seconds(value: float | None) -> str:
    """0.04 → 40 ms, 4.213 → 4.2 s, 192 → 3 min 12 s."""
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(count: float | None) -> str:
    """Bytes in the unit that needs the fewest digits."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "B" or count >= 10 else f"{count:,.1f} {unit}"


def hour(run_id: str) -> str:
    """2026-01-05T01 → 5 January 2026, 01:00 UTC; 2026-01-05T01~veto-… → veto after that; anything else as it is."""
    hour_id, _, aside = run_id.partition("~")
    try:
        start = hours.start(hour_id)
    except ValueError:
        return run_id
    return f"{aside.split('-')[0]}{' after ' * bool(aside)}{start.day} {start:%B %Y, %H:00} UTC"


def moment(value: object) -> str:
    """A time or its ISO text, to the second."""
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return str(value)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if isinstance(when, datetime) else "–"


def price(listing: Listing) -> str:
    if listing.price is None:
        return "–"
    amount = f"{listing.price:,.2f}".removesuffix(".00")
    return f"{amount} {listing.currency}" if listing.currency else amount


def plain(name: str) -> str:
    """some_rule_name → Some rule name."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def reasons() -> Mapping[str, str]:
    """What each pair feature tells a person, by the decider's own list."""
    from sosie.decider import REASONS

    return REASONS


def compared(left: str, right: str) -> tuple[list[Word], list[Word]]:
    """Both titles' words, each with whether the other title lacks it. Case, punctuation at the edges and order don't
    count, repetition does."""
    ours, theirs = left.split(), right.split()
    return _marked(ours, theirs), _marked(theirs, ours)


def _marked(words: list[str], others: list[str]) -> list[Word]:
    left = Counter(map(_key, others))
    marked = []
    for word in words:
        key = _key(word)
        marked.append(Word(word, alone=left[key] <= 0))
        left[key] -= 1
    return marked


def _key(word: str) -> str:
    folded = word.casefold()
    return folded.strip(".,;:!?()[]{}\"'*|/-–—~") or folded


def headline(count: Counts) -> str:
    """The hour in one sentence, from the manifest's counts."""
    read, match, review = count("validate.rows_read"), count("match.match"), count("match.review")
    clusters = count.total("cluster", KINDS)
    if not (read or match or review or clusters):
        return "No rows came, nothing changed"
    parts = [f"{number(count.changed)} of {number(read)} listings changed" if read else "No rows came"]
    compared = plural(count("match.candidates"), "pair")  # known ones too: all those of a listing that changed
    found = f"{number(match)} of {compared} compared match{'es' * (match == 1)}" if match else "no pair matches"
    moved = f"{plural(clusters, 'cluster') if clusters else 'no cluster'} changed"
    parts.append(f"{found}{' and' if match and clusters else ','} {moved}")
    if review:
        parts.append(f"{plural(review, 'pair')} {'needs' if review == 1 else 'need'} a person")
    if refused := count("validate.rows_quarantined"):
        parts.append(f"{plural(refused, 'row')} quarantined")
    return "; ".join(parts)


def plural(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[str], labels: Mapping[str, str]) -> str:
    return ", ".join(labels.get(name, plain(name).lower()) for name in names)
