"""Time and F1 beside TF-IDF as a catalogue grows: titles of simulated marketplaces, embedding included.

    python benchmarks/tfidf_by_size.py [--size small|standard|large] [--json FILE]

Listings: 1,000; 5,000 and 20,000; 20,000, 100,000 and 200,000. Each matcher is a process of its own, run and judged as
`benchmarks/peers.py` tells: Sosie with its light models, as they are and in haste, beside scikit-learn's word TF-IDF,
which multiplies every title with every other. There is nothing but titles: who would look at pictures, prices or GTINs
finds none. The large size takes half an hour, a third of it to make the largest marketplace.
"""

import tempfile
from pathlib import Path

from peers import WAYS, evaluated

from sosie.bench import Figure, Size, script
from sosie.evaluate import datasets
from sosie.simulate import Marketplace, write

LISTINGS: dict[Size, tuple[int, ...]] = {
    "small": (1_000,),
    "standard": (5_000, 20_000),
    "large": (20_000, 100_000, 200_000),
}
PEER = "TF-IDF (scikit-learn)"


def measure(size: Size) -> list[Figure]:
    return [figure for listings in LISTINGS[size] for figure in of_size(listings)]


def of_size(listings: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sosie-tfidf-") as scratch:
        path = titles(Path(scratch), listings)
        ours = {f"{listings:,} listings{way}": evaluated(path, "sosie", more) for way, more in WAYS.items() if way}
        their_seconds, their_f1 = evaluated(path, "tfidf")
    found = []
    for about, (seconds, f1) in ours.items():
        found += [
            Figure(f"F1 of unseen groups, {about}", f1, "F1", PEER, their_f1, 1.0),
            Figure(f"seconds, start to end, {about}", seconds, "s", PEER, their_seconds, 1.0, at_most=True),
        ]
    return found


def titles(folder: Path, listings: int) -> Path:
    """A labelled CSV of nothing but titles."""
    write(folder / "market", Marketplace(listings=listings, hours=1, with_pictures=False))
    market = datasets.load(folder / "market")
    labelled = market.listings.select("listing_id", "title").join(market.truth, on="listing_id", maintain_order="left")
    labelled.rename({"listing_id": "posting_id", "group": "label_group"}).write_csv(folder / "titles.csv")
    return folder / "titles.csv"


if __name__ == "__main__":
    script(measure, __doc__)
