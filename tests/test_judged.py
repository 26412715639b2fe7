"""What people said becomes training data: exported from a real lake, parted by product, learnt from, and measured."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_lake import Market, client, make

from sosie import judgements, registry, tables
from sosie.errors import DatasetError
from sosie.evaluate import datasets
from sosie.evaluate.methods import METHODS, Part, Task, run
from sosie.gate import JUDGED
from sosie.page.store import Store
from sosie.settings import PROJECT, Settings, load
from sosie.simulate import Marketplace, write
from sosie.training import profile as knobs
from sosie.training import scores
from sosie.training.decider import train as stage
from sosie.training.judged import export, gain, groups, pin, prepare
from sosie.training.judged.data import PICTURES, Judged
from sosie.training.profile import Profile

SIDES = ["left_id", "right_id"]
UNHURRIED = settings(deadline=None, max_examples=40)
NO_CLUSTER = pl.DataFrame(schema={"listing_id": pl.String, "cluster_id": pl.String})

names = st.integers(0, 14).map("l{:02}".format)
judged_pairs = st.dictionaries(
    st.tuples(names, names).filter(lambda pair: pair[0] < pair[1]), st.booleans(), max_size=25
)


def frame(judged: dict[tuple[str, str], bool]) -> pl.DataFrame:
    schema = {"left_id": pl.String, "right_id": pl.String, "label": pl.Boolean}
    return pl.DataFrame([(*pair, label) for pair, label in judged.items()], schema=schema, orient="row")


# --- what can be believed, and who is on which side -------------------------------------------------------------------


def test_a_chain_that_contradicts_itself_is_left_out() -> None:
    said = frame({("a", "b"): True, ("b", "c"): True, ("a", "c"): False, ("a", "x"): False, ("p", "q"): True})
    assert groups.consistent(said).select(SIDES).rows() == [("a", "x"), ("p", "q")]


@UNHURRIED
@given(judged_pairs)
def test_what_is_believed_holds_no_contradiction(judged: dict[tuple[str, str], bool]) -> None:
    said = frame(judged)
    believed = groups.consistent(said)
    assert groups.consistent(believed).equals(believed)
    product = dict(groups.components(believed.filter("label")).iter_rows())
    for left, right, label in believed.iter_rows():
        assert label or product.get(left, left) != product.get(right, right)
    if groups.components(said.filter("label"))["group"].n_unique() == said.filter("label").height == 0:
        assert believed.equals(said)


@UNHURRIED
@given(judged_pairs, st.lists(st.tuples(names, st.sampled_from("AB")), unique_by=lambda row: row[0]), st.floats(0, 1))
def test_no_product_is_on_both_sides(
    judged: dict[tuple[str, str], bool], clustered: list[tuple[str, str]], share: float
) -> None:
    clusters = pl.DataFrame(clustered, schema=NO_CLUSTER.schema, orient="row")
    grouped = groups.grouped(frame(judged), clusters)
    assert grouped["group"].null_count() == 0
    parts = groups.parted(grouped, share)
    assert sum(part.height for part in parts.values()) == len(judged)
    ends = [set(part["left_id"]) | set(part["right_id"]) for part in parts.values()]
    assert ends[0].isdisjoint(ends[1])
    held = [set(clusters.filter(pl.col("listing_id").is_in(list(side)))["cluster_id"]) for side in ends]
    assert held[0].isdisjoint(held[1])
    assert parts["held"].group_by("group").len().filter(pl.col("len") > max(share * len(judged), 1)).is_empty()


def test_a_group_keeps_its_side_when_others_come() -> None:
    some = frame({(f"a{n}", f"b{n}"): True for n in range(40)})
    more = pl.concat([some, frame({(f"c{n}", f"d{n}"): False for n in range(40)})])
    parts = [groups.parted(groups.grouped(each, NO_CLUSTER), 0.3) for each in (some, more)]
    for name in ("learn", "held"):
        assert parts[0][name].height > 3
        assert parts[0][name].join(parts[1][name], on=SIDES, how="anti").is_empty()


# --- from a lake to a candidate ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return make(tmp_path_factory)


@pytest.fixture(scope="module")
def answered(market: Market) -> pl.DataFrame:
    """The pairs that a reviewer who knows the truth was asked and answered: what the queue shows, and some pairs of
    every cluster, so that whatever the decider finds there are many products to part."""
    queue = Store(market.settings).queue().select(SIDES)
    cluster = market.lake.read(tables.CLUSTERS).select("cluster_id", left_id="listing_id")
    held = market.lake.read(tables.PAIRS).sort(SIDES).join(cluster, on="left_id", maintain_order="left")
    some = held.group_by("cluster_id", maintain_order=True).head(6).select(SIDES)
    pairs = pl.concat([queue.head(60), some]).unique(SIDES, maintain_order=True)
    # Rows that the simulator broke on purpose have no truth.
    pairs = pairs.filter(*(pl.col(side).is_in(list(market.product)) for side in SIDES))
    for verdict in judgements.VERDICTS:
        same = [market.product[a] == market.product[b] for a, b in pairs.iter_rows()]
        own = pairs.filter(pl.Series(same) == (verdict == "same"))
        judgements.judge_all(market.lake, own.iter_rows(), verdict, "ada")  # type: ignore[arg-type]
    return pairs


@pytest.fixture(scope="module")
def repository(market: Market, answered: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose judgements.yaml pins what was answered."""
    folder = tmp_path_factory.mktemp("repository")
    export.export(of(market, folder))
    return folder


def of(market: Market, repository: Path) -> Settings:
    return market.settings.model_copy(update={"repository": repository})


@pytest.fixture(scope="module")
def trained(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """A small profile with the shipped encoders, whose decider stage ran with the judgements."""
    work = tmp_path_factory.mktemp("trained") / "work"
    told = knobs.load("small")
    few = {"rounds": 30, "graph_rounds": 10, "folds": 2, "mlp_epochs": 1, "threads": 1, "among": ("generated",)}
    made = told.model_copy(update={"name": str(work), "decider": told.decider.model_copy(update=few)})
    for part, seed in (("encoder", 20), ("decider", 21), ("test", 22)):
        write(made.data(part) / "generated", Marketplace(listings=150, hours=1, seed=seed, with_pictures=False))
    for name in ("text", "image"):
        shutil.copytree(PROJECT / "models" / name, made.models / name)
    shutil.copytree(PROJECT / "models" / "text", made.crossed_text)
    prepare.part(made, repository)
    stage.main(made)
    return made


def test_the_export_holds_what_was_said(market: Market, answered: pl.DataFrame, repository: Path) -> None:
    told = pin.pinned(repository)
    judged, folder = pin.read_pinned(repository)
    assert folder is not None
    assert told["judgements"] == judged.pairs.height == answered.height
    assert told["same"] + told["different"] == told["judgements"]
    assert told["contradicting"] == 0
    truth = [market.product[a] == market.product[b] for a, b in judged.pairs.select(SIDES).iter_rows()]
    assert judged.pairs["label"].to_list() == truth
    assert set(truth) == {True, False}
    row = market.listing(judged.listings["listing_id"][0])
    assert judged.listings.row(0, named=True) == {name: row[name] for name in judged.listings.columns}
    ends = set(judged.pairs["left_id"]) | set(judged.pairs["right_id"])
    assert set(judged.listings["listing_id"]) == ends
    assert judged.around.join(judged.pairs, on=SIDES, how="semi").is_empty()
    assert all(left in ends or right in ends for left, right in judged.around.select(SIDES).iter_rows())
    pictures = {file.stem for file in (folder / PICTURES).rglob("*.jpg")}
    assert pictures == set(judged.listings["image_hash"].drop_nulls())
    assert export.export(of(market, repository)) == told, "the same judgements are the same export"


def test_a_damaged_or_foreign_export_is_refused(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    held = pin.folder(copy, pin.pinned(copy)["digest"])
    Judged.read(held).pairs.with_columns(label=~pl.col("label")).write_parquet(held / "pairs.parquet")
    refused = r"is missing or not what judgements\.yaml pins; remove it and run `sosie judgements export` again"
    with pytest.raises(DatasetError, match=refused):
        pin.read_pinned(copy)
    (held / "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"holds damaged judgements .* run `sosie judgements export`"):
        pin.read_pinned(copy)
    shutil.rmtree(held)
    with pytest.raises(DatasetError, match=refused):
        pin.read_pinned(copy)
    for damage in ("{", "[]", "other: 1"):
        (copy / pin.FILE).write_text(damage)
        with pytest.raises(DatasetError, match=r"judgements\.yaml names no export of judgements"):
            pin.pinned(copy)
    pin.pin(tmp_path, {"digest": None})
    assert pin.read_pinned(tmp_path)[0].pairs.is_empty()


def test_without_judgements_nothing_is_pinned_and_both_parts_are_empty(tmp_path: Path) -> None:
    assert export.export(load(home=tmp_path / "home", repository=tmp_path)) == {"digest": None}
    made = knobs.load("small").model_copy(update={"name": str(tmp_path / "work")})
    prepare.part(made, tmp_path)
    assert [Judged.read(made.judged(part)).pairs.height for part in ("learn", "held")] == [0, 0]
    before = {file: file.read_bytes() for file in (tmp_path / "work").rglob("*") if file.is_file()}
    prepare.part(made, tmp_path)
    assert {file: file.read_bytes() for file in (tmp_path / "work").rglob("*") if file.is_file()} == before


def test_a_word_taken_back_and_one_that_contradicts_are_not_exported(tmp_path: Path) -> None:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    store = Store(load(home=tmp_path / "home"))
    rows = [
        dict.fromkeys(tables.LISTINGS.columns)
        | {"listing_id": one, "title": title, "updated_at": at, "is_deleted": False, "content_hash": one,
           "first_seen_run": "r"}
        for one, title in (("a", "Cup"), ("b", "Cup"), ("c", "Cup"), ("d", "Mug"), ("e", " "), ("f", "Bowl"))
    ]  # fmt: skip
    store.lake.upsert(tables.LISTINGS, pl.DataFrame(rows, schema=tables.LISTINGS.schema))
    said = [
        ("a", "b", "same", None), ("b", "c", "same", None), ("a", "c", "different", None),
        ("a", "d", "different", None),
        ("d", "e", "same", None), ("d", "f", "same", at),
    ]  # fmt: skip
    kept = [
        {"left_id": a, "right_id": b, "verdict": verdict, "who": "ada", "when": at - timedelta(days=1), "note": None,
         "retracted_at": back}
        for a, b, verdict, back in said
    ]  # fmt: skip
    store.lake.append(tables.JUDGEMENTS, pl.DataFrame(kept, schema=tables.JUDGEMENTS.schema))
    found = export.of_lake(store.lake)
    assert found.pairs.select(*SIDES, "label").rows() == [("a", "d", False)]
    assert {name: found.about[name] for name in ("contradicting", "without_title", "updated_since")} == {
        "contradicting": 3, "without_title": 1, "updated_since": 1,
    }  # fmt: skip


def test_the_decider_learns_from_both_parts_and_the_perceptron_from_its_own(trained: Profile) -> None:
    trees, perceptron = (
        json.loads((trained.models / name / "model.json").read_text())["about"] for name in ("decider", "decider-mlp")
    )
    assert {"generated", "generated-among", "generated-crossed"} <= set(trees["trained_on"])
    assert all(own["duplicates"] for own in trees["trained_on"].values())
    assert {name.split(" ")[1] for name in perceptron["out_of_fold"]}.isdisjoint(
        {"generated-among", "generated-crossed"}
    )


def test_the_parts_share_no_listing_and_carry_their_own(trained: Profile, answered: pl.DataFrame) -> None:
    learn, held = (Judged.read(trained.judged(part)) for part in ("learn", "held"))
    assert learn.pairs.height + held.pairs.height == answered.height
    assert min(learn.pairs.height, held.pairs.height) > 5
    assert set(learn.listings["listing_id"]).isdisjoint(held.listings["listing_id"])
    for part, own in (("learn", learn), ("held", held)):
        pictures = {file.stem for file in (trained.judged(part) / PICTURES).rglob("*.jpg")}
        assert pictures == set(own.listings["image_hash"].drop_nulls())


def card(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model.json").read_text())["about"])


def test_the_decider_learns_from_the_one_part_and_is_measured_on_the_other(trained: Profile) -> None:
    learn, held = (Judged.read(trained.judged(part)).pairs.height for part in ("learn", "held"))
    own, plain = (card(trained.models / name)["trained_on"] for name in ("decider", stage.UNJUDGED))
    assert own.pop(JUDGED)["pairs"] == learn
    assert own == plain, "all else is the same"
    assert "judgements" not in card(trained.models / "decider-mlp")["out_of_fold"]

    current = load(models=trained.models)
    test = Part.of(datasets.load(trained.data("test") / "generated"))
    tasks = [Task("generated", test, test)]
    (sosie,) = (method for method in METHODS if method.name == "sosie")
    having = {"generated": run(sosie, tasks[0], current).figures}
    found = gain.measure(trained, tasks, having, current, trained.work / "cache")
    assert (found.learnt, found.held_back) == (learn, held)
    assert set(found.without) == set(found.having) == {"generated", JUDGED}
    assert found.having[JUDGED]["pairs"] == held
    assert found.without[JUDGED] != found.having[JUDGED]
    file = trained.work / gain.FILE
    gain.write(found, file)
    assert gain.read(file) == found
    assert gain.judged_scores(file) == {JUDGED: found.having[JUDGED]}

    shipped = scores.measure(trained.data("test"), PROJECT / "models", trained.judged("held"))
    assert set(shipped) == {"generated", JUDGED}
    assert shipped[JUDGED]["pairs"] == held


def test_a_candidate_tells_what_judgements_gained(trained: Profile, market: Market, tmp_path: Path) -> None:
    home = load(home=tmp_path / "home")
    held = Judged.read(trained.judged("held")).pairs.height
    test = {"generated": {"row_f1": 0.9, "row_f1_standard_error": 0.01, "macro_f1": 0.95}}
    one, two = ({"f1": value, "f1_standard_error": 0.02, "precision": 0.8, "recall": 0.7} for value in (0.71, 0.83))
    told = gain.Gain(10, held, {**test, JUDGED: one}, {**test, JUDGED: two})
    source = registry.Source("small", "0123456789ab", None)
    made = registry.register(home, trained.models, source, told.having, {**test, JUDGED: one}, "ann", told)
    assert made.gate.passed
    page = client(home, "ada:jm").get("/models").text
    assert "learnt from: F1 on the" in page
    assert "0.7100 → 0.8300" in page
    for number in ("0.830", "0.710"):
        assert number in page, "labelled pairs have their figures in the table"


def test_no_judgement_no_second_decider(trained: Profile, tmp_path: Path) -> None:
    """With nothing pinned the stage makes the very decider of before, and an empty folder beside it."""
    bare = trained.model_copy(update={"name": str(tmp_path / "work")})
    prepare.part(bare, tmp_path)
    for part in ("encoder", "decider"):
        shutil.copytree(trained.data(part), bare.data(part))
    for name in ("text", "image"):
        shutil.copytree(trained.models / name, bare.models / name)
    shutil.copytree(trained.crossed_text, bare.crossed_text)
    shutil.copytree(trained.work / "scratch", bare.work / "scratch", dirs_exist_ok=True)
    stage.main(bare)
    assert not any((bare.models / stage.UNJUDGED).iterdir())
    for file in ("trees.txt.gz", "second_trees.txt.gz"):
        assert (bare.models / "decider" / file).read_bytes() == (trained.models / stage.UNJUDGED / file).read_bytes()
    assert gain.measure(bare, [], {}, load(models=bare.models), tmp_path).learnt == 0
