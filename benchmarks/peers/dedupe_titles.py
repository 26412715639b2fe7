"""dedupe on titles and perceptual hashes, in an environment of its own: reads Parquet, writes scored pairs.

    python dedupe_titles.py LISTINGS.parquet PAIRS.parquet LABELLED.parquet

`LISTINGS` has row, title, image_phash; `LABELLED` two rows and whether they are the same product; a found pair is two
rows and a score. Titles are compared by affine gaps and by the words that they share, as in dedupe's example of
products, hashes by equality. The rules of what is compared at all have to reach 95 % of the labelled matches: for the
last of them dedupe would compare any two titles that share a word, and find no more. The threshold is left to the
caller.
"""

import random
import sys

import dedupe
import pyarrow as pa
import pyarrow.parquet as pq
from dedupe.variables import Exact, String, Text

RECALL = 0.95


def main(source: str, out: str, labelled: str) -> None:
    random.seed(7)  # draws the listings that the rules are tried on
    rows = pq.read_table(source).to_pylist()
    data = {row["row"]: {"title": row["title"].lower() or None, "phash": row["image_phash"]} for row in rows}
    titles = [each["title"] for each in data.values() if each["title"]]
    matcher = dedupe.Dedupe([String("title"), Text("title", corpus=titles), Exact("phash")])
    pairs: dict[str, list[tuple[dict, dict]]] = {"match": [], "distinct": []}
    for pair in pq.read_table(labelled).to_pylist():
        pairs["match" if pair["same"] else "distinct"].append((data[pair["left"]], data[pair["right"]]))
    matcher.mark_pairs(pairs)
    matcher.prepare_training(data)
    matcher.train(recall=RECALL)
    found = matcher.score(matcher.pairs(data))
    left, right = found["pairs"].T
    pq.write_table(pa.table({"left": left, "right": right, "score": found["score"]}), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
