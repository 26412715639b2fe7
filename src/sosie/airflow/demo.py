"""The demonstration: a small generated marketplace, hour by hour through the real scheduler, against its truth."""

import shutil
import webbrowser
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sosie import pipeline
from sosie.airflow.client import Task
from sosie.airflow.stack import DAG_ID, Airflow, stack
from sosie.errors import StoreBusy
from sosie.evaluate import metrics
from sosie.index import server
from sosie.lake import Lake
from sosie.locks import is_held
from sosie.report import summary
from sosie.settings import PROJECT, Alerts, Settings, load, settings
from sosie.simulate import Marketplace, write
from sosie.tables import CLUSTERS, LISTINGS


def run_demo(out: Console, *, listings: int, hours: int, seed: int, browser: bool) -> None:
    """Simulate, run, tell. Starts from an empty home each time, so that the first hour is a first load.

    Raises `RunFailed` with the failing task's log where an hour fails.
    """
    current, asked = home(), Marketplace(listings=listings, hours=hours, seed=seed)
    market = current.home / "marketplace"
    _clear(current)
    out.print(f"[bold]1/3[/] Generating a marketplace of {listings:,} listings in {market}")
    write(market, asked)
    names = sorted(folder.name for folder in (market / "landing").glob("*T*"))

    out.print("[bold]2/3[/] Starting Airflow (scheduler, DAG processor, API server)")
    with stack(current) as airflow:
        out.print(f"      up after {airflow.seconds_to_start:.0f} s on {airflow.url}")
        for hour in names:
            _run_hour(out, airflow, hour)
    out.print("[bold]3/3[/] Airflow is stopped; nothing is left running\n")

    run = pipeline.Run.of(names[-1], settings=current)
    for hour in names[:-1]:
        first = pipeline.Run.of(hour, settings=current)
        out.print(summary(pipeline.manifest(first)))
    page = current.reports / run.id / "index.html"
    out.print(summary(pipeline.manifest(run), accuracy(run.lake, market), report=page))
    out.print("[bold]Look around[/]  `make airflow` serves the Airflow UI over these runs")
    if browser:
        webbrowser.open(page.as_uri())


def home() -> Settings:
    """Settings of a home of its own, on the embedded defaults: no real store and no alert channel is touched."""
    own = settings().home / "demo"
    landing = own / "marketplace" / "landing"
    plain = load(
        home=own, landing=landing, lake_uri="", pictures_root="", reports="", milvus_uri=None, milvus_token=None
    )
    return plain.model_copy(update={"alerts": Alerts(), "feature_repo": PROJECT / "feature_repo"})


def _clear(current: Settings) -> None:
    """Start from nothing, unless somebody still looks at the last demonstration. Raises `StoreBusy`."""
    folder = current.home
    if is_held(folder / "airflow" / "stack.lock"):
        raise StoreBusy(
            f"An Airflow still serves the last demonstration in {folder}; stop it first (Ctrl-C in `make airflow`)."
        )
    if (milvus := server.process(current)) is not None:  # left by one that was killed; nobody could find it later
        milvus.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _run_hour(out: Console, airflow: Airflow, hour: str) -> None:
    columns = (
        TextColumn("      {task.description}"),
        BarColumn(30),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        bar = progress.add_task(f"hour {hour}", total=None, now="waiting for the scheduler")

        def follow(tasks: tuple[Task, ...]) -> None:
            done = {task.task_id for task in tasks if task.state in ("success", "skipped")}
            active = sorted({task.task_id for task in tasks if task.state == "running"})
            progress.update(bar, total=len(tasks), completed=len(done), now=", ".join(active) or "…")

        outcome = airflow.wait(airflow.trigger(DAG_ID, hour), follow).expect_success()
        progress.update(bar, completed=len(outcome.tasks), now=f"{outcome.state}")


def accuracy(lake: Lake, market: Path) -> dict[str, float]:
    """Pairwise and B-cubed precision and recall of the clusters against the simulator's truth."""
    truth = pl.read_parquet(market / "truth.parquet")
    live = lake.read(LISTINGS, ~pl.col("is_deleted"), columns=["listing_id"])
    found = (
        truth.join(live, on="listing_id")
        .join(lake.read(CLUSTERS, columns=["listing_id", "cluster_id"]), on="listing_id", how="left")
        .with_columns(predicted=pl.coalesce("cluster_id", "listing_id"))
    )
    scores = metrics.score(
        metrics.counts_of_clusters(metrics.codes(found["predicted"]), metrics.codes(found["product_id"]))
    )
    return {
        "precision": scores.pairwise.precision,
        "recall": scores.pairwise.recall,
        "F1": scores.pairwise.f1,
        "B-cubed F1": scores.bcubed.f1,
    }
