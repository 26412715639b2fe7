"""A benchmark as a program of its own."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from sosie.bench.figures import SIZES, Figure, Size
from sosie.bench.table import console, render


def script(measure: Callable[[Size], Sequence[Figure]], about: str | None) -> None:
    """Read `--size` and `--json FILE`, measure, print a table, and write the file where one is named."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="standard")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = measure(given.size)
    console().print(render({Path(measure.__code__.co_filename).stem: figures}))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
