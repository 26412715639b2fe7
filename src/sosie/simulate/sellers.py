"""Sellers, and what they write when they list a product."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from sosie.simulate import titles
from sosie.simulate.pictures import SHOP_NAMES
from sosie.simulate.products import Product, gtin
from sosie.simulate.words import CONDITIONS, PROMOTIONS, TRANSLATIONS

Row = dict[str, Any]


@dataclass(frozen=True)
class Market:
    """A marketplace. `rate` is what a US dollar costs in its currency; prices end in one of `endings`."""

    name: str
    language: str
    currency: str
    rate: float
    endings: tuple[float, ...]


MARKETS: tuple[tuple[Market, float], ...] = (
    (Market("tokoraya", "id", "IDR", 16_000.0, ()), 0.34),
    (Market("openstall", "en", "USD", 1.0, (0.99, 0.95, 0.0, 0.49)), 0.22),
    (Market("handelsplatz", "de", "EUR", 0.9, (0.99, 0.9, 0.0)), 0.14),
    (Market("grandmarche", "fr", "EUR", 0.9, (0.9, 0.99, 0.0)), 0.11),
    (Market("plazamayor", "es", "EUR", 0.9, (0.95, 0.99, 0.0)), 0.11),
    (Market("highstreet", "en", "GBP", 0.78, (0.99, 0.0, 0.5)), 0.08),
)
"""Each marketplace with its share of the sellers."""


@dataclass(frozen=True)
class Seller:
    seller_id: str
    market: Market


@cache
def crew(seed: int, count: int) -> tuple[Seller, ...]:
    """`count` sellers."""
    rng = np.random.default_rng([seed, 30])
    shares = np.array([share for _, share in MARKETS])
    markets = rng.choice(len(MARKETS), count, p=shares / shares.sum())
    ids = rng.permutation(10 * count)[:count]
    return tuple(
        Seller(f"{_slug(SHOP_NAMES[int(i) % len(SHOP_NAMES)])}-{i}", MARKETS[int(market)][0])
        for i, market in zip(ids, markets, strict=True)
    )


def pick(seed: int, count: int, rng: np.random.Generator) -> Seller:
    """A seller; the first of the crew list far more than the last."""
    sellers = crew(seed, count)
    return sellers[int(count * rng.random() ** 1.8)]


def describe(product: Product, sibling: Product | None, seller: Seller, rng: np.random.Generator) -> Row:
    """The feed's columns that a seller fills in, some left out, some wrong.

    `sibling`: another product of the family, whose GTIN a careless seller takes.
    """
    number: str | None = product.gtin if rng.random() < 0.4 else None
    if number is not None and rng.random() < 0.03:
        number = sibling.gtin if sibling is not None else gtin(seller.seller_id, product.product_id)
    priced = rng.random() >= 0.04
    return {
        "seller_id": seller.seller_id,
        "marketplace": seller.market.name,
        "title": _title(product, seller, rng),
        "description": _description(product, seller, rng) if rng.random() < 0.55 else None,
        "brand": _brand(product.brand, rng) if product.brand is not None and rng.random() < 0.65 else None,
        "gtin": number,
        "category": _category(product.category, rng),
        "price": price(product, seller, rng) if priced else None,
        "currency": seller.market.currency if priced else None,
    }


def retitle(product: Product, seller: Seller, title: str, rng: np.random.Generator) -> str:
    """Another title for a listing that has one: edited, or written anew."""
    again = rng.random() < 0.5
    for _ in range(4):
        new = (
            titles.relist(title, rng, language=seller.market.language, protected=product.protected, strength=0.6)
            if again
            else _title(product, seller, rng)
        )
        if new.split() != title.split() and len(new) <= 220:
            return new
        again = False
    return f"{product.title} {PROMOTIONS[seller.market.language][int(rng.integers(6))]} {int(rng.integers(10, 99))}%"


def reprice(held: float, seller: Seller, rng: np.random.Generator) -> float:
    """Another price, between a third less and a quarter more."""
    for _ in range(8):
        new = _rounded(held * float(np.exp(rng.uniform(-0.4, 0.22))), seller.market, rng)
        if new != held:
            return new
    return held + (1000.0 if seller.market.rate > 100 else 1.0)


def price(product: Product, seller: Seller, rng: np.random.Generator) -> float:
    """What the seller asks: sellers differ by about 12 %."""
    return _rounded(product.price * seller.market.rate * float(np.exp(rng.normal(0, 0.12))), seller.market, rng)


def _rounded(value: float, market: Market, rng: np.random.Generator) -> float:
    if not market.endings:
        return float(max(500, round(value / 500) * 500))
    return round(max(1.0, float(np.floor(value))) + market.endings[int(rng.integers(len(market.endings)))], 2)


def _title(product: Product, seller: Seller, rng: np.random.Generator) -> str:
    if rng.random() < 0.1:
        return product.title
    return titles.relist(product.title, rng, language=seller.market.language, protected=product.protected)


def _description(product: Product, seller: Seller, rng: np.random.Generator) -> str:
    facts = [product.facts[i] for i in rng.permutation(len(product.facts))]
    said = facts[: int(rng.integers(1, len(facts) + 1))] if facts else [product.title + "."]
    if seller.market.language != "en" and rng.random() < 0.5:
        lexicon = TRANSLATIONS[seller.market.language]
        said = [" ".join(lexicon.get(word.lower(), word) for word in fact.rstrip(".").split()) + "." for fact in said]
    closing = CONDITIONS[seller.market.language]
    return " ".join([*said, closing[int(rng.integers(len(closing)))]])


def _brand(brand: str, rng: np.random.Generator) -> str:
    kind = rng.integers(0, 8)
    return brand.upper() if kind == 0 else brand.lower() if kind == 1 else brand


def _category(category: str, rng: np.random.Generator) -> str | None:
    chance = rng.random()
    if chance < 0.12 or not category:
        return None
    return category.rsplit("/", 1)[0] if chance < 0.18 else category


def _slug(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
