"""What a person's answers teach the decider: asked by `sosie.sampling`, by uncertainty alone, or at random.

    python benchmarks/active_learning.py                          # two simulated marketplaces, a few minutes
    python benchmarks/active_learning.py --listings 3000 --judgements 100 200 400 800 --seeds 5
    python benchmarks/active_learning.py --target data/shopee     # a labelled dataset in the place of the second

A decider is trained on a small marketplace where products have no variants, then meets one that is full of them: sizes,
colours, bundles of two. Two thirds of the second one's products are what a simulated person, who knows the truth, is
asked about; the others are what every decider is measured on. People answer in rounds: after each round the decider is
trained again by the hourly product's own recipe (`training.decider.train`), and chooses what is asked next.

Arms: `learning` (uncertainty × diversity, `sampling.to_learn`), `uncertain` (the most uncertain first), `random` (by
lot among all pairs that the lake would hold). Printed as JSON: medians over seeds of F1 over candidate pairs and row F1
as the decider decides with the thresholds that come with it, and of average precision, which needs none, all on the
products that nobody was asked about. `…_error_ratio` is 1 - figure of an arm over 1 - figure of `random` with as many
judgements in the same run (below 1: the arm is better): median, least and largest over seeds.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog

from sosie import sampling
from sosie.decider.model import Decider
from sosie.decider.neighbourhood import FLOOR
from sosie.decider.text_features import Vocabulary
from sosie.evaluate.dataset import PAIRS, TRUTH
from sosie.settings import PROJECT, Blocking
from sosie.simulate import Marketplace, write
from sosie.training import profile as knobs
from sosie.training.decider import measure
from sosie.training.decider.pools import Catalogue, Pool, candidates, labelled, pool_of, read
from sosie.training.decider.train import train
from sosie.training.judged.pool import NAME
from sosie.training.profile import Profile

SIDES = ["left_id", "right_id"]


@dataclass(frozen=True)
class Part:
    """Some products of the second marketplace: candidate pairs and whether each is a duplicate."""

    catalogue: Catalogue
    pairs: pl.DataFrame
    label: np.ndarray

    @classmethod
    def of(cls, whole: Catalogue, groups: pl.Series, vocabulary: Vocabulary) -> "Part":
        truth = whole.truth.filter(pl.col("group").is_in(groups.implode()))
        own = pl.col("listing_id").is_in(truth["listing_id"].implode())
        cut = replace(whole, listings=whole.listings.filter(own), truth=truth, text=whole.text.filter(own),
                      image=whole.image.filter(own))  # fmt: skip
        pairs = candidates(cut, Blocking(), vocabulary).select(SIDES)
        return cls(cut, pairs, labelled(pairs, truth))

    def decided(self, decider: Decider, reasons: int = 0) -> pl.DataFrame:
        one = self.catalogue
        return decider.decide(self.pairs, one.listings, one.text, one.image, reasons=reasons)

    def figures(self, decider: Decider) -> dict[str, float]:
        score, (match, review) = self.decided(decider)["score"].to_numpy(), decider.thresholds()
        pairs = measure.of_pairs(score, self.label, match)
        rows = measure.clustered(self.catalogue, self.pairs, score, match, review)
        return {**{name: pairs[name] for name in ("f1", "average_precision")}, "row_f1": rows["row_f1"]}


def held(part: Part, decider: Decider) -> pl.DataFrame:
    """Pairs as the lake would hold them, with what they are alike in."""
    decided = part.decided(decider, reasons=1).with_columns(label=pl.Series(part.label))
    category = part.catalogue.listings.select(left_id="listing_id", category="category")
    return (
        decided.filter(pl.col("first_score") >= FLOOR)
        .join(category, on="left_id", how="left", maintain_order="left")
        .with_columns(
            kind=pl.concat_str(
                pl.col("category").fill_null(""),
                pl.col("reasons").list.first().struct.field("feature").fill_null(""),
                separator=" / ",
            ),
            one="left_id",
            other="right_id",
        )
    )


def learning(pairs: pl.DataFrame, judged: pl.DataFrame, seed: int) -> pl.DataFrame:
    return sampling.to_learn(pairs, judged)


def uncertain(pairs: pl.DataFrame, judged: pl.DataFrame, seed: int) -> pl.DataFrame:
    left = pairs.join(judged, on=SIDES, how="anti")
    return left.sort(sampling.uncertainty(pl.col("score")), *SIDES, descending=[True, False, False])


def by_lot(pairs: pl.DataFrame, judged: pl.DataFrame, seed: int) -> pl.DataFrame:
    left = pairs.join(judged, on=SIDES, how="anti").sort(SIDES)
    return left.sample(fraction=1, shuffle=True, seed=seed)


ARMS: dict[str, Callable[[pl.DataFrame, pl.DataFrame, int], pl.DataFrame]] = {
    "learning": learning, "uncertain": uncertain, "random": by_lot,
}  # fmt: skip


def judged_pool(part: Part, pairs: pl.DataFrame, judged: pl.DataFrame, vocabulary: Vocabulary) -> Pool:
    """As stage `train_decider` makes it of an export: judged pairs, and the others of their listings around them."""
    ends = pl.concat([judged["left_id"], judged["right_id"].alias("left_id")]).unique().implode()
    touching = pl.col("left_id").is_in(ends) | pl.col("right_id").is_in(ends)
    around = pairs.filter(touching).join(judged, on=SIDES, how="anti").select(*SIDES, "first_score")
    one = part.catalogue
    own = pl.col("listing_id").is_in(ends)
    known = Catalogue(
        NAME, one.listings.filter(own), TRUTH.to_frame(),
        judged.select(*SIDES, "label", part=pl.lit("train")).cast(dict(PAIRS)), one.text, one.image, around,
    )  # fmt: skip
    return pool_of(known, Blocking(), vocabulary)


def made(profile: Profile, pools: list[Pool], vocabulary: Vocabulary, name: str) -> Decider:
    train(profile, pools, vocabulary, name)
    return Decider.load(profile.models / name, threads=profile.decider.threads)


def one_seed(work: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    small = knobs.load("small")
    decider = small.decider.model_copy(update={"rounds": options.rounds, "graph_rounds": options.rounds // 3,
                                               "threads": options.threads})  # fmt: skip
    profile = small.model_copy(update={"name": str(work / f"seed-{seed}"), "seed": seed, "decider": decider})
    cache, models = work / "cache", PROJECT / "models"
    first = work / f"first-{seed}"
    write(first, Marketplace(listings=options.first, hours=1, seed=100 + seed, family_share=0.0,
                             with_pictures=options.pictures))  # fmt: skip
    target = options.target
    if target is None:
        target = work / f"second-{seed}"
        write(target, Marketplace(listings=options.listings, hours=1, seed=200 + seed, family_share=0.9,
                                  with_pictures=options.pictures))  # fmt: skip
    base, whole = (read(folder, models / "text", models / "image", cache) for folder in (first, target))
    vocabulary = Vocabulary.fit(base.listings["title"])
    pool = pool_of(base, Blocking(), vocabulary)

    groups = whole.truth["group"].unique().sort().sample(fraction=1, shuffle=True, seed=seed)
    if options.target is not None:
        groups = groups.head(options.listings // 2)
    cut = len(groups) * 2 // 3
    asked, unseen = (Part.of(whole, some, vocabulary) for some in (groups[:cut], groups[cut:]))
    start = made(profile, [pool], vocabulary, "start")
    found: dict[str, Any] = {
        "start": unseen.figures(start),
        "asked": asked.catalogue.listings.height,
        "unseen": unseen.catalogue.listings.height,
        "pairs": held(asked, start).height,
        "arms": {},
    }
    for arm, choose in ARMS.items():
        model, judged, told = start, pl.DataFrame(schema={**dict.fromkeys(SIDES, pl.String), "label": pl.Boolean}), {}
        for number in options.judgements:
            pairs = held(asked, model)
            more = choose(pairs, judged, seed).head(number - judged.height).select(*SIDES, "label")
            judged = pl.concat([judged, more])
            pairs = held(asked, start)
            model = made(profile, [pool, judged_pool(asked, pairs, judged, vocabulary)], vocabulary, f"{arm}-{number}")
            told[number] = {**unseen.figures(model), "same": int(judged["label"].sum()), "judged": judged.height}
        found["arms"][arm] = told
    return found


def summary(runs: list[dict[str, Any]], numbers: list[int]) -> dict[str, Any]:
    """Medians over seeds: of what the decider starts from, and by number of judgements and arm."""
    figures = ("f1", "average_precision", "row_f1")
    return {
        "start": {name: median(run["start"][name] for run in runs) for name in figures},
        **{
            str(number): {arm: arm_at([run["arms"] for run in runs], arm, number) for arm in ARMS} for number in numbers
        },
    }


def arm_at(arms: list[dict[str, Any]], arm: str, number: int) -> dict[str, Any]:
    own, lot = [each[arm][number] for each in arms], [each["random"][number] for each in arms]
    told: dict[str, Any] = {name: median(one[name] for one in own) for name in own[0]}
    for name in ("f1", "average_precision", "row_f1"):
        ratios = [(1 - one[name]) / max(1 - other[name], 1e-9) for one, other in zip(own, lot, strict=True)]
        if arm != "random":
            told[f"{name}_error_ratio"] = [median(ratios), round(min(ratios), 3), round(max(ratios), 3)]
    return told


def median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=900, help="of the second marketplace")
    parser.add_argument("--first", type=int, default=250, help="listings of the first one")
    parser.add_argument("--judgements", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=90)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--target", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sosie-active-") as work:
        runs = [one_seed(Path(work), options, seed) for seed in range(1, options.seeds + 1)]
    found = {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "seconds": round(time.perf_counter() - clock),
        "median": summary(runs, options.judgements),
        "runs": runs,
    }
    text = json.dumps(found, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "runs"}, indent=2))


if __name__ == "__main__":
    main()
