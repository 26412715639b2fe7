"""GoldenMatch on titles and perceptual hashes, in an environment of its own: reads Parquet, writes scored pairs.

    python goldenmatch_titles.py LISTINGS.parquet PAIRS.parquet [--zero-config]

`LISTINGS` has row, title, image_phash; a found pair is two rows and a score. Titles that share a word, other than the
most frequent, are compared by their trigrams, which did best of GoldenMatch's comparisons of texts on the groups that
the threshold is fitted on; hashes by equality. `--zero-config` leaves all of that to GoldenMatch, and adds the pairs
that it would have reviewed. The threshold is left to the caller.
"""

import os
import sys

import goldenmatch as gm
import pyarrow as pa
import pyarrow.parquet as pq
from goldenmatch.config.schemas import TokenBlockingConfig

LEAST = 0.2


def configured() -> gm.GoldenMatchConfig:
    title = gm.MatchkeyField(field="title", scorer="qgram", weight=1.0, transforms=["lowercase", "strip"])
    return gm.GoldenMatchConfig(
        matchkeys=[
            gm.MatchkeyConfig(name="hash", type="exact", fields=[gm.MatchkeyField(field="image_phash")]),
            gm.MatchkeyConfig(name="title", type="weighted", threshold=LEAST, fields=[title]),
        ],
        blocking=gm.BlockingConfig(strategy="token", token=TokenBlockingConfig(column="title")),
        # Below the threshold that is fitted later nearly everything hangs together; splitting that would be in vain.
        golden_rules=gm.GoldenRulesConfig(default_strategy="most_complete", auto_split=False),
    )


def main(source: str, out: str, *options: str) -> None:
    os.environ["GOLDENMATCH_AUTOCONFIG_MEMORY"] = "0"  # else it starts from what an earlier run chose
    table = pq.read_table(source, columns=["title", "image_phash"])
    found = gm.dedupe_df(table, config=None if "--zero-config" in options else configured())
    left, right, score = zip(*found.scored_pairs, *found.review_pairs, strict=True)
    pq.write_table(pa.table({"left": left, "right": right, "score": score}), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
