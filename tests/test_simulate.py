"""The simulated marketplace: deterministic, truthful, and noisy in the ways that real ones are."""

import filecmp
import json
import os
import re
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sosie.errors import DatasetError, SettingsError
from sosie.listings import clean_title
from sosie.simulate import Marketplace, album, base, faults, feeds, generated, pictures, products, titles, units, write
from sosie.simulate.words import LANGUAGES
from sosie.tables import FEED
from sosie.validation.rules import BY_NAME

FASHION = Path(os.environ.get("SOSIE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "fashion"
OPTIONS = Marketplace(listings=160, hours=4, malformed=0.06, late=0.05, deleted=0.05, image=0.05)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A small marketplace of four busy hours, with pictures."""
    out = tmp_path_factory.mktemp("market") / "out"
    summary = write(out, OPTIONS)
    return out, summary


def rows_of(out: Path) -> pl.DataFrame:
    """All rows with their hour, joined to nothing."""
    return pl.concat(
        pl.read_parquet(file).with_columns(hour=pl.lit(file.parent.name))
        for file in sorted(out.glob("landing/*/listings.parquet"))
    )


def test_two_runs_are_equal_bit_for_bit_whether_one_process_writes_or_two(market, tmp_path, monkeypatch):
    out, _ = market
    monkeypatch.setattr(album, "_ENOUGH_FOR_TWO", 1)
    monkeypatch.setattr(album, "_cores", lambda: 2)
    write(tmp_path / "again", OPTIONS)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()
    )
    same, different, odd = filecmp.cmpfiles(out, tmp_path / "again", files, shallow=False)
    assert (len(same), different, odd) == (len(files), [], [])


def test_another_seed_is_another_marketplace(tmp_path):
    quick = {"listings": 20, "hours": 1, "with_pictures": False}
    write(tmp_path / "a", Marketplace(seed=1, **quick))
    write(tmp_path / "b", Marketplace(seed=2, **quick))
    assert not set(pl.read_parquet(tmp_path / "a/truth.parquet")["listing_id"]) & set(
        pl.read_parquet(tmp_path / "b/truth.parquet")["listing_id"]
    )


def test_the_truth_is_what_the_feeds_leave_alive(market):
    out, summary = market
    told = pl.read_parquet(out / "truth_hours.parquet")
    truth = pl.read_parquet(out / "truth.parquet")
    survives = [*faults.OF_A_FIELD, *faults.OF_THE_PICTURE]
    born = told.filter((pl.col("kind") == "new") | pl.col("rule").is_in(survives))["listing_id"]
    dead = told.filter(pl.col("kind") == "deleted")["listing_id"]
    assert set(truth["listing_id"]) == set(born) - set(dead)
    assert truth["listing_id"].is_unique().all()
    assert truth.height == summary.live
    assert set(truth["product_id"]) <= set(pl.read_parquet(out / "products.parquet")["product_id"])


def test_feeds_have_the_contract_columns_and_name_a_listing_once(market):
    out, summary = market
    rows = rows_of(out)
    assert dict(rows.drop("hour").schema) == FEED
    assert rows.group_by("hour").len().height == OPTIONS.hours == len(summary.rows)
    told = pl.read_parquet(out / "truth_hours.parquet")
    assert told.height == rows.height == sum(sum(kinds.values()) for kinds in summary.rows.values())
    repeated = rows.filter(pl.col("listing_id").is_not_null() & pl.struct("hour", "listing_id").is_duplicated())
    assert repeated.select("hour", "listing_id").n_unique() == (told["rule"] == faults.REPEATED).sum()


CHANGED = {
    "text": {"title"},
    "image": {"image_uri"},
    "price": {"price"},
    "deleted": {"is_deleted"},
    "unchanged": set(),
}


def test_every_kind_of_row_changes_what_it_says_and_nothing_else(market):
    out, _ = market
    told = pl.read_parquet(out / "truth_hours.parquet").filter(pl.col("rule").is_null())
    twice = pl.col("title").str.ends_with("(old)").fill_null(False)  # the older copies of what a file names twice
    rows = rows_of(out).filter(~twice).join(told, on=["hour", "listing_id"])
    held: dict[str, dict] = {}
    seen = set()
    for row in rows.sort("hour", "updated_at").iter_rows(named=True):
        kind, name = row["kind"], row["listing_id"]
        before = held.get(name)
        if before is None or kind == "new":
            assert kind == "new" or before is None
            held.setdefault(name, row)
            continue
        differ = {column for column in FEED if row[column] != before[column]}
        seen.add(kind)
        if kind == "late":
            assert row["updated_at"] < before["updated_at"]
            continue
        assert row["updated_at"] >= before["updated_at"]
        assert differ - {"updated_at"} == CHANGED[kind], (kind, before, row)
        if kind == "text":
            assert clean_title(row["title"]) != clean_title(before["title"])
        if kind == "image" and before["image_uri"]:
            old, new = (out / "landing" / held_row["image_uri"] for held_row in (before, row))
            assert old.read_bytes() != new.read_bytes()
        if kind != "unchanged":
            held[name] = row
    assert seen == {"text", "image", "price", "deleted", "late", "unchanged"}


def test_rows_were_written_before_their_hour_except_those_from_the_future(market):
    out, _ = market
    told = pl.read_parquet(out / "truth_hours.parquet")
    start = (pl.col("hour") + ":00").str.to_datetime("%Y-%m-%dT%H:%M", time_zone="UTC", time_unit="us")
    rows = rows_of(out).with_columns(start=start)
    ahead = rows.filter(pl.col("updated_at") >= pl.col("start"))
    assert set(ahead["listing_id"]) == set(told.filter(pl.col("rule") == "updated_at_not_future")["listing_id"])


def test_pictures_are_there_and_readable_but_for_those_broken_on_purpose(market):
    out, _ = market
    told = pl.read_parquet(out / "truth_hours.parquet").filter(pl.col("rule").is_not_null())
    missing, cut = (set(told.filter(pl.col("rule") == rule)["listing_id"]) for rule in faults.OF_THE_PICTURE)
    named = rows_of(out).drop_nulls("image_uri").select("listing_id", "image_uri").unique()
    for name, uri in named.iter_rows():
        path = out / "landing" / uri
        assert re.fullmatch(r"pictures/[0-9a-f]{2}/[0-9a-f]{24}\.jpg", uri)
        assert path.is_file() == (name not in missing)
        if path.is_file() and name not in cut:
            with Image.open(path) as image:
                image.load()
                assert image.mode == "RGB"
                assert pictures.SHORTEST - 40 <= min(image.size) <= max(image.size) <= pictures.LONGEST
    assert missing
    assert cut


def test_malformed_rows_break_the_rules_that_validation_knows(market):
    out, summary = market
    told = pl.read_parquet(out / "truth_hours.parquet")
    broken = told.filter(pl.col("kind") == "malformed")
    assert broken["rule"].null_count() == 0
    of_rows = {*faults.OF_THE_ROW, *faults.OF_A_FIELD, faults.REPEATED}
    assert set(broken["rule"]) == of_rows | set(faults.OF_THE_PICTURE)
    assert of_rows <= set(BY_NAME)
    assert all(kinds["malformed"] <= 0.12 * sum(kinds.values()) for kinds in summary.rows.values())
    rows = rows_of(out)
    assert rows.filter(pl.col("price") < 0).height == (broken["rule"] == "price_range").sum()
    assert rows.filter(pl.col("title").is_null()).height == (broken["rule"] == "title_present").sum()


def test_the_default_share_of_malformed_rows_is_about_one_percent(tmp_path):
    summary = write(tmp_path / "out", Marketplace(listings=1_000, with_pictures=False))
    for kinds in summary.rows.values():
        assert 0.005 <= kinds["malformed"] / sum(kinds.values()) <= 0.015


def test_ids_and_order_say_nothing_about_groups(market):
    out, _ = market
    truth = pl.read_parquet(out / "truth.parquet")
    assert truth["listing_id"].is_sorted()
    follows = (truth["product_id"] == truth["product_id"].shift()).mean()
    assert follows < 0.1
    first = rows_of(out).filter(pl.col("hour") == OPTIONS.start).join(truth, on="listing_id", maintain_order="left")
    assert (first["product_id"] == first["product_id"].shift()).mean() < 0.1


def test_families_and_groups_come_in_realistic_sizes():
    made = list(islice(generated.generate(7, 0.25), 1_500))
    families = pl.Series([product.family_id for product in made]).value_counts()["count"]
    assert 0.15 < (families > 1).mean() < 0.3
    assert {"base", "size", "colour", "bundle", "model"} == {product.variant for product in made}
    for names in (
        [product.product_id for product in made],
        [product.title for product in made],
        [p.gtin for p in made],
    ):
        assert len(set(names)) == len(made)
    sizes = np.array(list(islice(feeds.group_sizes(np.random.default_rng(1)), 5_000)))
    assert 0.44 < (sizes == 1).mean() < 0.52
    assert 0.36 < ((sizes >= 2) & (sizes <= 4)).mean() < 0.48
    assert 20 < sizes.max() <= 40


def test_gtins_carry_a_correct_check_digit():
    for number in (products.gtin(part) for part in range(200)):
        assert len(number) == 13
        assert sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(number)) % 10 == 0


def test_a_family_shares_its_looks_and_a_stranger_does_not():
    made = list(islice(generated.generate(7, 1.0), 200))
    sized = next(product for product in made if product.variant == "size")
    base_product = next(product for product in made if product.family_id == sized.family_id)
    stranger = next(p for p in made if p.category == sized.category and p.family_id != sized.family_id)
    one, other, third = (np.asarray(p.views[0].render(), float) for p in (base_product, sized, stranger))
    assert 0 < np.abs(one - other).mean() < np.abs(one - third).mean()


# Titles


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=80).filter(str.strip),
    st.integers(0, 10_000), st.sampled_from(LANGUAGES),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_title_stays_a_title(title, seed, language):
    first, second = (titles.relist(title, np.random.default_rng(seed), language=language) for _ in range(2))
    assert first == second
    assert first.strip()
    assert titles.GLUE not in first.replace(titles.GLUE, "") or titles.GLUE in title


@given(st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_protected_words_numbers_and_model_codes_survive(seed):
    told = titles.relist(
        "Orvia Nova X52 Rugged Smartphone Onyx", np.random.default_rng(seed), language="fr", protected=("onyx", "nova")
    ).lower()
    assert all(word in told for word in ("x52", "onyx", "nova"))


def test_no_strength_no_noise():
    assert titles.relist("Vantor Bottle 1 L", np.random.default_rng(0), strength=0) == "Vantor Bottle 1 L"


@pytest.mark.parametrize(
    "title", ["1 L", "1000 ml", "375 g", "1.5 kg", "128GB", "20000 mAh", "28 cm", "6.1 inch", "20W"]
)
def test_a_rewritten_quantity_is_the_same_quantity(title):
    def worth(text: str) -> float:
        text = re.sub(r"(?<=\d)(in|\"|''| Zoll)$", " inch", text)
        hit = units.QUANTITY.search(text.replace(" Liter", "l").replace("TB", "tb"))
        assert hit, text
        scale, factor = units._SCALE_OF[hit["unit"].lower()]
        value = float(hit["number"].replace(",", ".")) * factor
        return value / 25.4 if scale == "length" and title.endswith("inch") else value

    for seed in range(60):
        told = units.rewrite(title, np.random.default_rng(seed), "de")
        assert worth(told) == pytest.approx(worth(title), rel=2e-3), told


def test_all_that_sellers_do_to_titles_happens():
    told = [
        titles.relist("Vantor Hydra Black Leather Water Bottle 1 L 2 pcs", np.random.default_rng(i)) for i in range(600)
    ]
    for sign in (
        "1000 ml",
        "100 cl",
        "botol",
        "Flasche",
        "bouteille",
        "botella",
        "btl",
        "🔥",
        "Gratis Ongkir",
        "isi 2",
        "lot de 2",
    ):
        assert any(sign in text for text in told), sign
    assert any(text.isupper() for text in told)
    assert any(r"\x" in text for text in told)
    assert len(set(told)) > 500


# Pictures


@given(st.integers(0, 100_000), st.integers(100, 400), st.integers(100, 400))
@settings(max_examples=60, deadline=None)
def test_any_picture_stays_a_picture(seed, width, height):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    first, second = (pictures.relist(image, np.random.default_rng(seed)) for _ in range(2))
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    assert min(first.size) >= 60
    assert max(first.size) <= pictures.LONGEST


@pytest.mark.parametrize("change", [change for change, _ in pictures.CHANGES], ids=lambda change: change.__name__)
def test_each_change_shows_and_leaves_the_original_alone(change):
    original = next(generated.generate(4, 0.0)).views[0].render()
    assert pictures.background(original).mean() > 0.15
    before = original.tobytes()
    changed = [change(original, np.random.default_rng(seed)) for seed in range(4)]
    assert original.tobytes() == before
    assert any(picture.size != original.size or picture.tobytes() != before for picture in changed)


def test_the_backdrop_is_found_and_white_inside_the_product_is_not():
    image = Image.new("RGB", (100, 100), "white")
    image.paste((200, 30, 30), (20, 20, 80, 80))
    image.paste((255, 255, 255), (40, 40, 60, 60))
    clear = pictures.background(image)
    assert clear[5, 50]
    assert not clear[50, 50]
    assert not clear[30, 30]


# The folder


def test_the_same_options_again_are_a_no_op_and_others_are_refused(market):
    out, summary = market
    before = (out / "simulation.json").stat().st_mtime_ns
    assert write(out, OPTIONS) == summary
    assert (out / "simulation.json").stat().st_mtime_ns == before
    with pytest.raises(SettingsError, match=r"other options \(seed\)"):
        write(out, Marketplace(**{**OPTIONS.__dict__, "seed": 8}))


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not empty"):
        write(tmp_path, Marketplace(listings=5, hours=1, with_pictures=False))
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_interrupted_simulation_does_not_look_whole_and_is_done_over(tmp_path, monkeypatch):
    options = Marketplace(listings=10, hours=1, with_pictures=False)
    with monkeypatch.context() as broken:
        broken.setattr(album, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "out", options)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".partial"]
    assert write(tmp_path / "out", options).live == 10
    assert json.loads((tmp_path / "out/simulation.json").read_text())["options"] == options.as_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"listings": 0}, "needs a listing"),
        ({"new": 1.5}, "new is a share"),
        ({"text": 0.6, "price": 0.6}, "touch"),
        ({"start": "2026-01-05"}, "start is an hour"),
        ({"start": "2026-13-05T00"}, "start is an hour"),
        ({"images": Path("pictures")}, "without products"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        Marketplace(**values)


# Products from a table


def shop(folder: Path, rows: list[str], header: str = "id,title,category,colour,image") -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (120, 150), (40, 60, 200)).save(folder / "images" / "1.jpg")
    (folder / "products.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "products.csv"


@pytest.mark.parametrize("name", ["1.jpg", "images/1.jpg"])
def test_pictures_are_named_from_the_folder_or_from_its_parent(tmp_path, name):
    table = shop(tmp_path, [f"1,Acme Blue Shirt,Apparel/Topwear,Blue,{name}"])
    (product,) = base.read(table, tmp_path / "images", seed=1, family_share=0)
    assert product.views[0].render().size == (120, 150)
    family = list(base.read(table, None, seed=3, family_share=1))
    assert len({member.product_id for member in family}) == len(family) > 1
    assert len({member.family_id for member in family}) == 1


def test_a_table_or_a_picture_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no\.csv can't be read"):
        list(base.read(tmp_path / "no.csv", None, 1, 0))
    with pytest.raises(DatasetError, match="lacks the columns"):
        list(base.read(shop(tmp_path, ["1,x"], "id,title"), None, 1, 0))
    table = shop(tmp_path, ["1,Acme Shirt,Apparel,Blue,images/2.jpg"])
    with pytest.raises(DatasetError, match=r"images/2\.jpg"):
        list(base.read(table, None, 1, 0))
    assert len(list(base.read(table, None, 1, 0, with_pictures=False))) == 1


def test_more_listings_than_products_make_larger_groups(tmp_path):
    table = shop(tmp_path, [f"{i},Acme Shirt {i},Apparel,Blue,images/1.jpg" for i in range(5)])
    summary = write(tmp_path / "out", Marketplace(products=table, listings=120, hours=1, malformed=0))
    assert summary.live == 120
    assert summary.products <= 20


@pytest.mark.shared_data
@pytest.mark.skipif(not FASHION.is_dir(), reason=f"the fashion data is not in {FASHION}")
def test_real_products(tmp_path):
    summary = write(
        tmp_path / "out", Marketplace(products=FASHION / "products.csv", images=FASHION / "images", listings=120)
    )
    assert summary.live > 110
    table = pl.read_parquet(tmp_path / "out/products.parquet")
    assert (table["variant"] != "base").sum() > 5
    assert table["brand"].null_count() < table.height / 3
