"""A reviewer's word, taken down: never over somebody else's that this reviewer has not seen."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import product
from typing import Any
from urllib.parse import quote, urlencode

import polars as pl

from sosie import canonical, judgements
from sosie.locks import exclusive
from sosie.page.people import Person, Refused
from sosie.page.store import Store
from sosie.pairs import ordered
from sosie.pipeline import heed, part
from sosie.runs import last_end
from sosie.tables import CLUSTERS, RUNS

MOST_PAIRS = 2_000
"""Judgements that one split may make."""

SAID = {"same": "the same product", "different": "different products"}


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """One judgement at a time on this machine, so that looking and writing are one step."""
    with exclusive(store.settings.home / "page" / "judging.lock", 10, "recording a judgement"):
        yield


def seen(judgement: dict[str, Any] | None) -> str:
    """What a form carries to say which last judgement its reader has seen."""
    return judgement["when"].isoformat() if judgement else ""


def judge(store: Store, person: Person, one: str, other: str, verdict: str, knowing: str, note: str = "") -> None:
    """Record a verdict; a *different* splits the cluster that holds both, but where a run is at work.

    `knowing` is `seen` of the last judgement that the reviewer was shown. Raises `Refused` where somebody judged the
    pair meanwhile, and as `judgements.judge`.
    """
    left, right = ordered(one, other)
    with _alone(store):
        now = judgements.said_of(store.standing(), left, right)
        if now is not None and seen(now) != knowing:
            raise Refused(
                409,
                f"Meanwhile {now['who']} said that these two are {SAID[now['verdict']]} ({_clock(now['when'])}), "
                "so yours was not recorded; look at the pair again if you don't agree.",
                _at(left, right),
            )
        judgements.judge(store.lake, left, right, verdict, person.name, note.strip() or None)
    if verdict == "different":
        part(store.settings, [(left, right)])


def undo(store: Store, person: Person) -> tuple[str, str]:
    """Take back this reviewer's last act, and return a pair of it. Raises `Refused` where a run has used it."""
    with _alone(store):
        act = latest_of(store, person)
        if not act:
            raise Refused(409, "There is no judgement of yours to take back.")
        own = act[0]
        if used(store, own["when"]):
            raise Refused(
                409,
                "Your last judgement is in use since the last run, so it can't be taken back; judge the pair anew.",
                _at(own["left_id"], own["right_id"]),
            )
        judgements.retract_act(store.lake, person.name, own["when"])
    if own["verdict"] == "different":
        heed(store.settings)
    return own["left_id"], own["right_id"]


def latest_of(store: Store, person: Person) -> list[dict[str, Any]]:
    """This reviewer's newest judgements that hold: one, or those of a split, which all have its time."""
    own = store.standing().filter(pl.col("who") == person.name)
    return own.filter(pl.col("when") == pl.col("when").max()).to_dicts()


def used(store: Store, when: datetime) -> bool:
    """Whether a run that may have read this judgement has come to its end."""
    ended = store.derived("last end", (RUNS,), lambda: last_end(store.lake))
    return ended is not None and ended >= when


def members_of(store: Store, cluster_id: str) -> pl.DataFrame:
    """Rows of one cluster. Raises `Refused` where there is none of that id."""
    rows = store.lake.read(CLUSTERS, pl.col("cluster_id") == cluster_id).sort("listing_id")
    if rows.is_empty():
        raise Refused(
            404, f"There is no cluster {cluster_id!r} now; it may have been merged or dissolved.", "/clusters"
        )
    return rows


def between(store: Store, members: list[str]) -> pl.DataFrame:
    """The judgements that hold of two of `members`."""
    return store.standing().filter(pl.all_horizontal(pl.col("left_id", "right_id").is_in(members)))


def fingerprint(store: Store, members: list[str]) -> str:
    """What a form carries to say which members its reader has seen, and which judgements of two of them."""
    said = [" ".join(map(str, row)) for row in between(store, members).iter_rows()]
    return hashlib.sha256("\0".join([*sorted(members), *said]).encode()).hexdigest()[:16]


def split(store: Store, person: Person, cluster_id: str, chosen: list[str], knowing: str) -> None:
    """Judge each of `chosen` different from every other member, as `judge` does.

    `knowing` is the `fingerprint` that the reviewer was shown.
    """
    back = f"/clusters/{quote(cluster_id, safe='')}"
    with _alone(store):
        members = members_of(store, cluster_id)["listing_id"].to_list()
        if fingerprint(store, members) != knowing:
            raise Refused(
                409,
                "This cluster, or what people said of its listings, has changed since you opened it; look at it again.",
                back,
            )
        out = sorted(set(chosen) & set(members))
        rest = [member for member in members if member not in out]
        if not out or not rest:
            raise Refused(400, "Choose at least one listing to split off, and leave at least one.", back)
        if len(out) * len(rest) > MOST_PAIRS:
            raise Refused(
                400, f"That is {len(out) * len(rest):,} judgements; split off fewer listings at a time.", back
            )
        pairs = [ordered(one, other) for one, other in product(out, rest)]
        judgements.judge_all(store.lake, pairs, "different", person.name, f"split off cluster {cluster_id}")
    part(store.settings, pairs)


def merge(store: Store, person: Person, cluster_id: str, other: str) -> str:
    """Judge this cluster's canonical listing the same as that of `other` (a cluster or a listing); returns that one."""
    back = f"/clusters/{quote(cluster_id, safe='')}"
    with _alone(store):
        mine = members_of(store, cluster_id)
        theirs = store.lake.read(CLUSTERS, (pl.col("cluster_id") == other) | (pl.col("listing_id") == other))
        into = theirs["canonical_id"][0] if theirs.height else other
        ids = set(theirs["listing_id"]) | {into}
        if into in set(mine["listing_id"]) or other == cluster_id:
            raise Refused(400, f"{other} is in this cluster already.", back)
        both = [set(mine["listing_id"]), ids]
        for row in store.standing().filter(pl.col("verdict") == "different").iter_rows(named=True):
            if any(row["left_id"] in a and row["right_id"] in b for a, b in (both, both[::-1])):
                raise Refused(
                    409,
                    f"{row['who']} said that {row['left_id']} and {row['right_id']} are different products, and no "
                    "cluster ever holds both; judge that pair anew first.",
                    _at(row["left_id"], row["right_id"]),
                )
        judgements.judge(
            store.lake,
            mine["canonical_id"][0],
            into,
            "same",
            person.name,
            f"merge of cluster {cluster_id} with {other}",
        )
    return str(into)


def choose_canonical(store: Store, person: Person, cluster_id: str, listing_id: str) -> None:
    """Prefer a member as the cluster's canonical listing."""
    with _alone(store):
        if listing_id not in set(members_of(store, cluster_id)["listing_id"]):
            raise Refused(400, f"{listing_id} is not in this cluster.", f"/clusters/{quote(cluster_id, safe='')}")
        canonical.choose(store.lake, listing_id, person.name)


def _at(left: str, right: str) -> str:
    """Where a pair is looked at."""
    return f"/review?{urlencode({'left': left, 'right': right})}"


def _clock(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
