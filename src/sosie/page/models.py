"""Models told, and moved: what is live, what waits, how each measured, and promotions that outlast a request."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import structlog

from sosie import registry
from sosie.artifacts import CARD
from sosie.decider.model import CALIBRATION, Calibration
from sosie.errors import ModelError, SosieError
from sosie.locks import is_held
from sosie.page.people import Refused
from sosie.page.store import Store
from sosie.places import write_atomically
from sosie.settings import PROJECT

log = structlog.get_logger(__name__)

SHIPPED = "shipped"
"""What the models that came with the repository go by here."""

FIGURES = {"row_f1": "F1", "row_precision": "Precision", "row_recall": "Recall", "bcubed_f1": "B-cubed F1"}


def figure(of: Mapping[str, float | None], name: str) -> float | None:
    """A figure of `FIGURES` by rows, or by pairs where the dataset is labelled pairs."""
    by_rows = of.get(name)
    return of.get(name.removeprefix("row_")) if by_rows is None else by_rows


@dataclass(frozen=True)
class Told:
    """A set of models. `candidate` is None for those that came with the repository."""

    id: str
    state: str
    versions: Mapping[str, str]
    candidate: registry.Candidate | None
    calibration: "Curve | None"
    errors: Mapping[str, float]
    """Dataset → expected calibration error of the decider, out of fold, as its card tells."""


@dataclass(frozen=True)
class Curve:
    """Calibration: raw score → probability, as points of an SVG polyline in a unit square of `SIDE` pixels."""

    points: str
    match_at: float | None
    review_at: float | None


SIDE = 160


def told(store: Store) -> list[Told]:
    """All models, the live ones first, then candidates from new to old, then the rest."""
    settings = store.settings
    live = registry.live_id(settings)
    found = [_told(registry.folder(settings, one.id), one.id, registry.state(settings, one), one)
             for one in registry.candidates(settings)]  # fmt: skip
    found.append(_told(PROJECT / "models", SHIPPED, "live" if live is None else "retired", None))
    rank = {"live": 0, "candidate": 1, "rejected": 2, "retired": 3}
    found.reverse()
    return sorted(found, key=lambda one: rank[one.state])


def _told(folder: Path, id_: str, state: str, candidate: registry.Candidate | None) -> Told:
    about, usage = _card(folder)
    errors = {
        name.split(" ", 1)[-1]: float(own["both"]["calibration_error"])
        for name, own in (about.get("out_of_fold") or {}).items()
        if isinstance(own, dict) and "calibration_error" in (own.get("both") or {})
    }
    try:
        versions = candidate.versions if candidate else registry.versions_of(folder)
    except ModelError as error:
        log.warning("A model can't be read", folder=str(folder), error=str(error))
        versions = {}
    return Told(id_, state, versions, candidate, _curve(folder, usage), errors)


def _card(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        card = json.loads((folder / "decider" / CARD).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}, {}
    return card.get("about", {}), card.get("usage", {})


def _curve(folder: Path, usage: Mapping[str, Any]) -> Curve | None:
    file = folder / "decider" / CALIBRATION
    if not file.is_file():
        return None
    with np.load(file) as held:
        calibration = Calibration(held["raw"], held["probability"])
    raw = np.linspace(0, 1, 81)
    points = zip(raw, calibration.apply(raw), strict=True)
    return Curve(
        " ".join(f"{SIDE * x:.1f},{SIDE * (1 - y):.1f}" for x, y in points),
        usage.get("match_at"),
        usage.get("review_at"),
    )


@dataclass(frozen=True)
class Job:
    """The last promotion or rollback that was asked for here: state is running, done or failed."""

    what: str
    who: str
    state: str
    message: str = ""


class Mover:
    """Moves models one at a time, in a thread: embedding a catalogue anew outlasts any request.

    Its state is a file, so that every API server process tells the same. Where the process dies the old models stay
    live, and asking again goes on from what was embedded.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._file = store.settings.home / "page" / "models.json"
        self._lock = Lock()
        self.thread: Thread | None = None

    @property
    def job(self) -> Job | None:
        job = Job(**json.loads(self._file.read_text())) if self._file.is_file() else None
        mine = self.thread is not None and self.thread.is_alive()
        lock = self._store.settings.home / "registry" / "lock"  # held by whoever moves models
        if job and job.state == "running" and not mine and not is_held(lock):
            return Job(job.what, job.who, "failed", "The server was stopped meanwhile; ask again, nothing is lost.")
        return job

    def promote(self, id_: str, who: str, *, despite_gate: bool) -> None:
        found = registry.find(self._store.settings, id_)
        if not found.gate.passed and not despite_gate:
            raise Refused(409, f"{id_} did not pass the gate; promote it only by saying so on its page.", "/models")
        self._start(f"Promotion of {id_}", who, lambda: registry.promote(
            self._store.settings, id_, who, despite_gate=despite_gate))  # fmt: skip

    def rollback(self, who: str) -> None:
        self._start("Rollback", who, lambda: registry.rollback(self._store.settings, who))

    def _start(self, what: str, who: str, move: Callable[[], object]) -> None:
        with self._lock:
            now = self.job
            if now is not None and now.state == "running":
                raise Refused(409, f"{now.what} by {now.who} is under way; wait for its end.", "/models")
            self._note(Job(what, who, "running"))
            self.thread = Thread(target=self._run, args=(what, who, move), name="sosie-models", daemon=True)
            self.thread.start()

    def _run(self, what: str, who: str, move: Callable[[], object]) -> None:
        try:
            move()
        except SosieError as error:
            self._note(Job(what, who, "failed", str(error)))
        except Exception as error:
            self._note(Job(what, who, "failed", f"Unexpected {type(error).__name__}; the server's log has its trace."))
            raise
        else:
            self._note(Job(what, who, "done", "Whatever starts from now on uses them."))

    def _note(self, job: Job) -> None:
        write_atomically(self._file, json.dumps(job.__dict__).encode())
