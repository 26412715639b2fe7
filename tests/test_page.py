"""The page over a real lake: what it shows, what it records, and what it refuses."""

import hashlib
import html
import io
import json
import math
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from fastapi.testclient import TestClient
from page_lake import HOURS, Market, client, make
from PIL import Image

from sosie import judgements, landing, pipeline, registry, tables
from sosie.artifacts import CARD
from sosie.page import hours as told_hours
from sosie.page.leases import Leases
from sosie.page.store import Store
from sosie.page.thumbnails import original
from sosie.pictures import PictureFault, Thumbnails
from sosie.report.counts import Counts
from sosie.review_queue import sampled
from sosie.settings import PROJECT, Review, load

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }}"
SIDES = ["left_id", "right_id"]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return make(tmp_path_factory)


@pytest.fixture
def ada(market: Market) -> TestClient:
    return client(market.settings)


@pytest.fixture
def bob(market: Market) -> TestClient:
    return client(market.settings, "bob:j")


def field(page: str, name: str) -> str:
    """The value of the first hidden field of that name."""
    return html.unescape(re.search(rf'name="{name}" value="([^"]*)"', page)[1])  # type: ignore[index]


def pair_on(page: str) -> tuple[str, str]:
    return field(page, "left"), field(page, "right")


def form(page: str, **more: str) -> dict[str, str]:
    return {name: field(page, name) for name in ("left", "right", "seen", "cause")} | more


def sentence(page: str) -> str:
    """What the person is told."""
    return html.unescape(re.search(r'role="alert">.*?<p>(.*?)</p>', page, re.S)[1])  # type: ignore[index]


def judged(market: Market) -> pl.DataFrame:
    return judgements.standing(market.lake)


# --- the queue ------------------------------------------------------------------------------------------------------


def test_the_queue_is_what_the_lake_is_unsure_of_most_valuable_first(market: Market) -> None:
    size = dict(market.lake.read(tables.CLUSTERS).select("listing_id", "size").iter_rows())
    cluster = dict(market.lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())
    known = set(judged(market).select(SIDES).iter_rows())

    def value(row: dict[str, Any]) -> float:
        left, right = row["left_id"], row["right_id"]
        inside = left in cluster and cluster[left] == cluster.get(right)
        hangs = size[left] if inside else size.get(left, 1) + size.get(right, 1)
        return 4 * row["score"] * (1 - row["score"]) * hangs

    review = market.lake.read(tables.PAIRS, pl.col("verdict") == "review").iter_rows(named=True)
    wanted = {(row["left_id"], row["right_id"]): value(row) for row in review}
    alone = market.settings.model_copy(update={"review": Review(learning_share=0, random_share=0)})
    queue = Store(alone).queue()
    unsure = queue.filter(pl.col("cause") == "unsure")
    found = {(row["left_id"], row["right_id"]): row["value"] for row in unsure.iter_rows(named=True)}
    assert found == pytest.approx({pair: value for pair, value in wanted.items() if pair not in known})
    assert len(found) > 5
    assert queue["value"].is_sorted(descending=True)


def test_who_judges_a_sample_is_told_nothing_of_what_is_thought_of_it(market: Market) -> None:
    """By lot or to learn from, sure or unsure: a sample looks like every other one."""
    much = market.settings.model_copy(update={"review": Review(learning_share=0.4, random_share=0.4)})
    queue = Store(much).queue()
    samples = queue.filter(pl.col("cause") == "sample")
    assert queue.select(SIDES).is_unique().all()
    sure = samples.filter(pl.col("score") > 0.9)
    assert sure.height > 0
    browser = client(much, "eve:j")
    lists = browser.get("/review", params={"cause": "sample"}).text
    for row in (sure.row(0, named=True), samples.filter(pl.col("score") < 0.9).row(0, named=True)):
        page = browser.get("/review", params={"left": row["left_id"], "right": row["right_id"]}).text
        assert "what is thought of it stays hidden" in page
        shown = page[page.index('class="card pair"') : page.index('class="say"')]
        for told in ("likely the same", "found by", "Both are in one cluster", "hang", 'class="weigh"', "No reasons"):
            assert told not in shown
    assert 'class="ahead"' in lists
    assert not re.search(r'class="num">\d', lists[lists.index('class="ahead"') :])
    other = queue.filter(pl.col("cause") == "unsure").row(0, named=True)
    page = browser.get("/review", params={"left": other["left_id"], "right": other["right_id"]}).text
    assert "likely the same product" in page


def test_sure_pairs_are_sampled_by_a_digest_of_their_ids(market: Market) -> None:
    size = dict(market.lake.read(tables.CLUSTERS).select("listing_id", "size").iter_rows())
    first = pl.col("first_score")
    for drawn, is_sure in zip(sampled(market.lake)[1:], (first >= 0.9, first <= 0.1), strict=True):
        sure = market.lake.read(tables.PAIRS, is_sure, columns=SIDES).rows()
        wanted = sorted(sure, key=lambda ids: hashlib.blake2b("\0".join(ids).encode(), digest_size=6).digest())
        assert len(wanted) > 5
        assert drawn.select(SIDES).rows() == wanted
        assert drawn["left_size"].to_list() == [size.get(left, 1) for left, _ in wanted]


def test_a_match_that_was_not_joined_waits_with_its_cause(tmp_path: Path) -> None:
    """Two clusters, two matches between them: one thing to judge; why is what the hour said, or people since."""
    store = Store(load(home=tmp_path, review={"learning_share": 0, "random_share": 0}))
    rows = [("a", "A"), ("b", "A"), ("c", "C"), ("d", "C"), ("e", "E"), ("f", "E"), ("g", "E")]
    sizes = {"A": 2, "C": 2, "E": 3}
    clusters = [
        {
            "listing_id": one,
            "cluster_id": cluster,
            "canonical_id": cluster.lower(),
            "size": sizes[cluster],
            "changed_run": None,
        }
        for one, cluster in rows
    ]
    store.lake.upsert(tables.CLUSTERS, pl.DataFrame(clusters, schema=tables.CLUSTERS.schema))
    matches = [("a", "b", 0.9), ("a", "c", 0.8), ("b", "d", 0.7), ("c", "e", 0.9)]
    pairs = [
        dict.fromkeys(tables.PAIRS.columns) | {"left_id": a, "right_id": b, "score": score, "verdict": "match"}
        for a, b, score in matches
    ]
    store.lake.upsert(tables.PAIRS, pl.DataFrame(pairs, schema=tables.PAIRS.schema))

    causes = {("a", "c"): "weak_link", ("b", "d"): "weak_link", ("c", "e"): "cluster_too_large"}
    held = [
        dict.fromkeys(tables.HELD_MERGES.columns) | {"left_id": a, "right_id": b, "cause": cause}
        for (a, b), cause in causes.items()
    ]
    store.lake.upsert(tables.HELD_MERGES, pl.DataFrame(held, schema=tables.HELD_MERGES.schema))

    def queue() -> dict[tuple[str, str], tuple[str, int]]:
        return {(r["left_id"], r["right_id"]): (r["cause"], r["more"]) for r in store.queue().iter_rows(named=True)}

    assert queue() == {("a", "c"): ("weak_link", 1), ("c", "e"): ("cluster_too_large", 0)}
    said = {"verdict": "different", "who": "ada", "when": datetime.now(UTC), "note": None, "retracted_at": None}
    row = pl.DataFrame([{"left_id": "a", "right_id": "d", **said}], schema=tables.JUDGEMENTS.schema)
    store.lake.append(tables.JUDGEMENTS, row)
    assert queue()["a", "c"] == ("judged_different", 1)


def test_a_judgement_is_recorded_leaves_the_queue_and_can_be_taken_back(market: Market, ada: TestClient) -> None:
    page = ada.get("/review").text
    pair = pair_on(page)
    before = judged(market).height
    answer = ada.post("/review/judge", data=form(page, verdict="different", note="another size"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/review")
    (row,) = judged(market).filter(pl.col("left_id") == pair[0], pl.col("right_id") == pair[1]).to_dicts()
    assert (row["verdict"], row["who"], row["note"]) == ("different", "ada", "another size")
    after = ada.get("/review").text
    assert pair_on(after) != pair
    assert "Undo" in after

    back = ada.post("/review/undo", data={"cause": ""})
    assert judged(market).height == before
    assert pair_on(ada.get(back.headers["location"]).text) == pair
    kept = market.lake.read(tables.JUDGEMENTS, pl.col("left_id") == pair[0], pl.col("right_id") == pair[1])
    assert kept["retracted_at"].null_count() == 0, "nothing is ever deleted"


def test_two_reviewers_get_two_pairs_and_the_second_word_is_refused(
    market: Market, ada: TestClient, bob: TestClient
) -> None:
    hers, his = ada.get("/review").text, bob.get("/review").text
    assert pair_on(hers) != pair_on(his)
    left, right = pair_on(hers)
    same_pair = bob.get("/review", params={"left": left, "right": right}).text
    assert "is looking at this pair right now" in same_pair

    assert ada.post("/review/judge", data=form(hers, verdict="same")).status_code == 303
    second = bob.post("/review/judge", data=form(same_pair, verdict="different"))
    assert second.status_code == 409
    assert re.match(
        r"Meanwhile ada said that these two are the same product \(.*\), so yours was not", sentence(second.text)
    )
    own = judged(market).filter(pl.col("left_id") == left, pl.col("right_id") == right)
    assert own.select("who", "verdict").rows() == [("ada", "same")]

    seen = bob.get("/review", params={"left": left, "right": right}).text
    assert "ada said" in seen
    assert bob.post("/review/judge", data=form(seen, verdict="different")).status_code == 303, "knowing, one may"
    ada.post("/review/judge", data=form(ada.get("/review", params={"left": left, "right": right}).text, verdict="same"))


def test_a_lease_ends_by_itself(tmp_path: Path) -> None:
    short, long = Leases(tmp_path / "a.db", seconds=-1), Leases(tmp_path / "a.db")
    pair = ("a", "b")
    assert short.take(pair, "ada") == "ada"
    assert long.take(pair, "bob") == "bob"
    assert long.take(pair, "ada") == "bob"
    assert long.not_for("ada").rows() == [pair]
    assert long.not_for("bob").rows() == []
    long.release(pair, "bob")
    assert long.take(pair, "ada") == "ada"


def test_a_skipped_pair_comes_back_for_others_only(ada: TestClient, bob: TestClient) -> None:
    page = ada.get("/review").text
    pair = pair_on(page)
    ada.post("/review/skip", data=form(page))
    assert pair_on(ada.get("/review").text) != pair
    params = {"left": pair[0], "right": pair[1]}
    assert "is looking" not in bob.get("/review", params=params).text


# --- who may --------------------------------------------------------------------------------------------------------

CHANGES = [
    ("/review/judge", {"left": "a", "right": "b", "verdict": "same"}),
    ("/review/skip", {"left": "a", "right": "b"}),
    ("/review/undo", {}),
    ("/clusters/c/split", {"seen": "x", "chosen": "a"}),
    ("/clusters/c/merge", {"other": "d"}),
    ("/clusters/c/canonical", {"listing": "a"}),
    ("/runs/2026-01-05T00/replay", {"rule": "x"}),
    ("/models/rollback", {"confirmed": "true"}),
    ("/models/x", {"confirmed": "true"}),
]


@pytest.mark.parametrize(("path", "data"), CHANGES)
def test_a_reader_changes_nothing(market: Market, path: str, data: dict[str, str]) -> None:
    answer = client(market.settings, "vera").post(path, data=data)
    assert answer.status_code == 403
    assert re.match(r"vera may (read but not judge|not change models); that takes the right", sentence(answer.text))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ],
)
@pytest.mark.parametrize(("path", "data"), CHANGES)
def test_another_site_changes_nothing(market: Market, headers: dict[str, str], path: str, data: dict[str, str]) -> None:
    browser = client(market.settings)
    del browser.headers["sec-fetch-site"]
    answer = browser.post(path, data=data, headers=headers)
    assert answer.status_code == 403
    assert "was not sent from Sosie's own page" in sentence(answer.text)


def test_a_browser_that_sends_only_the_origin_may(market: Market, ada: TestClient) -> None:
    del ada.headers["sec-fetch-site"]
    answer = ada.post("/review/skip", data={"left": "a", "right": "b"}, headers={"origin": "http://testserver"})
    assert answer.status_code == 303


def test_a_reader_sees_no_buttons_and_takes_no_lease(market: Market, ada: TestClient) -> None:
    left, right = pair_on(ada.get("/review").text)
    leases = Leases(market.settings.home / "page" / "leases.db")
    before = leases.not_for("nobody")
    vera = client(market.settings, "vera")
    for params in ({}, {"left": left, "right": right}, {"left": right, "right": "nobody"}):
        page = vera.get("/review", params=params).text
        assert "data-key" not in page
        assert 'method="post"' not in page
    assert leases.not_for("nobody").equals(before)


# --- strangers' words -----------------------------------------------------------------------------------------------


def test_what_sellers_wrote_is_only_text(tmp_path: Path) -> None:
    settings = load(home=tmp_path)
    store = Store(settings)
    listing = {
        "title": ATTACK,
        "seller_id": ATTACK,
        "brand": ATTACK,
        "updated_at": datetime.now(UTC),
        "is_deleted": False,
    }
    rows = [
        dict.fromkeys(tables.LISTINGS.columns)
        | listing
        | {"listing_id": one, "content_hash": "x", "first_seen_run": HOURS[0]}
        for one in (f"{ATTACK}1", f"{ATTACK}2")
    ]
    store.lake.upsert(tables.LISTINGS, pl.DataFrame(rows, schema=tables.LISTINGS.schema))
    pair = {"left_id": f"{ATTACK}1", "right_id": f"{ATTACK}2", "score": 0.4, "verdict": "review"}
    reason = {"reasons": [{"feature": ATTACK, "value": 1.0, "contribution": 1.0}], "blocked_by": [ATTACK]}
    whole = dict.fromkeys(tables.PAIRS.columns) | pair | reason
    store.lake.upsert(tables.PAIRS, pl.DataFrame([whole], schema=tables.PAIRS.schema))
    clusters = [
        {"listing_id": one, "cluster_id": "c", "canonical_id": f"{ATTACK}1", "size": 2, "changed_run": HOURS[0]}
        for one in (f"{ATTACK}1", f"{ATTACK}2")
    ]
    store.lake.upsert(tables.CLUSTERS, pl.DataFrame(clusters, schema=tables.CLUSTERS.schema))
    browser = client(settings)
    params = {"left": f"{ATTACK}1", "right": f"{ATTACK}2"}
    for answer in (
        browser.get("/review"),
        browser.get("/review", params=params),
        browser.get("/clusters", params={"q": ATTACK, "seller": ATTACK}),
        browser.get("/clusters/c"),
        browser.get(f"/clusters/{quote(ATTACK.replace('/', ''))}"),
        browser.get("/review", params={"cause": ATTACK}),
    ):
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert ">49<" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert "&lt;script&gt;alert(1)" in browser.get("/review", params=params).text


def test_pages_carry_no_style_or_script_of_their_own(market: Market, ada: TestClient) -> None:
    """The policy would stop them, and a page would look broken."""
    cluster = market.lake.read(tables.CLUSTERS)["cluster_id"][0]
    for path in ("/review", "/clusters", f"/clusters/{cluster}", "/runs", f"/runs/{HOURS[0]}", "/models"):
        page = ada.get(path).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)", page), path


# --- pictures -------------------------------------------------------------------------------------------------------


def test_a_picture_is_made_once_small_and_kept_by_its_tag(market: Market, ada: TestClient) -> None:
    image_hash = market.lake.read(tables.LISTINGS, pl.col("image_hash").is_not_null())["image_hash"][0]
    sides = {}
    for side in (96, 256, 1024):
        answer = ada.get(f"/picture/{image_hash}", params={"side": side})
        sides[side] = max(Image.open(io.BytesIO(answer.content)).size)
        assert "immutable" in answer.headers["cache-control"]
        again = ada.get(
            f"/picture/{image_hash}", params={"side": side}, headers={"if-none-match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
    assert sides[96] == 96
    assert 96 < sides[256] <= sides[1024] <= 1024
    assert len(list((market.settings.home / "page" / "pictures" / "96").rglob("*.jpg"))) >= 1


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "zz", "0" * 63, "0" * 65])
def test_a_picture_is_asked_for_by_its_hash_alone(ada: TestClient, name: str) -> None:
    assert ada.get(f"/picture/{name}").status_code in (404, 422)


def test_an_unknown_picture_or_size_is_one_sentence(ada: TestClient) -> None:
    answer = ada.get(f"/picture/{'0' * 64}")
    assert answer.status_code == 400
    assert sentence(answer.text).startswith("No copy of picture 000")
    assert ada.get(f"/picture/{'0' * 64}", params={"side": 5000}).status_code == 400


def test_an_original_never_lies_outside_the_pictures_root(tmp_path: Path) -> None:
    root, away = tmp_path / "root", tmp_path / "away.png"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(away)
    shutil.copy(away, root / "in.png")
    (root / "link.png").symlink_to(away)
    settings = load(home=tmp_path, pictures_root=str(root))
    assert original("in.png", settings) == away.read_bytes()
    for uri in (str(away), f"file://{away}", "../away.png", "link.png", "/etc/passwd", "http://127.0.0.1:1/a.png"):
        with pytest.raises(PictureFault):
            original(uri, settings)
    remote = load(home=tmp_path, pictures_root="https://shop.example/pictures")
    for uri in ("https://evil.example/a.png", "https://shop.example/pictures/../secret", "/etc/passwd",
                "https://shop.example/pictures/%2e%2e/secret"):  # fmt: skip
        with pytest.raises(PictureFault, match="does not lie below"):
            original(uri, remote)


# --- clusters -------------------------------------------------------------------------------------------------------


def shown(page: str) -> set[str]:
    return set(re.findall(r'href="/clusters/(c[0-9a-f]+)"', page))


def test_a_search_finds_what_the_lake_holds(market: Market, ada: TestClient) -> None:
    both = market.lake.read(tables.CLUSTERS).join(market.lake.read(tables.LISTINGS), on="listing_id")
    row = both.sort("listing_id").row(3, named=True)
    assert shown(ada.get("/clusters", params={"q": row["listing_id"]}).text) == {row["cluster_id"]}
    of_seller = set(both.filter(pl.col("seller_id") == row["seller_id"])["cluster_id"])
    assert shown(ada.get("/clusters", params={"seller": row["seller_id"].upper()}).text) == of_seller
    words = row["title"].split()[:2]
    titled = both.filter(
        pl.all_horizontal(pl.col("title").str.to_lowercase().str.contains(w.lower(), literal=True) for w in words)
    )
    assert shown(ada.get("/clusters", params={"q": " ".join(words)}).text) == set(titled["cluster_id"])
    everything = set().union(*(shown(ada.get("/clusters", params={"page": page}).text) for page in range(1, 9)))
    assert everything == set(both["cluster_id"])


def one_cluster(home: Path, size: int | None = None) -> tuple[Store, list[str]]:
    """A lake of the one cluster `c` of m000, m001, …: as large as one may be where no size is given."""
    store = Store(load(home=home))
    ids = [f"m{number:03}" for number in range(size or store.settings.clusters.max_size)]
    whole = {"updated_at": datetime.now(UTC), "is_deleted": False, "content_hash": "x", "first_seen_run": HOURS[0]}
    listings = [
        dict.fromkeys(tables.LISTINGS.columns) | whole
        | {"listing_id": one, "title": f"Kettle, the one of {one}", "image_hash": "0" * 64}
        for one in ids
    ]  # fmt: skip
    store.lake.upsert(tables.LISTINGS, pl.DataFrame(listings, schema=tables.LISTINGS.schema))
    same = {"cluster_id": "c", "canonical_id": ids[0], "size": len(ids), "changed_run": HOURS[0]}
    rows = pl.DataFrame([same | {"listing_id": one} for one in ids], schema=tables.CLUSTERS.schema)
    store.lake.upsert(tables.CLUSTERS, rows)
    return store, ids


def test_every_member_of_a_large_cluster_can_be_reached(tmp_path: Path) -> None:
    store, ids = one_cluster(tmp_path)
    browser = client(store.settings)
    page = browser.get("/clusters/c").text
    assert re.findall(r'name="chosen" value="(\w+)"', page) == ids
    card = browser.get("/clusters", params={"q": f"kettle {ids[-1]}"}).text
    assert re.findall(r'alt="Picture of Kettle, the one of (\w+)"', card)[:3] == [ids[0], ids[-1], ids[1]]


def test_a_split_is_taken_back_whole(tmp_path: Path) -> None:
    store, ids = one_cluster(tmp_path, 4)
    ada = client(store.settings)
    judgements.judge(store.lake, "m000", "m001", "same", "ada")
    seen = field(ada.get("/clusters/c").text, "seen")
    assert ada.post("/clusters/c/split", data={"seen": seen, "chosen": ids[-1]}).status_code == 303
    assert judgements.active(store.lake).filter(verdict="different").height == 3
    banner = html.unescape(ada.get("/review").text)
    assert "3 pairs" in banner
    assert "Undo all 3" in banner
    assert ada.post("/review/undo", data={"cause": ""}).status_code == 303
    assert judgements.active(store.lake).rows() == [("m000", "m001", "same")], "what was said before it stands"
    assert "Undo all" not in ada.get("/review").text


def test_a_split_never_takes_the_place_of_a_word_that_its_reviewer_has_not_seen(tmp_path: Path) -> None:
    store, _ = one_cluster(tmp_path, 4)
    ada = client(store.settings)
    seen = field(ada.get("/clusters/c").text, "seen")
    judgements.judge(store.lake, "m000", "m003", "same", "bob")
    refused = ada.post("/clusters/c/split", data={"seen": seen, "chosen": "m003"})
    assert refused.status_code == 409
    assert "or what people said of its listings, has changed" in sentence(refused.text)
    assert judgements.active(store.lake).rows() == [("m000", "m003", "same")]
    knowing = field(ada.get("/clusters/c").text, "seen")
    assert ada.post("/clusters/c/split", data={"seen": knowing, "chosen": "m003"}).status_code == 303
    assert judgements.active(store.lake).filter(verdict="different").height == 3


def test_a_listing_in_no_cluster_is_found_as_such(market: Market, ada: TestClient) -> None:
    alone = market.lake.read(tables.LISTINGS).join(market.lake.read(tables.CLUSTERS), on="listing_id", how="anti")
    page = ada.get("/clusters", params={"q": alone["listing_id"][0]}).text
    assert "In no cluster" in page
    assert alone["listing_id"][0] in page


def test_look_alikes_of_a_listings_own_picture_begin_with_it(market: Market, ada: TestClient) -> None:
    row = market.lake.read(tables.LISTINGS, pl.col("image_hash").is_not_null()).sort("listing_id").row(0, named=True)
    data = (Path(market.settings.pictures_root) / row["image_uri"]).read_bytes()
    page = ada.post("/clusters/lookalikes", files={"picture": ("mine.jpg", data)}).text
    first = html.unescape(page.split('<li class="card">', 2)[1])
    alike = market.lake.read(tables.LISTINGS, pl.col("image_hash") == row["image_hash"])
    assert any(
        one["title"] in first and (one["seller_id"] or "no seller") in first for one in alike.iter_rows(named=True)
    )
    for bad in (b"", b"no picture", data[:200]):
        answer = ada.post("/clusters/lookalikes", files={"picture": ("mine.jpg", bad)})
        assert answer.status_code in (400, 422)
        assert sentence(answer.text)


def test_clusters_split_at_once_and_join_and_choose_their_head_at_the_next_run(market: Market, ada: TestClient) -> None:
    wrong, rare, _ = market.wrong_cluster()
    torn = market.lake.read(tables.CLUSTERS, pl.col("cluster_id") == wrong)["listing_id"]

    page = ada.get(f"/clusters/{wrong}").text
    assert rare in page
    stale = ada.post(f"/clusters/{wrong}/split", data={"seen": "stale", "chosen": rare})
    assert (stale.status_code, sentence(stale.text)) == (
        409,
        "This cluster, or what people said of its listings, has changed since you opened it; look at it again.",
    )
    assert ada.post(f"/clusters/{wrong}/split", data={"seen": field(page, "seen")}).status_code == 400
    assert ada.post(f"/clusters/{wrong}/split", data={"seen": field(page, "seen"), "chosen": rare}).status_code == 303
    assert rare not in market.lake.read(tables.CLUSTERS, pl.col("cluster_id") == wrong)["listing_id"]

    # Others that the next run won't touch by itself: what was split off may have taken members of those around along.
    clusters = market.lake.read(tables.CLUSTERS).sort("size", "cluster_id")
    pairs = market.lake.read(tables.PAIRS).select("left_id", "right_id")
    near = pairs.filter(pl.any_horizontal(pl.all().is_in(torn.implode()))).unpivot()["value"]
    around = clusters.filter(pl.col("listing_id").is_in(pl.concat([near, torn]).implode()))["cluster_id"]
    ids = (
        clusters.filter(~pl.col("cluster_id").is_in(around.implode()))["cluster_id"]
        .unique(maintain_order=True)
        .to_list()
    )
    assert len(ids) > 2, "the market is too small for three clusters that the split left alone"
    small, third = ids[:2], ids[-1]
    heads = [clusters.filter(pl.col("cluster_id") == one)["canonical_id"][0] for one in small]
    members = clusters.filter(pl.col("cluster_id") == third)["listing_id"].to_list()
    head = clusters.filter(pl.col("cluster_id") == third)["canonical_id"][0]
    other_head = next(one for one in members if one != head)
    assert ada.post(f"/clusters/{small[0]}/merge", data={"other": small[1]}).status_code == 303
    assert ada.post(f"/clusters/{third}/canonical", data={"listing": other_head}).status_code == 303
    assert "the next run applies it" in ada.get(f"/clusters/{third}").text
    again = ada.post(f"/clusters/{wrong}/merge", data={"other": rare})
    assert again.status_code in (400, 409)

    def step() -> dict[str, tuple[str, str]]:
        pipeline.cluster(pipeline.Run.of("2026-01-05T02", settings=market.settings))
        rows = market.lake.read(tables.CLUSTERS).select("listing_id", "cluster_id", "canonical_id")
        return {row[0]: (row[1], row[2]) for row in rows.iter_rows()}

    now = step()
    rest = [one for one in torn if one != rare]
    assert all(now.get(one, (None,))[0] != now.get(rare, ("none",))[0] for one in rest)
    assert now[heads[0]][0] == now[heads[1]][0]
    assert {now[one][1] for one in members} == {other_head}
    version = market.lake.version(tables.CLUSTERS)
    assert step() == now
    assert market.lake.version(tables.CLUSTERS) == version, "the same judgements change nothing twice"
    refused = ada.post(f"/clusters/{now[rest[0]][0]}/merge", data={"other": rare})
    assert refused.status_code == 409
    assert "no cluster ever holds both" in sentence(refused.text)
    assert "Split" in ada.get(f"/clusters/{wrong}").text or "Shrank" in ada.get(f"/clusters/{wrong}").text


# --- hours ----------------------------------------------------------------------------------------------------------


def test_an_hour_tells_its_counts_and_its_quarantine(market: Market, ada: TestClient) -> None:
    row = market.lake.read(tables.RUNS, pl.col("run_id") == HOURS[0]).row(0, named=True)
    page = html.unescape(ada.get(f"/runs/{HOURS[0]}").text)
    count = Counts(row)
    for name in ("validate.rows_read", "validate.rows_accepted", "match.candidates", "match.match"):
        assert f"{count(name):,}" in page, name
    for rule in market.lake.read(tables.QUARANTINE)["rule"].unique():
        assert rule.replace("_", " ").capitalize() in page
    assert HOURS[0] in ada.get("/runs").text


@pytest.mark.parametrize("hour", ["..%2f..", "2026-01-05", "2026-01-05T00%2f..", "x" * 300])
def test_an_hours_name_is_no_path(ada: TestClient, hour: str) -> None:
    assert ada.get(f"/runs/{hour}").status_code in (404, 422)


def test_quarantined_rows_land_again_for_the_next_run(market: Market, ada: TestClient) -> None:
    held = market.lake.read(tables.QUARANTINE, pl.col("run_id") == HOURS[0])
    rule = held["rule"][0]
    wanted = held.filter(pl.col("rule") == rule).unique(["source_file", "row_number"])
    assert ada.post(f"/runs/{HOURS[0]}/replay", data={"rule": rule}).status_code == 303
    (file,) = [f for f in landing.files(market.settings.landing, "2026-01-05T09", {}) if "replay-" in f.path]
    rows = landing.read(market.settings.landing, file)
    came = [json.loads(row) for row in wanted["row"]]
    assert sorted(rows["listing_id"]) == sorted(row["listing_id"] for row in came)
    assert sorted(rows["title"]) == sorted(row["title"] for row in came)
    assert "waits for the next run" in ada.get(f"/runs/{HOURS[0]}").text
    twice = ada.post(f"/runs/{HOURS[0]}/replay", data={"rule": rule})
    assert (twice.status_code, "waits for the next run" in sentence(twice.text)) == (400, True)
    none = ada.post(f"/runs/{HOURS[0]}/replay", data={"rule": "../../x"})
    assert sentence(none.text).startswith("Nothing of hour")
    (market.settings.landing / file.path).unlink()


def hours_of(home: Path, quarantined: list[int]) -> Store:
    """Hours from 2026-01-05T00 on, of a thousand rows each."""
    store = Store(load(home=home))
    start = datetime(2026, 1, 5, tzinfo=UTC)
    for number, refused in enumerate(quarantined):
        counts = [{"name": "rows_read", "value": 1000}, {"name": "rows_quarantined", "value": refused}]
        step = {"name": "validate", "seconds": 1.0, "peak_memory_bytes": 1, "counts": counts}
        row = dict.fromkeys(tables.RUNS.columns) | {
            "run_id": f"{start + timedelta(hours=number):%Y-%m-%dT%H}", "state": "succeeded", "files": [],
            "steps": [step], "seconds": 60.0 + number % 4,
        }  # fmt: skip
        store.lake.upsert(tables.RUNS, pl.DataFrame([row], schema=tables.RUNS.schema))
    return store


def test_an_unusual_hour_stands_out(tmp_path: Path) -> None:
    store = hours_of(tmp_path, [300 if number == 11 else 10 + number % 3 for number in range(12)])
    found = {one.name: one.unusual for one in told_hours.drift(store, told_hours.one(store, "2026-01-05T11"))}
    assert found == {"changed": False, "quarantined": True, "seconds": False}
    assert not any(one.unusual for one in told_hours.drift(store, told_hours.one(store, "2026-01-05T10")))


@pytest.mark.parametrize("now", [0, 5])
def test_an_hour_is_held_against_hours_that_were_all_alike(tmp_path: Path, now: int) -> None:
    store = hours_of(tmp_path, [0] * 7 + [now])
    (refused,) = [one for one in told_hours.drift(store, told_hours.one(store, "2026-01-05T07"))
                  if one.name == "quarantined"]  # fmt: skip
    assert refused.distance == (math.inf if now else 0)
    assert refused.unusual == bool(now)
    told = client(store.settings).get("/runs/2026-01-05T07").text
    table = told[told.index('class="drift"') :]
    assert ("unusual" in table) == bool(now)
    assert "too few hours" not in table
    assert "inf" not in table
    (early,) = [one for one in told_hours.drift(store, told_hours.one(store, "2026-01-05T05"))
                if one.name == "quarantined"]  # fmt: skip
    assert early.distance is None
    assert "too few hours" in client(store.settings).get("/runs/2026-01-05T05").text


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_candidate(tmp_path: Path) -> tuple[TestClient, Any, str]:
    """The shipped models live, and a candidate that differs in its decider alone."""
    settings = load(home=tmp_path / "home")
    trained = tmp_path / "models"
    shutil.copytree(PROJECT / "models", trained)
    card = json.loads((trained / "decider" / CARD).read_text())
    card["usage"]["match_at"] = 0.5
    (trained / "decider" / CARD).write_text(json.dumps(card))
    scores = {"shopee": {"row_f1": 0.9, "row_f1_standard_error": 0.01}}
    live = {"shopee": {"row_f1": 0.8, "row_f1_standard_error": 0.01}}
    source = registry.Source("small", "0" * 12, None)
    one = registry.register(settings, trained, source, scores, live, "ada")
    return client(settings), settings, one.id


def test_pinned_models_are_told_above_those_that_are_live(tmp_path: Path) -> None:
    light = PROJECT / "models" / "light"
    pinned = client(load(home=tmp_path / "home", models=light)).get("/models").text
    assert f"SOSIE_MODELS names <code>{light}</code>" in pinned
    assert "SOSIE_MODELS" not in client(load(home=tmp_path / "home")).get("/models").text


def test_models_are_promoted_and_rolled_back_after_a_confirmation(with_candidate: tuple[TestClient, Any, str]) -> None:
    browser, settings, id_ = with_candidate
    page = browser.get("/models").text
    assert "0.900" in page
    assert "Calibration" in page
    assert "same, so nothing is embedded" in browser.get(f"/models/{id_}").text
    unsure = browser.post(f"/models/{id_}", data={})
    assert (unsure.status_code, registry.live_id(settings)) == (400, None)
    mover = move(browser, f"/models/{id_}")
    assert registry.live_id(settings) == id_
    assert "Roll back" in mover
    assert "shopee: 0.8000 → 0.9000" in mover
    move(browser, "/models/rollback")
    assert registry.live_id(settings) is None
    failed = move(browser, "/models/rollback")
    assert "there is nothing to roll back to" in failed


def move(browser: TestClient, path: str) -> str:
    """Ask, wait for the end, and return the models' page."""
    assert browser.post(path, data={"confirmed": "true"}).status_code == 303
    until = datetime.now(UTC) + timedelta(seconds=60)
    while "under way" in (page := browser.get("/models").text):
        assert datetime.now(UTC) < until
    return page


def test_a_candidate_that_failed_its_gate_needs_a_second_word(tmp_path: Path) -> None:
    settings = load(home=tmp_path / "home")
    trained = tmp_path / "models"
    shutil.copytree(PROJECT / "models", trained)
    card = json.loads((trained / "decider" / CARD).read_text())
    card["usage"]["match_at"] = 0.6
    (trained / "decider" / CARD).write_text(json.dumps(card))
    scores = {"shopee": {"row_f1": 0.5}}
    one = registry.register(
        settings, trained, registry.Source("small", "0", None), scores, {"shopee": {"row_f1": 0.8}}, "ada"
    )
    browser = client(settings)
    answer = browser.post(f"/models/{one.id}", data={"confirmed": "true"})
    assert answer.status_code == 409
    assert "did not pass the gate" in sentence(answer.text)
    assert browser.post(f"/models/{one.id}", data={"confirmed": "true", "despite_gate": "true"}).status_code == 303


# --- bad requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/review?page=0", 422),
        ("/review?page=10000000000000000000", 422),
        ("/review?cause=nonsense", 422),
        ("/review?left=a&right=a", 400),
        ("/clusters?order=sideways", 422),
        ("/clusters/none", 404),
        ("/runs?page=x", 422),
        ("/runs/2020-01-01T00", 404),
        ("/models/none", 404),
        ("/picture/x", 422),
    ],
)
def test_a_bad_request_gets_one_clear_sentence(ada: TestClient, path: str, status: int) -> None:
    answer = ada.get(path)
    assert answer.status_code == status
    told = sentence(answer.text)
    assert told[-1] in ".;"
    assert "Traceback" not in told


def test_judging_a_listing_that_is_not_there_says_so(ada: TestClient) -> None:
    data = {"left": "nobody", "right": "nothing", "verdict": "same"}
    answer = ada.post("/review/judge", data=data)
    assert answer.status_code == 400
    assert sentence(answer.text).startswith("No listing 'nobody'")


def test_an_empty_lake_has_its_pages(tmp_path: Path) -> None:
    browser = client(load(home=tmp_path))
    for path, said in (("/review", "Nothing waits"), ("/clusters", "no cluster yet"), ("/runs", "No hour has run yet")):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert said in answer.text


def test_a_thumbnail_store_elsewhere_is_asked_once(tmp_path: Path) -> None:
    settings = load(home=tmp_path, lake_uri="memory://page-thumbnails/lake")
    Thumbnails(f"{settings.lake_uri}/pictures").put("a" * 64, Image.new("RGB", (200, 100), "red"))
    browser = client(settings)
    first = browser.get(f"/picture/{'a' * 64}", params={"side": 96})
    assert first.status_code == 200
    import fsspec

    fsspec.filesystem("memory").rm("/page-thumbnails", recursive=True)
    assert browser.get(f"/picture/{'a' * 64}", params={"side": 96}).content == first.content
