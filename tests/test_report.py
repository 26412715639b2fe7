"""The run report: what is gathered from a real lake, and a page that is safe, offline, and says what happened."""

import base64
import hashlib
import io
import re
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from sosie.errors import TerminalError
from sosie.lake import Lake
from sosie.report import ReportData, gather, render, summary, words, write
from sosie.report.charts import diagrams, listing_flow
from sosie.report.counts import Counts
from sosie.report.gather import CLUSTERS_SHOWN, MEMBERS_SHOWN, ROWS_SHOWN_PER_RULE, SCORE_BINS, choose
from sosie.report.page import picture_uri
from sosie.report.sankey import Flow, sankey
from sosie.tables import CLUSTER_EVENTS, CLUSTERS, LISTINGS, PAIRS, QUARANTINE, RUNS, Table

RUN, EARLIER = "2026-01-05T01", "2026-01-05T00"
START = datetime(2026, 1, 5, 1, 2, tzinfo=UTC)
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} </script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def manifest(run_id: str = RUN, **changes: Any) -> dict[str, Any]:
    counts = {
        "validate": {"rows_read": 2000, "rows_accepted": 1990, "rows_quarantined": 10, "pictures_refused": 1},
        "detect_changes": {"new": 120, "text": 12, "image": 8, "attributes": 60, "deleted": 12, "unchanged": 1778},
        "embed": {"text_needed": 132, "text_computed": 130, "text_cached": 2, "image_needed": 9, "image_computed": 9},
        "match": {"candidates": 1536, "match": 31, "review": 5, "no_match": 1500, "capped_listings": 2},
        "cluster": {"affected": 60, "clusters": 240, "duplicates": 300, "formed": 20, "grew": 3, "merged": 1},
    }
    return {
        "run_id": run_id,
        "state": "succeeded",
        "started_at": START,
        "finished_at": START + timedelta(seconds=72),
        "seconds": 72.4,
        "files": [{"path": f"landing/{run_id}/feed.parquet", "sha256": "ab" * 32, "bytes": 123456, "rows": 2000}],
        "steps": [
            {"name": name, "seconds": 1.5 + place, "peak_memory_bytes": 2**29, "counts": own}
            for place, (name, own) in enumerate(counts.items())
        ],
        "text_version": "aaaaaaaaaaaa",
        "image_version": "bbbbbbbbbbbb",
        "decider_version": "cccccccccccc",
        **changes,
    }


def as_row(of: dict[str, Any]) -> dict[str, Any]:
    """A manifest as the `runs` table holds it."""
    listed = [
        {**step, "counts": [{"name": name, "value": value} for name, value in step["counts"].items()]}
        for step in of["steps"]
    ]
    return {**of, "steps": listed}


def jpeg(red: int = 200) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").point(lambda level: level * red // 255).save(out, "JPEG")
    return out.getvalue()


def rows(table: Table, *given_rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(table.columns) | row for row in given_rows], schema=table.schema)


def listing(listing_id: str, title: str, **values: Any) -> dict[str, Any]:
    return {
        "listing_id": listing_id,
        "title": title,
        "seller_id": f"seller-{listing_id}",
        "price": 1234.5,
        "currency": "EUR",
        "image_hash": f"hash-{listing_id}",
        "updated_at": START,
        "is_deleted": False,
        "content_hash": listing_id,
        "first_seen_run": RUN,
        **values,
    }


def pair(left: str, right: str, score: float, run_id: str = RUN, **values: Any) -> dict[str, Any]:
    return {
        "left_id": left,
        "right_id": right,
        "score": score,
        "verdict": "match" if score >= 0.8 else "review",
        "run_id": run_id,
        "reasons": [
            {"feature": "price_ratio", "value": 1.5, "contribution": -0.4},
            {"feature": "text_cosine", "value": 0.97, "contribution": 2.5},
        ],
        "blocked_by": ["text", "gtin"],
        **values,
    }


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Four listings, a match and a doubt of this run, a match of an earlier one, events, bad rows, an earlier run."""
    lake = Lake(str(tmp_path / "lake"))
    lake.upsert(
        LISTINGS,
        rows(
            LISTINGS,
            listing("a", "Acme Kettle 1.7 L red"),
            listing("b", "PROMO! Kettle Acme 1.7 L Red,"),
            listing("c", ATTACK, image_hash=None),
            listing("d", "Acme Toaster", image_hash="gone"),
        ),
    )
    lake.upsert(
        PAIRS, rows(PAIRS, pair("a", "b", 0.97), pair("a", "c", 0.6), pair("c", "d", 0.9, EARLIER, decider_version="x"))
    )
    lake.upsert(
        CLUSTERS,
        rows(
            CLUSTERS,
            *({"listing_id": i, "cluster_id": "K1", "canonical_id": "a", "size": 2} for i in "ab"),
            *({"listing_id": i, "cluster_id": "K2", "canonical_id": "c", "size": 2} for i in "cd"),
        ),
    )
    lake.upsert(
        CLUSTER_EVENTS,
        rows(
            CLUSTER_EVENTS,
            {"run_id": RUN, "kind": "formed", "cluster_id": "K1", "after": ["K1"], "joined": ["a", "b"]},
            {"run_id": RUN, "kind": "dissolved", "cluster_id": "K9", "before": ["K9"], "left": ["d", "missing"]},
            {"run_id": EARLIER, "kind": "formed", "cluster_id": "K2", "after": ["K2"], "joined": ["c", "d"]},
        ),
    )
    bad = [
        {"run_id": run, "source_file": "in/feed.csv", "row_number": i, "rule": rule, "detail": ATTACK, "row": "{}"}
        for run, rule, amount in ((RUN, "price_negative", 7), (RUN, "title_missing", 1), (EARLIER, "old", 3))
        for i in range(amount)
    ]
    lake.upsert(QUARANTINE, rows(QUARANTINE, *bad))
    lake.upsert(RUNS, rows(RUNS, as_row(manifest(EARLIER, seconds=60.0))))
    return lake


def pictures(image_hash: str) -> bytes | None:
    if image_hash == "gone":
        raise TerminalError("No copy of that picture.")
    return jpeg()


class Page(HTMLParser):
    """Elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def test_gathers_what_the_run_touched_and_nothing_else(lake: Lake) -> None:
    data = gather(lake, RUN, manifest(), pictures=pictures)
    assert [(p.left.listing_id, p.right.listing_id, p.verdict) for p in data.pairs] == [
        ("a", "c", "review"),
        ("a", "b", "match"),
    ]
    assert data.pairs_found == {"match": 1, "review": 1}
    assert [reason.feature for reason in data.pairs[0].reasons] == ["text_cosine", "price_ratio"], "strongest first"
    assert data.pairs[1].left.picture == jpeg()
    assert data.pairs[0].right.picture is None
    assert [(c.cluster_id, c.kinds, c.size) for c in data.clusters] == [
        ("K9", ("dissolved",), 0),
        ("K1", ("formed",), 2),
    ]
    gone, formed = data.clusters
    assert [(m.listing_id, m.title) for m in gone.members] == [("d", "Acme Toaster"), ("missing", "")]
    assert formed.canonical_id == formed.members[0].listing_id == "a"
    assert [(b.rule, b.rows, len(b.examples)) for b in data.broken_rules] == [
        ("price_negative", 7, ROWS_SHOWN_PER_RULE),
        ("title_missing", 1, 1),
    ]
    assert data.trend["run_id"].to_list() == [EARLIER, RUN]
    assert data.trend["match"].to_list() == [31, 31]
    assert data.trend["seconds"].to_list() == [60.0, 72.4]
    assert len(data.score_bins) == SCORE_BINS
    assert data.score_bins[19] == (1, 0)
    assert data.score_bins[12] == (0, 1)


def test_gathers_from_an_empty_lake(tmp_path: Path) -> None:
    data = gather(Lake(str(tmp_path)), RUN, manifest())
    assert (data.pairs, data.clusters, data.broken_rules, data.score_bins) == ((), (), (), ())
    assert data.trend["run_id"].to_list() == [RUN]


def test_a_report_has_bounds(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    ids = [f"L{i:03}" for i in range(300)]
    lake.upsert(LISTINGS, rows(LISTINGS, *(listing(i, i, image_hash=None) for i in ids)))
    lake.upsert(PAIRS, rows(PAIRS, *(pair(*two, 0.9) for two in pairwise(ids))))
    member = [{"listing_id": i, "cluster_id": f"K{n // 10}", "canonical_id": i, "size": 10} for n, i in enumerate(ids)]
    lake.upsert(CLUSTERS, rows(CLUSTERS, *member))
    events = [{"run_id": RUN, "kind": "formed", "cluster_id": f"K{n}"} for n in range(30)]
    lake.upsert(CLUSTER_EVENTS, rows(CLUSTER_EVENTS, *events))
    data = gather(lake, RUN, manifest(), example_pairs=12)
    assert len(data.pairs) == 12
    assert data.pairs_found == {"match": 299}
    assert (len(data.clusters), data.clusters_found) == (CLUSTERS_SHOWN, 30)
    assert {len(cluster.members) for cluster in data.clusters} == {MEMBERS_SHOWN}
    text = Page(render(data)).text
    assert "24 shown" in text
    assert "and 2 more" in text


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(13, 25), st.floats(0, 1), st.sampled_from(["match", "review"])),
        unique_by=lambda row: row[:2],
        max_size=60,
    ),
    st.integers(0, 20),
)
def test_chooses_as_many_pairs_as_asked_once_each(found: list[tuple[int, int, float, str]], limit: int) -> None:
    pairs = pl.DataFrame(
        [(f"{left:02}", f"{right:02}", score, verdict) for left, right, score, verdict in found],
        schema={"left_id": pl.String, "right_id": pl.String, "score": pl.Float64, "verdict": pl.String},
        orient="row",
    )
    chosen = choose(pairs, limit)
    assert chosen.height == min(limit, pairs.height)
    assert chosen.unique().height == chosen.height
    assert chosen.join(pairs, on=pairs.columns, how="anti").is_empty()
    assert chosen.equals(choose(pairs.reverse(), limit)), "the choice must not hang on the rows' order"
    if limit >= 2 and pairs["verdict"].n_unique() == 2:
        assert chosen["verdict"].n_unique() == 2


def test_shows_a_listing_at_most_twice_where_there_are_others() -> None:
    chain = [("hub", f"x{i:02}", 0.9, "match") for i in range(30)] + [
        (f"p{i}", f"q{i}", 0.9, "match") for i in range(10)
    ]
    pairs = pl.DataFrame(chain, schema=["left_id", "right_id", "score", "verdict"], orient="row")
    assert choose(pairs, 10)["left_id"].to_list().count("hub") <= 2


def test_the_page_is_written_once_for_one_state_of_things(lake: Lake, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    data = gather(lake, RUN, manifest(), pictures=pictures, data_docs="data_docs/index.html")
    page = write(reports, data)
    assert page == reports / RUN / "index.html"
    first = page.read_bytes()
    write(reports, gather(lake, RUN, manifest(), pictures=pictures, data_docs="data_docs/index.html"))
    write(reports, gather(lake, EARLIER, manifest(EARLIER)))
    assert page.read_bytes() == first
    written = sorted(str(path.relative_to(reports)) for path in reports.rglob("*") if path.is_file())
    assert written == [f"{EARLIER}/index.html", f"{RUN}/index.html"]
    assert len(first) < 200_000
    assert b'href="data_docs/index.html"' in first


def test_hostile_titles_stay_text(lake: Lake) -> None:
    html = render(gather(lake, RUN, manifest(), pictures=pictures))
    page = Page(html)
    assert page.all("script") == [{}], "one, in the page"
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert all((attrs["src"] or "").startswith("data:image/jpeg;base64,") for attrs in page.all("img"))
    assert "{{ 7*7 }}" in page.text, "a title is shown as it was written"


def test_nothing_is_fetched_from_elsewhere_and_only_our_script_runs(lake: Lake) -> None:
    html = render(gather(lake, RUN, manifest(), pictures=pictures, data_docs="data_docs/index.html"))
    page = Page(html)
    links = [
        attrs.get("href") or attrs.get("src") or "" for tag, attrs in page.elements if tag in ("a", "link", "script")
    ]
    assert not [link for link in links if "//" in link or ":" in link]
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)
    inline = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[-1]
    policy = next(attrs["content"] or "" for attrs in page.all("meta") if "http-equiv" in attrs)
    script = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
    )


def test_the_page_reads_well_without_seeing_it(lake: Lake) -> None:
    page = Page(render(gather(lake, RUN, manifest(), pictures=pictures)))
    assert page.all("html") == [{"lang": "en"}]
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert len(page.all("h1")) == 1
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = [attrs["aria-labelledby"] for _, attrs in page.elements if "aria-labelledby" in attrs]
    jumps = [
        (attrs["href"] or "").removeprefix("#") for attrs in page.all("a") if (attrs["href"] or "").startswith("#")
    ]
    assert set(named + jumps) <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels)), "a heading level is skipped"


def test_the_page_says_what_happened(lake: Lake) -> None:
    html = render(gather(lake, RUN, manifest(), pictures=pictures))
    text = re.sub(r"\s+", " ", Page(html).text)
    for said in (
        "212 of 2,000 listings changed; 31 of 1,536 pairs compared match and 24 clusters changed; "
        "5 pairs need a person; 10 rows quarantined.",
        "97 % likely the same",
        "found by similar titles, same GTIN",
        "The titles mean the same",
        "1,234.50 EUR",
        "Price negative · 7 entries",
        "and 2 more in the table quarantine",
        "1 min 12 s",
        "No picture",
        "300 duplicates in the catalogue now",
    ):
        assert said in text
    assert "<mark>PROMO!</mark> Kettle Acme 1.7 L Red, " in html, "one word is new; order, case and commas are not news"


def test_an_hour_without_news_says_so() -> None:
    quiet = manifest(steps=[{"name": "validate", "seconds": 0.1, "counts": {}}], files=[], text_version=None)
    text = re.sub(r"\s+", " ", Page(render(ReportData(quiet))).text)
    assert "No rows came, nothing changed." in text
    assert "No new pairs this hour: no candidate was a match or in doubt." in text
    assert "No cluster changed this hour." in text
    assert "Every row was good" in text
    known = Page(render(ReportData(manifest()))).text
    assert "every match and every doubt was known already" in known
    assert "new matches" not in known.lower()
    assert "new pairs match" not in known


@pytest.mark.parametrize(
    ("read", "match", "events", "said"),
    [
        (
            30,
            24,
            {"shrank": 6, "dissolved": 10},
            "20 of 30 listings changed; 24 of 99 pairs compared match and 16 clusters changed",
        ),
        (30, 24, {}, "20 of 30 listings changed; 24 of 99 pairs compared match, no cluster changed"),
        (20, 0, {"dissolved": 1}, "20 of 20 listings changed; no pair matches, 1 cluster changed"),
        (0, 1, {"formed": 1}, "No rows came; 1 of 99 pairs compared matches and 1 cluster changed"),
        (0, 0, {"split": 1}, "No rows came; no pair matches, 1 cluster changed"),
    ],
)
def test_the_headline_tells_of_every_kind_of_event(read: int, match: int, events: dict[str, int], said: str) -> None:
    counts = {
        "validate": {"rows_read": read},
        "detect_changes": {"text": min(read, 20)},
        "match": {"candidates": 99, "match": match},
        "cluster": events,
    }
    assert words.headline(Counts({"steps": [{"name": name, "counts": of} for name, of in counts.items()]})) == said


def test_counts_in_both_shapes_and_their_sums() -> None:
    of_run, of_table = Counts(manifest()), Counts(as_row(manifest()))
    assert of_run.changed == of_table.changed == 212
    assert of_run.embedded == 139
    assert of_run("nowhere.nothing") == 0
    assert all(balance.holds for balance in of_run.balances)
    shards = {"run_id": RUN, "steps": [{"name": "embed", "counts": {"text_computed": 3}}] * 4}
    assert Counts(shards).embedded == 12


def test_counts_that_disagree_are_told() -> None:
    wrong = manifest()
    wrong["steps"][0]["counts"]["rows_accepted"] -= 3
    text = re.sub(r"\s+", " ", Page(render(ReportData(wrong))).text)
    assert "rows read = accepted + quarantined, but 2,000 ≠ 1,997" in text


def test_what_flows_in_flows_out() -> None:
    flows = listing_flow(Counts(manifest()))
    into: Counter[str] = Counter()
    out: Counter[str] = Counter()
    for flow in flows:
        into[flow.target] += flow.amount
        out[flow.source] += flow.amount
    for node in set(into) & set(out):
        assert into[node] == out[node], node
    assert out["Rows read"] == 2000


def test_the_diagrams_tell_every_number_without_a_pointer() -> None:
    html = render(ReportData(manifest()))
    told = [re.sub("<.*?>", "", text) for text in re.findall("<text.*?</text>", html)]
    found = [diagram for _, diagram in diagrams(Counts(manifest())) if diagram]
    assert told == [f"{node.name} {node.amount:,}" for diagram in found for node in diagram.nodes]
    assert {"Rows read 2,000", "Price or details only 60", "Embedded anew 140", "Needs a person 5"} <= set(told)
    assert [diagram for _, diagram in diagrams(Counts({})) if diagram] == []


names = st.sampled_from("abcdef")


@given(st.lists(st.tuples(names, names, st.integers(1, 10**7)), max_size=8))
def test_a_sankey_keeps_amounts_and_stays_inside(given_flows: list[tuple[str, str, int]]) -> None:
    flows = [Flow(a, b, amount, "idle") for a, b, amount in sorted(given_flows) if a < b]
    diagram = sankey(flows)
    if diagram is None:
        assert flows == []
        return
    assert sum(band.amount for band in diagram.bands) == sum(flow.amount for flow in flows)
    for node in diagram.nodes:
        inward = sum(flow.amount for flow in flows if flow.target == node.name)
        assert node.amount == max(inward, sum(flow.amount for flow in flows if flow.source == node.name))
        assert 0 <= node.x <= diagram.width
        assert 0 <= node.y <= node.y + node.height <= diagram.height


@given(st.text(max_size=60), st.text(max_size=60))
def test_compared_titles_keep_every_word(left: str, right: str) -> None:
    ours, theirs = words.compared(left, right)
    assert [word.text for word in ours] == left.split()
    assert [word.text for word in theirs] == right.split()
    assert sum(not word.alone for word in ours) == sum(not word.alone for word in theirs)
    assert not any(word.alone for word in words.compared(left, left)[0])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.number(1234567), "1,234,567"),
        (words.number(None), "–"),
        (words.percent(0.974), "97 %"),
        (words.percent(0.9999), "99.9 %"),
        (words.percent(1.0), "100 %"),
        (words.percent(0.002), "< 1 %"),
        (words.seconds(0.042), "42 ms"),
        (words.seconds(4.21), "4.2 s"),
        (words.seconds(59.4), "59 s"),
        (words.seconds(192), "3 min 12 s"),
        (words.seconds(7260), "2 h 1 min"),
        (words.size(812), "812 B"),
        (words.size(1536), "1.5 KiB"),
        (words.size(700 * 2**20), "700 MiB"),
        (words.hour("2026-01-05T01"), "5 January 2026, 01:00 UTC"),
        (words.hour("manual"), "manual"),
        (words.moment("2026-01-05T01:02:03+00:00"), "2026-01-05 01:02:03 UTC"),
        (words.moment(None), "–"),
        (words.compact(float("nan")), "unknown"),
        (words.compact(0.9712), "0.97"),
        (words.compact(3.0), "3"),
        (words.plain("price_not_negative"), "Price not negative"),
    ],
)
def test_numbers_for_people(said: str, expected: str) -> None:
    assert said == expected


def test_pictures_are_made_small_and_broken_ones_left_out() -> None:
    big = io.BytesIO()
    Image.effect_noise((1200, 900), 60).convert("RGB").save(big, "PNG")
    uri = picture_uri(big.getvalue())
    shown = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    assert shown.size == (224, 168)
    assert picture_uri(None) == picture_uri(b"") == picture_uri(b"no picture") == picture_uri(jpeg()[:200]) == ""


def test_summary_in_a_terminal() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary(manifest(), {"precision": 0.94, "recall": 0.88}, report=Path("/tmp/r/index.html")))
    text = console.export_text()
    for said in (
        "212 of 2,000 listings changed",
        "precision 0.940",
        "recall 0.880",
        "file:///tmp/r/index.html",
        "2.5 s",
    ):
        assert said in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_it_and_runs_nothing_of_a_sellers(lake: Lake, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page = write(tmp_path / "reports", gather(lake, RUN, manifest(), pictures=pictures))
    complaints: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, drawn in ((1280, 2), (390, 0)):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("console", lambda message: complaints.append(message.text))
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.on("dialog", lambda dialog: complaints.append(dialog.message))
            tab.goto(page.as_uri())
            assert tab.locator("svg.sankey:visible").count() == drawn
            assert (tab.locator(".amounts:visible").count() == 0) == bool(drawn)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
            assert tab.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
            tab.close()
        browser.close()
    assert complaints == []
