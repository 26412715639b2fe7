"""The page behind Airflow's own login: who reads, who judges, and what another site can do with somebody's cookie."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from sosie import judgements, tables
from sosie.airflow.stack import _environment, _exported, _inherited
from sosie.lake import Lake
from sosie.settings import PROJECT, load

pytestmark = pytest.mark.airflow

ASK = """
import asyncio, html, json, httpx
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

app = create_app("core")
JUDGE = {"left": "a", "right": "b", "verdict": "same"}
OURS, THEIRS = {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
PAGES = ("review", "clusters", "runs", "models", "reports")

def token(role):
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role + "-person", role=role))

async def ask(role, seen):
    cookies = {} if role == "nobody" else {"_token": token(role)}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sosie", cookies=cookies) as browser:
        told = {"read": [(await browser.get("/sosie/" + page)).status_code for page in PAGES]}
        answer = await browser.post("/sosie/review/judge", data=JUDGE, headers=THEIRS)
        told["theirs"] = answer.status_code
        answer = await browser.post("/sosie/review/judge", data=JUDGE | {"seen": seen}, headers=OURS)
        told["ours"] = answer.status_code
        told["location"] = (await browser.get("/sosie/")).headers.get("location")
        page = (await browser.get("/sosie/review?left=a&right=b")).text
        _, _, rest = page.partition('name="seen" value="')
        return told, html.unescape(rest.split('"')[0]) if rest else seen

async def ask_all():
    told, seen = {}, ""
    for role in ("nobody", "viewer", "user", "op", "admin"):
        told[role], seen = await ask(role, seen)
    return told

print("TOLD" + json.dumps(asyncio.run(ask_all())))
"""


def test_roles_read_and_judge_as_airflow_says(tmp_path: Path) -> None:
    settings = load(home=tmp_path)
    lake = Lake(settings.lake_uri)
    rows = [
        dict.fromkeys(tables.LISTINGS.columns)
        | {"listing_id": one, "title": one, "updated_at": datetime.now(UTC), "is_deleted": False, "content_hash": one,
           "first_seen_run": "2026-01-05T00"}
        for one in "ab"
    ]  # fmt: skip
    lake.upsert(tables.LISTINGS, pl.DataFrame(rows, schema=tables.LISTINGS.schema))
    home = settings.home / "airflow"
    home.mkdir()
    environment = _inherited() | _environment(home, 8080, PROJECT / "dags") | _exported(settings)
    environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "False"

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    python("-m", "airflow", "db", "migrate")
    told = json.loads(python("-c", ASK).rpartition("TOLD")[2])
    assert told["nobody"] == {"read": [401] * 5, "theirs": 401, "ours": 401, "location": None}
    assert told["viewer"] == {"read": [200] * 5, "theirs": 403, "ours": 403, "location": "/sosie/review"}
    for role in ("user", "op", "admin"):
        assert told[role] == {"read": [200] * 5, "theirs": 403, "ours": 303, "location": "/sosie/review"}, role
    said = lake.read(tables.JUDGEMENTS).sort("when")["who"].to_list()
    assert said == ["user-person", "op-person", "admin-person"]
    assert judgements.active(lake).rows() == [("a", "b", "same")]


def test_an_hour_that_somebody_named_is_only_text() -> None:
    """Who triggers a run names its hour, and whoever opens the run's tab reads it."""
    from sosie.airflow.pages import _told

    page = bytes(_told("There is no report of hour <script>alert(1)</script> yet.").body).decode()
    assert "<script>" not in page
    assert "hour &lt;script&gt;" in page
