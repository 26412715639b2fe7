"""Templates of the report and of the page: what strangers typed is escaped, a misspelt name is an error."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sosie.report import words

FILTERS = ("number", "compact", "percent", "seconds", "size", "plain", "moment", "price", "hour")


def environment(folder: Path) -> Environment:
    """Of the templates in `folder`."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update({name: getattr(words, name) for name in FILTERS})
    made.globals.update(words=words)
    return made
