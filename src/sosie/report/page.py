"""One page that says what an hour did: works offline, can be mailed, and trusts no word that a seller wrote."""

import base64
import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from jinja2 import Environment
from PIL import Image, UnidentifiedImageError

from sosie.places import write_atomically
from sosie.report import charts, words
from sosie.report.counts import counts_of
from sosie.report.data import ReportData
from sosie.report.templating import TEMPLATES, environment

log = structlog.get_logger(__name__)

PICTURE_SIDE = 224
PICTURE_QUALITY = 76
PAIRS_OPEN = 6
REASONS_SHOWN = 6
ROW_LETTERS = 600
FILES_SHOWN = 20


def write(folder: Path, data: ReportData) -> Path:
    """Write `<folder>/<run_id>/index.html`. Returns its path.

    The page needs no other file, pictures are inside it; the same data gives the same bytes.
    """
    page = folder / data.run_id / "index.html"
    write_atomically(page, render(data).encode(), synced=False)
    return page


def render(data: ReportData) -> str:
    """The page as HTML."""
    count = data.counts
    script = (TEMPLATES / "report.js").read_text()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            count=count,
            headline=words.headline(count),
            flows=charts.diagrams(count),
            by_verdict=[(v, [pair for pair in data.pairs if pair.verdict == v]) for v in ("review", "match")],
            steps=[step for step in data.manifest.get("steps") or () if step.get("seconds") is not None],
            unbalanced=[balance for balance in count.balances if not balance.holds],
            feature_reasons=words.reasons() if data.pairs else {},
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            pairs_open=PAIRS_OPEN,
            reasons_shown=REASONS_SHOWN,
            row_letters=ROW_LETTERS,
            files_shown=FILES_SHOWN,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = environment(TEMPLATES)
    made.filters.update(picture=picture_uri, counts_of=_told_counts)
    return made


@lru_cache(maxsize=512)
def picture_uri(picture: bytes | None) -> str:
    """The picture as a small JPEG data URI; "" where there is none, or it can't be read."""
    if not picture:
        return ""
    try:
        with Image.open(io.BytesIO(picture)) as image:
            image.draft("RGB", (PICTURE_SIDE, PICTURE_SIDE))
            small = image.convert("RGB")
            small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        log.warning("A thumbnail can't be shown in the report", error=str(error))
        return ""
    out = io.BytesIO()
    small.save(out, "JPEG", quality=PICTURE_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _told_counts(step: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(name.replace("_", " "), value) for name, value in counts_of(step).items() if value]
