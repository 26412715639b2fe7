"""Templates of the report and of the page: what strangers typed is escaped, a misspelt name is an error."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sosie.report import words

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = ("number", "compact", "percent", "seconds", "size", "plain", "moment", "price", "hour")


def environment(folder: Path) -> Environment:
    """Of the templates in `folder`, then of the report's: `flow.html.j2` and `flow.css` are for both."""
    made = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update({name: getattr(words, name) for name in FILTERS})
    made.globals.update(words=words)
    return made
