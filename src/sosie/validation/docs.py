"""Data Docs: Great Expectations' own pages of one validation, in a folder of their own."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import structlog

from sosie.landing import hour_of
from sosie.places import is_local
from sosie.validation.suite import NAME, Findings

log = structlog.get_logger(__name__)

SITE = "local"
# The pages take their looks from servers on the internet; without them a status would be an empty cell.
STYLE = """<style>
body { font-family: system-ui, sans-serif; }
td, th { padding: .2rem .6rem; text-align: left; vertical-align: top; }
i.fa-check-circle::before { content: "✓"; color: #1a7f37; font-weight: bold; }
i.fa-times::before { content: "✗"; color: #cf222e; font-weight: bold; }
</style></head>"""


def write(findings: Findings, folder: Path) -> Path | None:
    """Write the pages below `folder` and return their index; None, with a warning in the log, where that fails.

    Pages are for readers: that they could not be written never stops a run.
    """
    try:
        return _write(findings, folder)
    except Exception as error:
        log.warning("data_docs_not_written", folder=str(folder), cause=f"{type(error).__name__}: {error}")
        return None


def newest(folder: Path) -> Path | None:
    """The page with the last checks below `folder`; the site's own index shows nothing without the network."""
    pages = sorted((folder / "validations").rglob("*.html"), key=lambda page: page.stat().st_mtime)
    return pages[-1] if pages else None


def _write(findings: Findings, folder: Path) -> Path:
    hour = hour_of(folder.as_posix())
    if is_local(folder):
        return _build(findings, folder, hour)
    with tempfile.TemporaryDirectory() as scratch:  # Great Expectations writes to a disk, or by a client of its own
        built = Path(scratch)
        index = _build(findings, built, hour)
        for page in built.rglob("*"):
            if page.is_file():
                (folder / page.relative_to(built).as_posix()).write_bytes(page.read_bytes())
        return folder / index.relative_to(built).as_posix()


def _build(findings: Findings, folder: Path, hour: str | None) -> Path:
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    folder.mkdir(parents=True, exist_ok=True)
    context = findings.context
    context.add_data_docs_site(
        SITE,
        {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    results = findings.results
    # An hour that is run again replaces its page instead of adding one.
    time = datetime.now(UTC) if hour is None else datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    run = RunIdentifier(run_name=hour or folder.name, run_time=time)
    results.meta |= {"run_id": run, "validation_time": run.run_time, "batch_parameters": None}
    context.validation_results_store.set(
        ValidationResultIdentifier(ExpectationSuiteIdentifier(NAME), run, results.batch_id), results
    )
    index = context.build_data_docs(site_names=[SITE])[SITE]
    for animation in (folder / "static" / "images").glob("*.gif"):
        animation.unlink()  # how-to films for a button that is switched off: 3.4 MB a run
    for page in folder.rglob("*.html"):
        page.write_text(page.read_text("utf-8").replace("</head>", STYLE, 1), "utf-8")
    return Path(unquote(urlparse(index).path))
