"""A small marketplace whose first hour ran for real, for the tests of the page."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from homes import prepared

from sosie import tables
from sosie.lake import Lake
from sosie.page import Person, build
from sosie.settings import Settings, load
from sosie.simulate import Marketplace, write

HOURS = ("2026-01-05T00", "2026-01-05T01")
REVIEW_AT = 0.05
"""Lower than the decider's own, so that so small a marketplace has pairs to ask about."""


@dataclass(frozen=True)
class Market:
    settings: Settings
    product: dict[str, str]
    """What each listing really is."""

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_uri)

    def run(self, hour: str) -> None:
        """One hour by the command, as a process of its own."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SOSIE_")}
        command = [Path(sys.executable).with_name("sosie"), "run", "--hour", hour, "--landing", self.settings.landing]
        done = subprocess.run(
            command,
            env={
                **environment,
                "SOSIE_HOME": str(self.settings.home),
                "SOSIE_DECIDER__REVIEW_AT": str(REVIEW_AT),
            },
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def listing(self, listing_id: str) -> dict[str, Any]:
        return self.lake.read(tables.LISTINGS, pl.col("listing_id") == listing_id).row(0, named=True)

    def size(self, cluster_id: str) -> int:
        return self.lake.read(tables.CLUSTERS, pl.col("cluster_id") == cluster_id).height

    def living(self) -> set[str]:
        return set(self.lake.read(tables.LISTINGS, ~pl.col("is_deleted"))["listing_id"])

    def wrong_cluster(self) -> tuple[str, str, str]:
        """The smallest cluster of three or more with two products, a listing of the rarer one, and one of the other."""
        members = self.lake.read(tables.CLUSTERS).sort("size", "cluster_id", "listing_id")
        for (cluster_id,), own in members.group_by(["cluster_id"], maintain_order=True):
            ids = own["listing_id"].to_list()
            kinds = [self.product[one] for one in ids]
            if len(ids) > 2 and len(set(kinds)) > 1:
                rare = min(ids, key=lambda one: (kinds.count(self.product[one]), one))
                return str(cluster_id), rare, next(one for one in ids if self.product[one] != self.product[rare])
        raise AssertionError("this seed makes no wrong match")


def make(folders: pytest.TempPathFactory) -> Market:
    """The marketplace, with its first hour run. The seed is one whose first hour has wrong matches."""
    return _market(prepared(folders, "page", _first_hour))


def _first_hour(folder: Path) -> None:
    write(folder / "market", Marketplace(listings=160, hours=2, seed=11))
    _market(folder).run(HOURS[0])


def _market(folder: Path) -> Market:
    settings = load(home=folder / "home", landing=folder / "market" / "landing", decider={"review_at": REVIEW_AT})
    truth = pl.read_parquet(folder / "market" / "truth.parquet")
    return Market(settings, dict(truth.select("listing_id", "product_id").iter_rows()))


def identify(request: Request) -> Person:
    """Who the test says it is: `x-user: name` or `name:rights`, rights of `j` (judge) and `m` (manage)."""
    name, _, rights = request.headers.get("x-user", "ada:jm").partition(":")
    return Person(name, may_judge="j" in rights, may_manage="m" in rights)


def client(settings: Settings, user: str = "ada:jm") -> TestClient:
    """A browser that is logged in as `user`."""
    headers = {"x-user": user, "sec-fetch-site": "same-origin"}
    return TestClient(build(settings, identify), headers=headers, follow_redirects=False)
