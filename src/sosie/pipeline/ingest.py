"""The first two steps: what came in, and what it changes."""

from datetime import UTC, datetime

import polars as pl

from sosie import integrity, landing, pictures, replay
from sosie.errors import BatchRejected
from sosie.lake import Lake
from sosie.listings import KINDS, detect, merge
from sosie.pipeline.run import Run, Tally, log, step
from sosie.pipeline.veto import settle
from sosie.runs import unfinished
from sosie.settings import Settings
from sosie.tables import CHANGES, CLUSTER_EVENTS, CLUSTERS, FEED, LISTINGS, QUARANTINE, RUNS
from sosie.validation import validate as check

_ROW = ["source_file", "row_number", "row"]
_OF_A_PICTURE = pl.col("rule").str.starts_with("picture_")


@step
def validate(run: Run, tally: Tally) -> None:
    """Read the hour's files, look at their pictures, and part good rows from bad.

    Raises `BatchRejected` where the batch as a whole can't be trusted; then no table was changed but for the note in
    `runs` that this hour refused its files, so that they don't hold up the hours after it. Raises `TerminalError` where
    the lake has lost its catalogue.
    """
    integrity.check(run.lake)
    history = run.lake.read(RUNS, pl.col("run_id") != run.id, columns=["run_id", "state", "files"])
    # Files that an hour refused, which have no rows in its record, are kept from the hours after it, but from no hour
    # whose own they are.
    taken = {
        landing.key(file["path"], file["sha256"]): row["run_id"]
        for row in history.iter_rows(named=True)
        for file in row["files"]
        if file["rows"] or landing.hour_of(file["path"]) != run.id
    }
    files = landing.files(run.settings.landing, run.id, taken)
    if not files:
        log.warning("no landing file for this hour", landing=str(run.settings.landing))
    try:
        if not files and (strange := landing.passed_over(run.settings.landing, run.id)):
            raise BatchRejected(
                f"{strange[0]} can't be taken, and nothing else came for this hour: a feed's file ends in "
                f"{', '.join(landing.SUFFIXES)}. Land it again as one of these, or take it away where it is no feed."
            )
        frames = [_read(run, file) for file in files]
        rows = _with_pictures(run, pl.concat(frames) if frames else landing.empty())
        checked = check(
            rows,
            rules=run.settings.validation,
            trailing_row_counts=_trailing_rows(run, history),
            now=datetime.now(UTC),
            docs=run.settings.reports / run.id / "data_docs",
        )
    except BatchRejected:
        _refuse(run, files)
        raise
    quarantined = checked.quarantined.with_columns(run_id=pl.lit(run.id))
    before = run.lake.read(QUARANTINE, pl.col("run_id") == run.id)
    replayed = before.select(*QUARANTINE.key, "replayed_run")
    quarantined = quarantined.join(replayed, on=QUARANTINE.key, how="left", maintain_order="left")
    again = before.filter(pl.col("source_file").is_in([file.path for file in files]))
    again = again.join(quarantined, on=QUARANTINE.key, how="anti")
    # A picture that failed and was not looked at again has not been mended.
    still = again.filter(_OF_A_PICTURE).join(rows.filter(~pl.col("looked_at")), on=_ROW, how="semi")
    mended = again.join(still, on=QUARANTINE.key, how="anti")
    # What an hour that never came to its end put aside is this hour's where it puts the same aside again.
    left_over = run.lake.read(QUARANTINE, ~pl.col("run_id").is_in([run.id, *history["run_id"]]))
    taken_over = left_over.join(quarantined, on=["source_file", "row_number", "rule", "row"], how="semi")
    run.staging.put("accepted", checked.accepted)
    tally.written(
        run.lake.upsert(QUARANTINE, quarantined.select(*QUARANTINE.columns), run_id=run.id),
        run.lake.delete(QUARANTINE, pl.concat([taken_over, mended]).select(QUARANTINE.key), run_id=run.id),
        replay.heed(run.lake, {file.path: frame["row"] for file, frame in zip(files, frames, strict=True)}, run.id),
    )
    tally.extra["files"] = [
        {"path": file.path, "sha256": file.sha256, "bytes": file.bytes, "rows": frame.height}
        for file, frame in zip(files, frames, strict=True)
    ]
    tally(
        files=len(files),
        rows_read=rows.height,
        rows_accepted=checked.accepted.height,
        rows_quarantined=checked.rejected,
        pictures_refused=quarantined.filter(_OF_A_PICTURE).height + still.height,
    )


def _read(run: Run, file: landing.LandingFile) -> pl.DataFrame:
    rules = run.settings.validation
    return landing.read(
        run.settings.landing, file, allow_extra_columns=rules.allow_extra_columns, max_bytes=rules.max_file_bytes
    )


def _trailing_rows(run: Run, history: pl.DataFrame) -> list[int]:
    """Rows of the hours before, oldest first."""
    before = history.filter(pl.col("run_id") < run.id, pl.col("state") == "succeeded").sort("run_id")
    rows = before.tail(run.settings.validation.median_over_runs)["files"].list.eval(
        pl.element().struct.field("rows").sum()
    )
    return rows.list.first().drop_nulls().to_list()


def _refuse(run: Run, files: list[landing.LandingFile]) -> None:
    """Note that this hour refused its files: later hours pass them over; this hour takes them again when it is run
    again, and so does the hour that a file is of."""
    refused = [{"path": file.path, "sha256": file.sha256, "bytes": file.bytes, "rows": 0} for file in files]
    done = run.lake.read(RUNS, pl.col("run_id") == run.id, pl.col("state") != "refused")
    if done.height:  # an earlier try took its files and stands; only what is new to it was refused
        row = done.row(0, named=True)
        known = {(file["path"], file["sha256"]) for file in row["files"]}
        row["files"] += [file for file in refused if (file["path"], file["sha256"]) not in known]
    else:
        row = dict.fromkeys(RUNS.columns) | {
            "run_id": run.id,
            "state": "refused",
            "started_at": datetime.now(UTC),
            "files": refused,
            "steps": [],
        }
    run.lake.upsert(RUNS, pl.DataFrame([row], schema=RUNS.schema), run_id=run.id)


def _with_pictures(run: Run, rows: pl.DataFrame) -> pl.DataFrame:
    """Add image_hash, image_phash, picture faults, and `looked_at`: whether the row's picture was.

    A row that says nothing newer of its picture is not looked at, but where it is replayed. Where a picture's server
    does not answer, what the catalogue holds of that picture stands: an outage takes no picture from anybody.
    """
    held = run.lake.lookup(
        LISTINGS,
        "listing_id",
        rows["listing_id"].drop_nulls(),
        columns=["listing_id", "image_uri", "updated_at", "image_hash", "image_phash"],
    ).rename({"updated_at": "held_at", "image_hash": "held_hash", "image_phash": "held_phash"})
    rows = rows.join(held, on=["listing_id", "image_uri"], how="left", maintain_order="left")
    news = pl.col("held_at").ne_missing(pl.col("updated_at")) | pl.col("source_file").str.contains(replay.FILE)
    rows = rows.with_columns(looked_at=pl.col("image_uri").is_not_null() & ~pl.col("is_deleted") & news)
    seen = pictures.inspect(
        rows.select(pl.when("looked_at").then("image_uri"))["image_uri"].to_list(),
        root=run.settings.pictures_root,
        thumbnails=thumbnails(run.settings),
        rules=run.settings.validation,
    )
    looked = pl.DataFrame(
        {
            "new_hash": [one.image_hash for one in seen],
            "new_phash": [one.image_phash for one in seen],
            "picture_fault_rule": [one.fault_rule for one in seen],
            "picture_fault_detail": [one.fault_detail for one in seen],
        },
        schema=dict.fromkeys(("new_hash", "new_phash", "picture_fault_rule", "picture_fault_detail"), pl.String),
    )
    stands = ~pl.col("looked_at") | (pl.col("picture_fault_rule") == "picture_unreachable")
    return (
        pl.concat([rows, looked], how="horizontal")
        .with_columns(
            image_hash=pl.coalesce("new_hash", pl.when(stands).then("held_hash")),
            image_phash=pl.coalesce("new_phash", pl.when(stands).then("held_phash"), "image_phash"),
        )
        .drop("new_hash", "new_phash", "held_at", "held_hash", "held_phash")
    )


@step
def detect_changes(run: Run, tally: Tally) -> None:
    """Tell new, changed, deleted, unchanged and late rows apart, and store what the catalogue now is.

    The change set is written before the listings and holds all that any try of this hour found, so a run that died in
    between, or is run again, finds the same work to do. Work of an earlier hour that never came to its end is taken
    over: its rows look unchanged by now. An hour that had come to its end and finds something new is at work again. A
    veto that died half-way is settled first, among the pairs that it met.
    """
    settle(run.settings)
    accepted = run.staging.get("accepted")
    held = run.lake.lookup(LISTINGS, "listing_id", accepted["listing_id"])
    detected = detect(accepted.select(*FEED, "image_hash"), held, run.id)
    left_over = unfinished(run.lake).filter(pl.col("run_id") < run.id).collect()
    wanted = left_over.clear()
    for part in left_over.sort("run_id").partition_by("run_id", maintain_order=True):
        wanted = merge(wanted, part.with_columns(run_id=pl.lit(run.id)))
    wanted = merge(merge(wanted, changes(run)), detected.changes)
    if not (left_over.is_empty() and detected.changes.is_empty()):
        _set_state(run, pl.col("run_id") == run.id, "succeeded", "running")
    taken_over = left_over.select("run_id").unique()
    tally.written(
        run.lake.upsert(CHANGES, wanted, run_id=run.id),
        run.lake.delete(CLUSTER_EVENTS, _never_came_true(run.lake, taken_over), run_id=run.id),
        run.lake.delete(CHANGES, taken_over, run_id=run.id),
        run.lake.upsert(LISTINGS, detected.listings, run_id=run.id),
    )
    _set_state(run, pl.col("run_id") < run.id, "running", "succeeded")  # what they had left was taken over
    # Rows that an earlier try of this hour has stored look unchanged or late now; they were not.
    recorded = changes(run)
    own = recorded.join(detected.kinds, on="listing_id", how="semi")
    others = detected.kinds.join(recorded, on="listing_id", how="anti")
    stale = others.filter(pl.col("kind") == "stale").height
    tally(
        **(dict.fromkeys(KINDS, 0) | dict(own.group_by("kind").len().iter_rows())),
        unchanged=others.height - stale,
        stale=stale,
        superseded=detected.counts["superseded"],
        taken_over=recorded.height - own.height,
    )


def _never_came_true(lake: Lake, run_ids: pl.DataFrame) -> pl.DataFrame:
    """Those of `run_ids` that wrote cluster events and died before the clusters: who takes them over makes its own."""
    told = [one for one in run_ids["run_id"] if lake.version_before(CLUSTER_EVENTS, one) is not None]
    return run_ids.filter(pl.col("run_id").is_in([one for one in told if lake.version_before(CLUSTERS, one) is None]))


def _set_state(run: Run, which: pl.Expr, now: str, then: str) -> None:
    rows = run.lake.read(RUNS, which, pl.col("state") == now)
    run.lake.upsert(RUNS, rows.with_columns(state=pl.lit(then)), run_id=run.id)


def thumbnails(settings: Settings) -> pictures.Thumbnails:
    """Where pictures are kept once they were seen."""
    return pictures.Thumbnails(Lake(settings.lake_uri).below("pictures"))


def changes(run: Run) -> pl.DataFrame:
    """The run's change set, as tables.CHANGES."""
    return run.lake.read(CHANGES, pl.col("run_id") == run.id).sort("listing_id")
