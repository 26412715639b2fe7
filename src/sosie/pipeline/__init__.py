"""One function a step of the hourly run. The DAG and the shell call the same ones, in this order.

Every step takes a `Run`, can be run again, and gives the same tables. Data passes between steps through the lake (and
its scratch space); only counts come back.
"""

from sosie.index.ahead import ahead
from sosie.pipeline.cluster import cluster
from sosie.pipeline.embed import Shard, embed, shards
from sosie.pipeline.follow import follow
from sosie.pipeline.ingest import detect_changes, validate
from sosie.pipeline.match import match, upsert_vectors
from sosie.pipeline.publish import alert, alert_deadline, alert_failure, manifest, publish_features, report
from sosie.pipeline.run import Counts, Run, left_behind, run_alone
from sosie.pipeline.veto import heed, part

__all__ = [
    "Counts",
    "Run",
    "Shard",
    "alert",
    "alert_deadline",
    "alert_failure",
    "cluster",
    "detect_changes",
    "embed",
    "follow",
    "heed",
    "left_behind",
    "manifest",
    "match",
    "part",
    "publish_features",
    "report",
    "run_all",
    "shards",
    "upsert_vectors",
    "validate",
]


def run_all(run: Run) -> None:
    """The whole hour in this process. Raises `StoreBusy` where another run of this home goes on for too long."""
    with run_alone(run.settings), ahead(run.settings):
        validate(run)
        detect_changes(run)
        for part in shards(run):
            embed(run, **part)
        upsert_vectors(run)
        match(run)
        cluster(run)
        publish_features(run)
        follow(run)  # before the report: an hour that is told as done left no gap there, which a switch relies on
        report(run)
        alert(run)
