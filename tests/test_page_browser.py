"""A newcomer's first half hour in a real browser: find a wrong match, say so, and see it mended at once.

`SOSIE_SCREENSHOTS=docs/screenshots pytest tests/test_page_browser.py` saves what the browser shows on the way.
"""

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import polars as pl
import pytest
import uvicorn
from page_lake import HOURS, Market, identify, make
from PIL import Image

from sosie import tables
from sosie.page import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("SOSIE_SCREENSHOTS")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium, chromium-browser or google-chrome on the PATH; with `apt-get install chromium` this test runs",
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return make(tmp_path_factory)


@pytest.fixture(scope="module")
def url(market: Market) -> Iterator[str]:
    """The page, served for real."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = build(market.settings, identify)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


Tab = Callable[..., Any]


@pytest.fixture
def tab(chromium: Any, url: str) -> Iterator[Tab]:
    """Opens tabs; whatever one complains of in its console fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(user: str = "ada:jm", *, width: int = 1240, scheme: str = "light") -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 860},
            color_scheme=scheme,
            base_url=url,
            extra_http_headers={"x-user": user},
        )
        contexts.append(context)
        page = context.new_page()
        # A refusal is an answer, and what the browser says of its status no complaint of the page's.
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and "409 (Conflict)" not in message.text
                else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def keep(page: Any, name: str) -> None:
    """The page as a small PNG, where screenshots were asked for."""
    if not SCREENSHOTS:
        return
    page.wait_for_load_state("networkidle")
    folder = Path(SCREENSHOTS)
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


def looks_right(page: Any) -> None:
    """Nothing scrolls sideways, every picture is there, every control has a name."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page.url} scrolls sideways"
    page.evaluate("document.querySelectorAll('img').forEach((one) => one.loading = 'eager')")
    page.wait_for_load_state("networkidle")
    assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)"), page.url
    unnamed = page.evaluate(
        """[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select')].filter((one) =>
        !one.textContent.trim() && !one.getAttribute('aria-label') && !one.labels?.length
        && !one.querySelector('img[alt]')).map((one) => one.outerHTML)"""
    )
    assert unnamed == [], page.url


def test_a_newcomer_finds_judges_and_sees_a_wrong_match_mended(market: Market, tab: Tab) -> None:
    cluster, rare, other = market.wrong_cluster()
    title = market.listing(rare)["title"]
    page = tab()
    page.goto("/")
    assert page.url.endswith("/review")
    looks_right(page)
    keep(page, "review")

    page.get_by_role("link", name="Clusters").click()
    keep(page, "clusters")
    looks_right(page)
    page.get_by_label("Title or listing id").fill(title)
    page.get_by_role("button", name="Search").click()
    page.locator(f'a[href$="/clusters/{cluster}"]').click()
    assert page.locator("ol.members > li").count() == market.size(cluster)
    looks_right(page)
    keep(page, "cluster")

    # What is wrong in it is split off: every pair of this listing with another member is judged different.
    page.locator(f'input[name=chosen][value="{rare}"]').check()
    page.get_by_role("button", name="Split off what is ticked").click()
    page.get_by_role("heading", name="What people said").wait_for()
    assert other in page.content()
    assert page.locator(f'input[name=chosen][value="{rare}"]').count() == 0, "split at once, without a run"

    # The queue, by keyboard alone.
    page.goto("/review")
    first = (
        page.locator('input[name="left"]').first.input_value(),
        page.locator('input[name="right"]').first.input_value(),
    )
    page.keyboard.press("z")
    page.locator("dialog.zoom[open]").wait_for()
    keep(page, "zoom")
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.get_by_text("the next run applies it").wait_for()
    page.keyboard.press("u")
    page.wait_for_url("**left=**")
    assert page.locator('input[name="left"]').first.input_value() == first[0]
    page.keyboard.press("s")
    page.get_by_text("the next run applies it").wait_for()
    page.keyboard.press("k")
    page.wait_for_load_state()

    market.run(HOURS[1])

    where = dict(market.lake.read(tables.CLUSTERS).select("listing_id", "cluster_id").iter_rows())
    assert where.get(rare, "alone") != where.get(other)
    if set(first) <= market.living():
        assert where[first[0]] == where[first[1]], "what was judged the same is one cluster now"
    page.goto(f"/clusters/{where[other]}")
    assert page.locator(f'input[name=chosen][value="{rare}"]').count() == 0
    assert page.locator("ol.history li").count() >= 2
    page.goto("/runs")
    looks_right(page)
    keep(page, "runs")
    page.get_by_role("link", name=HOURS[1]).click()
    page.locator("svg.sankey").first.wait_for()
    looks_right(page)
    keep(page, "run")
    page.goto("/models")
    looks_right(page)
    keep(page, "models")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1240, "dark")])
def test_it_fits_a_phone_and_the_dark(market: Market, tab: Tab, width: int, scheme: str) -> None:
    page = tab("cleo:jm", width=width, scheme=scheme)
    cluster = market.lake.read(tables.CLUSTERS).sort("size", descending=True)["cluster_id"][0]
    for path in ("/review", "/clusters", f"/clusters/{cluster}", "/runs", f"/runs/{HOURS[0]}", "/models"):
        page.goto(path)
        looks_right(page)
        name = path.strip("/").split("/")
        keep(page, f"{'cluster' if name[0] == 'clusters' and len(name) > 1 else 'run' if len(name) > 1 else name[0]}"
                   f"{'-phone' if width < 600 else ''}{'-dark' if scheme == 'dark' else ''}")  # fmt: skip
        assert contrast(page) >= 4.5, path


def contrast(page: Any) -> float:
    """The least contrast of any text with what lies behind it, as WCAG 2 counts it."""
    return float(
        page.evaluate(
            """() => {
        const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255;
          return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
        const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const behind = (one) => { for (; one; one = one.parentElement) {
          const [r, g, b, a = 1] = parts(getComputedStyle(one).backgroundColor); if (a > 0) return [r, g, b]; }
          return [255, 255, 255]; };
        let least = 21;
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
          const one = walker.currentNode.parentElement;
          if (!walker.currentNode.data.trim() || !one.checkVisibility()) continue;
          if (one.closest('svg, kbd, .unseen, .skip')) continue;
          const a = light(parts(getComputedStyle(one).color).slice(0, 3)), b = light(behind(one));
          least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
        }
        return least; }"""
        )
    )


def test_two_browsers_never_judge_one_pair_unknowingly(market: Market, tab: Tab) -> None:
    ada, bob = tab("ada:j"), tab("bob:j")
    ada.goto("/review")
    left, right = (ada.locator(f'input[name="{side}"]').first.input_value() for side in ("left", "right"))
    bob.goto(f"/review?left={left}&right={right}")
    assert bob.get_by_text("is looking at this pair right now").count() == 1
    ada.keyboard.press("d")
    ada.get_by_text("no cluster holds both now").wait_for()
    with bob.expect_response("**/review/judge") as answer:
        bob.keyboard.press("s")
    assert answer.value.status == 409
    assert bob.get_by_role("alert").inner_text().count("Meanwhile ada said that these two are different products") == 1
    said = market.lake.read(tables.JUDGEMENTS).filter(left_id=left, right_id=right)
    assert said.select("who", "verdict").rows() == [("ada", "different")]


def with_pictures(market: Market) -> str:
    """Where a pair is looked at whose two listings have pictures."""
    seen = market.lake.read(tables.LISTINGS, pl.col("image_hash").is_not_null(), ~pl.col("is_deleted"))["listing_id"]
    pairs = market.lake.read(tables.PAIRS, pl.all_horizontal(pl.col("left_id", "right_id").is_in(seen.implode())))
    left, right = pairs.sort("left_id", "right_id").select("left_id", "right_id").row(0)
    return f"/review?{urlencode({'left': left, 'right': right})}"


def test_enter_says_nothing(market: Market, tab: Tab) -> None:
    page = tab("eva:j")
    page.goto("/review")
    left, right = (page.locator(f'input[name="{side}"]').first.input_value() for side in ("left", "right"))
    assert page.locator("form.say button:visible").count() == 3
    note = page.get_by_label("Why (optional)")
    note.fill("another size")
    note.press("Enter")
    assert note.input_value() == "another size"
    page.get_by_role("button", name="Different").click()
    page.get_by_text("no cluster holds both now").wait_for()
    said = market.lake.read(tables.JUDGEMENTS).filter(left_id=left, right_id=right, who="eva")
    assert said.select("verdict", "note").rows() == [("different", "another size")]


def test_enter_on_a_tick_chooses_nothing(market: Market, tab: Tab) -> None:
    page = tab("eva:j")
    cluster = market.lake.read(tables.CLUSTERS).sort("size", "cluster_id")["cluster_id"][-1]
    page.goto(f"/clusters/{cluster}")
    tick = page.locator("input[name=chosen]").last
    tick.check()
    tick.press("Enter")
    page.wait_for_load_state("networkidle")
    assert tick.is_checked()
    assert market.lake.read(tables.CANONICAL_CHOICES).filter(who="eva").is_empty()


def test_the_large_pictures_close_as_often_as_they_open(market: Market, tab: Tab) -> None:
    page = tab("flo:j", width=390)
    page.goto(with_pictures(market))
    zoom = page.locator("dialog.zoom")
    for _ in range(3):
        page.locator("a[data-zoom]").first.click()
        assert zoom.is_visible()
        zoom.get_by_role("button", name="Close").click()
        assert not zoom.is_visible()


def test_keys_can_be_switched_off(market: Market, tab: Tab) -> None:
    page = tab("gus:j")
    page.goto(with_pictures(market))
    zoom, keys = page.locator("dialog.zoom"), page.get_by_label("Keys on")
    hint = page.locator("form.say kbd").first
    assert keys.is_checked()
    assert hint.is_visible()
    keys.uncheck()
    page.reload()
    assert not keys.is_checked()
    assert not hint.is_visible()
    for key in "zds":
        page.keyboard.press(key)
    assert not zoom.is_visible()
    keys.check()
    assert hint.is_visible()
    page.keyboard.press("z")
    assert zoom.is_visible()
    assert market.lake.read(tables.JUDGEMENTS).filter(who="gus").is_empty()


def test_keys_work_where_the_browser_keeps_nothing(market: Market, tab: Tab) -> None:
    page = tab("hal:j")
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })")
    page.goto(with_pictures(market))
    assert page.get_by_label("Keys on").is_checked()
    page.keyboard.press("z")
    assert page.locator("dialog.zoom").is_visible()
