"""Data Docs: Great Expectations' own page of one validation."""

import re
from datetime import UTC, datetime
from pathlib import Path

import structlog

from sosie import hours
from sosie.landing import hour_of
from sosie.places import write_atomically
from sosie.validation.suite import NAME, Findings

log = structlog.get_logger(__name__)

# The page takes its looks from servers on the internet; without them a status would be an empty cell.
STYLE = """<style>
body { font-family: system-ui, sans-serif; }
td, th { padding: .2rem .6rem; text-align: left; vertical-align: top; }
i.fa-check-circle::before { content: "✓"; color: #1a7f37; font-weight: bold; }
i.fa-times::before { content: "✗"; color: #cf222e; font-weight: bold; }
</style></head>"""
_ELSEWHERE = re.compile(r'\shref="\.\./[^"]*"')
"""Links to the rest of a site; the page stands alone, as it has every rule and what came of it."""
_PAGE = f"validations/{NAME}.html"
"""Below the folder of an hour's Data Docs: an hour that is run again replaces its page."""


def write(findings: Findings, folder: Path) -> Path | None:
    """Write the page below `folder` and return where; None, with a warning in the log, where that fails.

    It is for readers: that it could not be written never stops a run.
    """
    try:
        return _write(findings, folder)
    except Exception as error:
        log.warning("data_docs_not_written", folder=str(folder), cause=f"{type(error).__name__}: {error}")
        return None


def page_of(reports: Path, hour: str) -> str | None:
    """Path below the hour's report of the page with its checks; None where there is none."""
    path = f"data_docs/{_PAGE}"
    return path if (reports / hour / path).is_file() else None


def _write(findings: Findings, folder: Path) -> Path:
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    hour, results = hour_of(folder.as_posix()), findings.results
    time = datetime.now(UTC) if hour is None else hours.start(hour)
    results.meta |= {
        "run_id": RunIdentifier(hour or folder.name, time),
        "validation_time": time,
        "batch_parameters": None,
    }
    told = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(results), show_how_to_buttons=False)
    page = folder / _PAGE
    told = _ELSEWHERE.sub("", told).replace("</head>", STYLE, 1)
    write_atomically(page, told.encode(), synced=False)
    return page
