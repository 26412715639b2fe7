"""Splink on titles and perceptual hashes, in an environment of its own: reads Parquet, writes scored pairs as Parquet.

    python splink_titles.py LISTINGS.parquet PAIRS.parquet

`LISTINGS` has row, title, image_phash. Titles are compared by the words that they share and by Jaro-Winkler, hashes by
equality. A pair is looked at where both titles have one of their three rarest words in common, or the same hash. The
model is fitted without labels, as Splink's guide does it; the threshold is left to the caller.
"""

import re
import sys
from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import splink.comparison_library as cl
from splink import DuckDBAPI, Linker, SettingsCreator, block_on

RARE, MOST_SHARED, LEAST = 3, 200, 0.001


def prepared(source: str) -> pa.Table:
    """Listings with their words, and each one's rarest words that somebody else has too."""
    table = pq.read_table(source)
    words = [sorted(set(re.findall(r"\w+", (title or "").lower()))) for title in table["title"].to_pylist()]
    shared = Counter(word for each in words for word in each)
    rare = [
        sorted((word for word in each if 1 < shared[word] <= MOST_SHARED), key=lambda word: (shared[word], word))[:RARE]
        for each in words
    ]
    columns = {"unique_id": table["row"], "title": table["title"], "phash": table["image_phash"]}
    return pa.table({**columns, "words": words, "rare": rare})


def main(source: str, out: str) -> None:
    connection = duckdb.connect()
    database = DuckDBAPI(connection)
    by_word, by_hash = block_on("rare", arrays_to_explode=["rare"]), block_on("phash")
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=[
            cl.ArrayIntersectAtSizes("words", [8, 6, 4, 3, 2, 1]),
            cl.JaroWinklerAtThresholds("title", [0.95, 0.88, 0.8, 0.7]),
            cl.ExactMatch("phash"),
        ],
        blocking_rules_to_generate_predictions=[by_hash, by_word],
    )
    linker = Linker(database.register(prepared(source)), settings)
    linker.training.estimate_probability_two_random_records_match([by_hash], recall=0.3)
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6)
    linker.training.estimate_parameters_using_expectation_maximisation(by_hash)
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("title"))
    found = linker.inference.predict(threshold_match_probability=LEAST)
    pairs = found.as_duckdbpyrelation().select("unique_id_l", "unique_id_r", "match_probability")
    pairs.write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
