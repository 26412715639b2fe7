"""Stage `evaluate`: every model of both papers and ours on listings that no training stage saw.

    work/evaluation/metrics.json      method → dataset → figures
    work/evaluation/judgements.json   what people's judgements changed: the decider without and with them
    work/evaluation/calibration.csv   how far Sosie's probabilities can be believed; -mlp.csv the perceptron's
    work/evaluation/match_at.csv      Sosie's figures by match threshold
    work/evaluation/evaluation.md     all of it for people; for profile `full` also docs/evaluation.md

Thresholds that come with no model are fitted on the decider's part of the data. Vectors are kept under
work/evaluation/cache by encoder version and content, so a second run costs what changed.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import structlog

from sosie.evaluate import cost, datasets, page
from sosie.evaluate.dataset import Dataset
from sosie.evaluate.methods import METHODS, Figures, Outcome, Part, Task, applies, figures, run, run_pairs
from sosie.evaluate.sosie_matcher import cluster, ruled
from sosie.settings import PROJECT, Settings, load
from sosie.training.judged import gain
from sosie.training.profile import Profile, stage

log = structlog.get_logger()

Results = dict[str, dict[str, Outcome]]
"""Dataset → method → what came out."""

_METRICS = "metrics.json"
_BINS = 20
_MATCH_AT = [round(0.05 * step, 2) for step in range(2, 20)]


def main(profile: Profile) -> None:
    out = profile.work / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    settings = load(models=profile.models)
    tasks = list(tasks_of(profile))
    results = {task.name: _measured(task, settings, out / "cache") for task in tasks}
    results |= _pair_sets(profile, settings, out / "cache")
    spread = _seeds(profile, tasks, settings, out)

    for name, file in (("sosie", "calibration.csv"), ("mlp", "calibration-mlp.csv")):
        calibration([found[name] for found in results.values() if name in found]).write_csv(out / file)
    by_threshold([(task, results[task.name]["sosie"]) for task in tasks], settings).write_csv(out / "match_at.csv")
    told = as_metrics(results, spread)
    (out / _METRICS).write_text(json.dumps(told, indent=2, allow_nan=False) + "\n")
    gain.write(gain.measure(profile, tasks, told["sosie"], settings, out / "cache"), out / gain.FILE)
    reduced = json.loads((profile.work / "reduction" / _METRICS).read_text())
    learned_nothing = [name for name, told in reduced.items() if not told["learned"]]
    text = page.render(profile.name, results, spread, _costs(profile), profile.models, learned_nothing)
    (out / "evaluation.md").write_text(text)
    if profile.name == "full":
        (PROJECT / "docs" / "evaluation.md").write_text(text)
    log.info("wrote", folder=str(out))


def tasks_of(profile: Profile) -> Iterator[Task]:
    """Every dataset of the test part that has groups; of the first real one also the test rows in its whole pool."""
    for folder in _folders(profile):
        test = datasets.load(folder)
        if not test.has_groups:
            continue
        yield Task(test.name, Part.of(datasets.load(profile.data("decider") / test.name)), Part.of(test))
    for name in profile.prepare.real[:1]:
        whole = together([datasets.load(profile.data(part) / name) for part in ("encoder", "decider", "test")])
        part = datasets.parts(whole.truth["group"])
        fit, scored = (Part.of(whole, whole.truth["listing_id"].filter(part == own)) for own in ("decider", "test"))
        yield Task(f"{name}-whole", fit, scored)


def together(parts: list[Dataset]) -> Dataset:
    """One pool of several datasets without pictures."""
    first = parts[0]
    listings, truth = (pl.concat([getattr(each, name) for each in parts]) for name in ("listings", "truth"))
    return Dataset(first.name, first.shape, listings, truth, first.pairs, first.root)


def _measured(task: Task, settings: Settings, cache: Path) -> dict[str, Outcome]:
    found = {}
    for method in METHODS:
        if applies(method, task.test.dataset):
            found[method.name] = outcome = run(method, task, settings, cache)
            log.info("measured", dataset=task.name, method=method.name, row_f1=outcome.figures["row_f1"])
    return found


def _pair_sets(profile: Profile, settings: Settings, cache: Path) -> Results:
    results: Results = {}
    for folder in _folders(profile):
        test = datasets.load(folder)
        if test.has_groups:
            continue
        fit = datasets.load(profile.data("decider") / test.name)
        results[test.name] = {
            method.name: run_pairs(method, fit, test, settings, cache) for method in METHODS if applies(method, test)
        }
        log.info("measured", dataset=test.name, **{name: one.figures["f1"] for name, one in results[test.name].items()})
    return results


def _seeds(profile: Profile, tasks: list[Task], settings: Settings, out: Path) -> Results:
    """The deciders trained again under other seeds, on the same vectors: dataset → "method seed" → what came out.

    A seed whose models lie there already, trained on these encoders, is not trained again.
    """
    from sosie.training.decider import mlp, train

    results: Results = {task.name: {} for task in tasks}
    made_from, encoders = _ingredients(profile), train.Encoders.of(profile)
    pools = None
    for seed in range(profile.seed + 1, profile.seed + profile.evaluate_seeds):
        other = profile.model_copy(update={"seed": seed, "name": f"{profile.name}/evaluation/seeds/{seed}"})
        note = other.models / "made_from.json"
        if not note.exists() or json.loads(note.read_text()) != made_from:
            pools = pools or train.read_pools(profile, encoders)
            judged = train.read_judged(profile, encoders, pools[1])
            train.train(other, [*pools[0], *judged], pools[1], other.models / "decider")
            mlp.train_mlp(other, *pools)
            note.write_text(json.dumps(made_from))
        for method in (method for method in METHODS if method.name in ("sosie", "mlp")):
            own = replace(method, decider=str(other.models / str(method.decider)))
            for task in tasks:
                results[task.name][f"{method.name} {seed}"] = run(own, task, settings, out / "cache")
    return results


def _ingredients(profile: Profile) -> dict[str, str]:
    """What the deciders of a profile are made from, beside code and seed."""
    encoders = [profile.models / "text", profile.models / "image", profile.crossed_text]
    judged = [profile.judged("learn") / name for name in ("about.json", "pairs.parquet")]
    files = [*(folder / "model.json" for folder in encoders), *judged]
    found = {
        str(path.relative_to(profile.work)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
    knobs = (profile.decider, profile.text.crossed, profile.judgements)
    return {**found, "knobs": json.dumps([section.model_dump(mode="json") for section in knobs])}


def calibration(outcomes: list[Outcome]) -> pl.DataFrame:
    """probability (mean predicted), share (that are duplicates) and pairs, of 20 equal bins of the probability."""
    scored = [(one.score, one.label) for one in outcomes if one.score is not None and one.label is not None]
    score, label = (np.concatenate([each[place] for each in scored]) for place in (0, 1))
    return (
        pl.DataFrame({"score": score, "label": label})
        .group_by(bin=(pl.col("score") * _BINS).floor().clip(0, _BINS - 1).cast(pl.Int64))
        .agg(probability=pl.col("score").mean(), share=pl.col("label").mean(), pairs=pl.len())
        .sort("bin")
        .drop("bin")
    )


def by_threshold(found: list[tuple[Task, Outcome]], settings: Settings) -> pl.DataFrame:
    """match_at, row_f1, row_precision, row_recall: mean over the datasets, clustered anew at each threshold."""
    rows = []
    for match_at in _MATCH_AT:
        each = []
        for task, outcome in found:
            decided, part = outcome.decided, task.test
            pairs = ruled(decided.pairs, match_at, min(decided.review_at, match_at))
            groups = cluster(pairs, part.dataset.listings["listing_id"], settings)
            each.append(figures(groups, decided.rows, part))
        names = ("row_f1", "row_precision", "row_recall")
        rows.append({"match_at": match_at, **{name: np.mean([one[name] or 0 for one in each]) for name in names}})
    return pl.DataFrame(rows)


def as_metrics(results: Results, spread: Results) -> dict[str, dict[str, Figures]]:
    """method → dataset → figures; `row_f1_seeds` is the standard deviation over trainings of the decider."""
    told: dict[str, dict[str, Figures]] = {}
    for dataset, found in results.items():
        for method, outcome in found.items():
            held = {name: None if value is None or math.isnan(value) else value
                    for name, value in outcome.figures.items()}  # fmt: skip
            if deviation := page.deviation(method, outcome, spread.get(dataset, {})):
                held["row_f1_seeds"] = deviation
            told.setdefault(method, {})[dataset] = held
    return told


def _costs(profile: Profile) -> dict[str, cost.Cost]:
    """Of every encoder, on titles and pictures of the generated marketplace's test part."""
    test = datasets.load(profile.data("test") / "generated")
    titles, pictures = test.listings["title"].to_list(), cost.pictures_of(test)
    encoders = {name for method in METHODS for name in (method.text, method.image) if name}
    return {
        name: cost.of_text(profile.models / name, titles)
        if "text" in name
        else cost.of_image(profile.models / name, pictures)
        for name in sorted(encoders)
    }


def _folders(profile: Profile) -> list[Path]:
    return sorted(path for path in profile.data("test").iterdir() if path.is_dir())


if __name__ == "__main__":
    stage(main, __doc__)
