"""The life of a marketplace, hour by hour: what is listed, changed, deleted, sent late, sent again or sent broken."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import cycle

import numpy as np

from sosie.simulate import faults, sellers
from sosie.simulate.album import Take, uri_of
from sosie.simulate.options import TOUCHING, Marketplace
from sosie.simulate.products import Product, identity
from sosie.simulate.sellers import Row, Seller


@dataclass(frozen=True)
class Sent:
    """A row of a feed with the truth about it. `rule` is the one that a malformed row breaks."""

    row: Row
    kind: str
    rule: str | None = None


@dataclass
class Listing:
    """A listing as the marketplace holds it; `serial` counts listings, `taken` its pictures."""

    serial: int
    product: int
    seller: Seller
    row: Row
    view: int = 0
    taken: int = 0
    previous: Row | None = None
    is_sound: bool = True


@dataclass
class Life:
    """Runs through the hours. `products` are those that are listed at all; `slots` name a product for each listing."""

    options: Marketplace
    products: Sequence[Product]
    slots: Sequence[int]
    live: dict[str, Listing] = field(default_factory=dict)
    gone: list[Listing] = field(default_factory=list)
    takes: dict[int, list[Take]] = field(default_factory=lambda: defaultdict(list))
    _keys: dict[int, list[tuple[int, int | None]]] = field(default_factory=lambda: defaultdict(list))
    _families: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _next: int = 0
    _spoilt: int = 0

    def __post_init__(self) -> None:
        for index, product in enumerate(self.products):
            self._families[product.family_id].append(index)
        rules = [*faults.OF_THE_ROW, *faults.OF_A_FIELD, faults.REPEATED]
        rules += faults.OF_THE_PICTURE if self.options.with_pictures else ()
        self._rules = cycle(np.random.default_rng([self.options.seed, 61]).permutation(rules).tolist())
        self._crew = max(5, self.options.listings // 12)

    def hours(self) -> Iterator[tuple[str, list[Sent]]]:
        """Each hour's name and its rows, in the order of the file."""
        for hour in range(self.options.hours):
            start = self.options.first_hour() + timedelta(hours=hour)
            rng = np.random.default_rng([self.options.seed, 60, hour])
            count = self.options.listings if hour == 0 else round(self.options.new * self.options.listings)
            new = [self._list(hour, start) for _ in range(count)]
            sent = [] if hour == 0 else list(self._touch(start, rng))
            sent += [Sent(listing.row, "new") for listing in new]
            sent = self._spoil(sent, new, start, hour, rng)
            for listing in new:
                self.live[listing.row["listing_id"]] = listing
            yield f"{start:%Y-%m-%dT%H}", [sent[i] for i in rng.permutation(len(sent))]

    def _list(self, hour: int, start: datetime) -> Listing:
        """The next listing, as its seller first sends it."""
        serial = self._next
        self._next += 1
        return self._offer(serial, self.slots[serial], _moment(start, self._rng(serial, 1), bulk=hour == 0))

    def _offer(self, serial: int, index: int, moment: datetime) -> Listing:
        rng, product = self._rng(serial, 0), self.products[index]
        seller = sellers.pick(self.options.seed, self._crew, rng)
        others = [other for other in self._families[product.family_id] if other != index]
        sibling = self.products[others[int(rng.integers(len(others)))]] if others else None
        row: Row = {
            "listing_id": identity(self.options.seed, "listing", serial),
            **sellers.describe(product, sibling, seller, rng),
            "image_uri": None,
            "image_phash": None,
            "updated_at": moment,
            "is_deleted": False,
        }
        listing = Listing(serial, index, seller, row)
        chance, second = rng.random(), len(product.views) > 1 and rng.random() < 0.2
        if product.views and chance >= 0.03:
            known = self._keys[index]
            if chance < 0.18:
                view, key = 0, None
            elif chance < 0.28 and known:  # taken from another seller as it is
                view, key = known[int(rng.integers(len(known)))]
            else:
                view, key = int(second), serial * 100
            known.append((view, key))
            self._show(listing, view, key)
        return listing

    def _show(self, listing: Listing, view: int, key: int | None) -> None:
        """Give the listing a picture at a new address."""
        uri = uri_of(self.options.seed, listing.serial, listing.taken)
        self.takes[listing.product].append(Take(uri, view, key))
        listing.row = listing.row | {"image_uri": uri}
        listing.view = view
        listing.taken += 1

    def _touch(self, start: datetime, rng: np.random.Generator) -> Iterator[Sent]:
        """What happens in an hour to listings that are there already, each at most once."""
        relics = [listing.row for listing in self.gone]  # not of this hour: a file names a listing once
        free = [name for name, listing in self.live.items() if listing.is_sound]
        free = [free[i] for i in rng.permutation(len(free))]
        for kind in TOUCHING:
            wanted = round(getattr(self.options, kind) * self.options.listings)
            chosen = [name for name in free if self._can(kind, self.live[name])][:wanted]
            free = [name for name in free if name not in set(chosen)]
            for name in chosen:
                yield Sent(self._change(kind, self.live[name], start, relics), kind)

    def _can(self, kind: str, listing: Listing) -> bool:
        if kind == "price":
            return listing.row["price"] is not None
        return kind != "image" or bool(self.products[listing.product].views)

    def _change(self, kind: str, listing: Listing, start: datetime, relics: list[Row]) -> Row:
        """Do `kind` to a live listing; the row that says so."""
        held, product = listing.row, self.products[listing.product]
        rng = self._rng(listing.serial, int(start.timestamp()))
        now = _moment(start, rng)
        if kind == "unchanged":  # some feeds stamp every row anew
            return held | {"updated_at": now} if rng.random() < 0.5 else held
        if kind == "late":
            return self._late(listing, relics, rng)
        if kind == "deleted":
            del self.live[held["listing_id"]]
            self.gone.append(listing)
            return held | {"updated_at": now, "is_deleted": True}
        listing.previous = held
        if kind == "text":
            listing.row = held | {"title": sellers.retitle(product, listing.seller, held["title"], rng)}
        elif kind == "price":
            listing.row = held | {"price": sellers.reprice(held["price"], listing.seller, rng)}
        else:
            other = len(product.views) > 1 and rng.random() < 0.4
            self._show(listing, 1 - listing.view if other else listing.view, listing.serial * 100 + listing.taken)
        listing.row = listing.row | {"updated_at": now}
        return listing.row

    def _late(self, listing: Listing, relics: list[Row], rng: np.random.Generator) -> Row:
        """What was true before what is held; of a listing that was deleted, where there is one, every fourth time."""
        if relics and rng.random() < 0.25:
            return relics.pop(int(rng.integers(len(relics))))
        if listing.previous is not None:
            return listing.previous
        held = listing.row
        return held | {
            "title": sellers.retitle(self.products[listing.product], listing.seller, held["title"], rng),
            "updated_at": held["updated_at"] - timedelta(minutes=int(rng.integers(10, 3 * 24 * 60))),
        }

    def _spoil(
        self, sent: list[Sent], new: list[Listing], start: datetime, hour: int, rng: np.random.Generator
    ) -> list[Sent]:
        """Add malformed rows, or spoil rows of new listings, until they are `options.malformed` of the hour's."""
        share = self.options.malformed
        wanted = max(round(share * len(sent) / (1 - share)), int(share > 0))
        fresh = {listing.row["listing_id"]: listing for listing in new}
        at = {one.row["listing_id"]: place for place, one in enumerate(sent)}
        names = [list(fresh)[i] for i in rng.permutation(len(fresh))]
        held = [listing for name, listing in self.live.items() if name not in at]
        for _ in range(wanted):
            rule = next(self._rules)
            if rule in faults.OF_THE_ROW:
                if rule in faults.OF_A_HELD_ROW and held and rng.random() < 0.5:
                    victim = held.pop(int(rng.integers(len(held)))).row | {"updated_at": _moment(start, rng)}
                else:
                    victim = self._stillborn(start, hour)
                sent.append(Sent(faults.OF_THE_ROW[rule](victim, rng), "malformed", rule))
            elif names and rule == faults.REPEATED:
                good = fresh[names.pop()].row
                sent.append(Sent(self._older_copy(good, rng), "malformed", rule))
            elif names:
                listing = fresh[names.pop()]
                if not self._spoil_part(listing, rule, rng):
                    continue
                sent[at[listing.row["listing_id"]]] = Sent(listing.row, "malformed", rule)
        return sent

    def _stillborn(self, start: datetime, hour: int) -> Row:
        """A row about a listing that no good row ever names."""
        self._spoilt += 1
        serial = len(self.slots) + self._spoilt
        rng = self._rng(serial, 2)
        index = self.slots[int(rng.integers(len(self.slots)))]
        return self._offer(serial, index, _moment(start, rng, bulk=hour == 0)).row

    def _older_copy(self, good: Row, rng: np.random.Generator) -> Row:
        return good | {
            "updated_at": good["updated_at"] - timedelta(minutes=int(rng.integers(1, 50))),
            "title": f"{good['title']} (old)",
        }

    def _spoil_part(self, listing: Listing, rule: str, rng: np.random.Generator) -> bool:
        """Break the picture or a field of a new listing; False where it has none to break."""
        if rule in faults.OF_A_FIELD:
            listing.row = faults.OF_A_FIELD[rule](listing.row, rng)
        elif listing.row["image_uri"] is None:
            return False
        elif rule == "picture_missing":
            listing.row = listing.row | {"image_uri": uri_of(self.options.seed, listing.serial, "never written")}
        else:
            takes = self.takes[listing.product]
            place = next(i for i, take in enumerate(takes) if take.uri == listing.row["image_uri"])
            takes[place] = Take(takes[place].uri, takes[place].view, takes[place].key, cut=True)
        listing.is_sound = False
        return True

    def _rng(self, serial: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.options.seed, 50, serial, purpose])


def _moment(start: datetime, rng: np.random.Generator, *, bulk: bool = False) -> datetime:
    """A time in the hour before `start`, when the feed is cut; for the bulk in the quarter of a year before."""
    seconds = int(rng.integers(3_600, 90 * 86_400)) if bulk else int(rng.integers(1, 3_600))
    return start - timedelta(seconds=seconds)


def group_sizes(rng: np.random.Generator) -> Iterator[int]:
    """Endless numbers of listings per product: half have one, most of the others two to four, few up to forty."""
    while True:
        chance = rng.random()
        if chance < 0.9:
            yield int(np.searchsorted([0.48, 0.70, 0.82, 0.9], chance, side="right")) + 1
        else:
            yield 5 + min(35, int(4 * rng.pareto(1.6)))
