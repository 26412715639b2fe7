"""One frozen object holds every setting: defaults here, overlaid by `params.yaml`, overlaid by the environment.

A setting `embedding.batch_size` is `SOSIE_EMBEDDING__BATCH_SIZE` in the environment.
"""

import json
import re
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SkipValidation,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from sosie.errors import ModelError, SettingsError
from sosie.places import place

PROJECT = Path(__file__).resolve().parents[2]

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
Share = Annotated[float, Field(ge=0, le=1)]


_NOT_IN_A_LAKE = re.compile(r"[\[\]\\\x00-\x1f]|%[0-9A-Fa-f]{2}")
"""What delta-rs can't make a URL of, or makes another one of."""


_STORES = ("abfs", "abfss", "az", "file", "gs", "memory", "s3", "s3a")
"""Schemes of stores that delta-rs and fsspec both know."""

_LIKE = 0.8
"""How much alike (`difflib`) a variable's name and a setting's are where the one is meant for the other."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Validation(Section):
    """When a row, a picture or a whole batch is refused."""

    max_bad_share: Share = 0.2
    min_rows_for_share: NonNegativeInt = 20
    max_title_length: PositiveInt = 500
    max_listing_id_bytes: int = Field(512, gt=0, le=512)  # what the index's key holds
    allow_extra_columns: bool = False
    max_clock_skew_minutes: NonNegativeInt = 10
    min_rows_of_median: Share = 0.1
    max_rows_of_median: float = Field(10.0, ge=1)
    median_over_runs: PositiveInt = 24
    # Of one feed's file, packed or unpacked. Reading CSV takes some ten times as much memory.
    max_file_bytes: PositiveInt = 2 * 2**30
    max_picture_pixels: PositiveInt = 40_000_000
    max_picture_bytes: PositiveInt = 20 * 2**20
    picture_timeout_seconds: PositiveFloat = 20.0
    # A host that leaves so many requests in a row unanswered, or is too busy for them, is asked no more in this hour.
    # More than the eight that are under way at once, so that one short outage is not enough.
    picture_host_failures: PositiveInt = 16
    # How long an hour may ask hosts and stores for pictures; what is left then counts as unreachable, and can be
    # replayed. A task has six hours for everything.
    picture_seconds: PositiveFloat = 10_800.0
    # Where else than below `pictures_root` a feed may name files and objects: folders, or beginnings of URLs as feeds
    # write them (`s3://bucket/pictures`). Links are followed before they are judged. None: wherever workers can read,
    # which is for feeds of one's own.
    picture_roots: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None

    @field_validator("picture_roots")
    @classmethod
    def _absolute(cls, roots: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if roots is None:
            return None
        if "" in roots:
            raise ValueError("an empty name; give a folder or the beginning of a URL")
        return tuple(root if "://" in root else str(place(root)) for root in roots)


class Embedding(Section):
    """`text` and `image` are the encoders in use: names of folders under `models`.

    `device` cuda needs `onnxruntime-gpu` in place of `onnxruntime`.
    """

    text: str = "text"
    image: str = "image"
    batch_size: PositiveInt = 32
    threads: NonNegativeInt = 0
    device: Literal["cpu", "cuda"] = "cpu"
    shard_size: PositiveInt = 20_000
    max_shards: PositiveInt = 16


class Blocking(Section):
    """Which pairs are worth a decision."""

    text_neighbours: NonNegativeInt = 40
    image_neighbours: NonNegativeInt = 20
    # Joined in process over all live titles; 0 leaves it out, where a catalogue is too large for that.
    lexical_neighbours: NonNegativeInt = 30
    # Joined in process over all perceptual hashes; 0 leaves it out.
    phash_neighbours: NonNegativeInt = 10
    min_text_similarity: Share = 0.35
    min_image_similarity: Share = 0.60
    min_lexical_similarity: Share = 0.20
    min_phash_similarity: Share = 0.89  # up to seven of 64 bits differ
    exact_key_limit: NonNegativeInt = 50
    candidates_per_listing: PositiveInt = 120
    # How many of a moved listing's nearest are asked whether it is now among *their* nearest.
    reverse_neighbours: NonNegativeInt = 400
    # So many more than the neighbours asked for, as a share of them, wait to move up where one of them leaves.
    spare_neighbours: Share = 0.25
    # A batch of more than this share of the catalogue is joined in process instead of asking the index. `None` is 0.05
    # with a Milvus of yours, and 0 with the embedded one, which reads all vectors for every batch, and more slowly.
    join_above_share: Share | None = None

    def joined(self, asking: int, catalogue: int, *, embedded: bool) -> bool:
        """Whether a batch is joined in process."""
        usual = 0.0 if embedded else 0.05
        return asking > (usual if self.join_above_share is None else self.join_above_share) * catalogue


class Decider(Section):
    """`model` is a folder under `models`. A pair is decided at these probabilities; `None` takes the fitted ones."""

    model: str = "decider"
    match_at: Share | None = None
    review_at: Share | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Decider":
        if self.match_at is not None and self.review_at is not None and self.review_at > self.match_at:
            raise ValueError(
                f"decider.review_at ({self.review_at}) is above decider.match_at ({self.match_at}); "
                "lower the first or raise the second"
            )
        return self


class Clusters(Section):
    max_size: int = Field(200, ge=2)
    # Two groups of listings join only if the mean probability over all pairs between them reaches this. Rows do best
    # between 0.25 and 0.35, of which the higher end joins less in error: `min_mean_link_curve` in the decider's card.
    min_mean_link: Share = 0.3


class Alerts(Section):
    """Where alerts go. What is alerted, and from where on, stands in `rules`, by default `alerts/rules.yaml`.

    `urls` are Apprise URLs that get everything, `pager_urls` get what is critical. `base_url` is Airflow's address as
    people reach it, `docs_url` that of this documentation: both go into links.
    """

    urls: tuple[str, ...] = ()
    pager_urls: tuple[str, ...] = ()
    console: bool = True
    rules: Path | None = None
    thresholds: dict[str, float] = {}
    base_url: str = ""
    docs_url: str = ""
    tries_at_once: PositiveInt = 3
    pause_seconds: NonNegativeFloat = 2.0
    max_attempts: PositiveInt = 12


class Metrics(Section):
    """Prometheus. Airflow serves `/sosie/metrics` to who sends `token` as a bearer token, and to nobody without one."""

    token: str | None = None
    cache_seconds: NonNegativeFloat = 60.0


class Report(Section):
    example_pairs: NonNegativeInt = 40


class Ray(Section):
    """How a rebuild spreads over a Ray cluster. `address` None starts one on this machine, for as long as it takes."""

    address: str | None = None
    partitions: PositiveInt = 64  # what is embedded is parted by content; one that is done stays done
    workers: PositiveInt = 2
    cpus_per_worker: NonNegativeFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0  # above 0 together with embedding.device cuda
    commit_listings: PositiveInt = 1_000_000  # vectors that go to the lake in one commit


class Rebuild(Section):
    """A second embedding version: how it is built, compared and kept."""

    engine: Engine = "local"  # where contents are embedded
    ray: Ray = Ray()
    chunk: PositiveInt = 5_000  # listings between two marks of progress
    follow_hours: NonNegativeFloat = 24.0  # how long hours go on writing the version that was live before
    wait_seconds: NonNegativeFloat = 3_600.0  # how long a step waits for a switch to end, and a switch for steps
    compare_listings: PositiveInt = 1_000
    compare_pairs: PositiveInt = 10_000
    compare_neighbours: PositiveInt = 10


class Gate(Section):
    """When trained models may take the place of the live ones: no dataset worse by more than so many standard errors
    of its F1."""

    errors: NonNegativeFloat = 1.0


class Review(Section):
    """What people are asked. Of the queue, `learning_share` are pairs that a decider learns most from and
    `random_share` are drawn from those that it is sure of, half of them matches, so that it can be measured."""

    learning_share: Share = 0.2
    random_share: Share = 0.05

    @model_validator(mode="after")
    def _within(self) -> "Review":
        if self.learning_share + self.random_share > 0.9:
            raise ValueError("review.learning_share and review.random_share leave less than a tenth to the queue")
        return self


class Upkeep(Section):
    """What `dedup_upkeep` keeps, and for how long. `None` is forever."""

    retention_hours: NonNegativeInt = 168  # how far back Delta's time travel reaches
    grace_hours: NonNegativeFloat = 168.0  # an old version's collection after its last use
    vectors_days: NonNegativeFloat | None = None  # an old version's vectors in the lake after its last use
    history_days: NonNegativeFloat | None = None  # superseded vectors, decisions and pictures, all of deleted listings
    staging_hours: NonNegativeFloat = 48.0  # what steps handed on
    records_days: NonNegativeFloat = 30.0  # change sets of finished hours, records of their steps


class Environment(EnvSettingsSource):
    """Environment variables. One that should be JSON and isn't stays text, which validation refuses by its name."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value

    def __call__(self) -> dict[str, Any]:
        """Also what is set in a section that there is not, or under a name like one of ours, so that it is refused and
        not ignored. Other names are those of DAGs, compose files and tests."""
        fields = self.settings_cls.model_fields
        sections = tuple(f"{name}__" for name, field in fields.items() if isinstance(field.default, Section))
        set_here = (name.removeprefix("sosie_") for name in self.env_vars if name.startswith("sosie_"))
        stray = (
            name
            for name in set_here
            if not name.startswith(sections)
            and name not in fields
            and ("__" in name or get_close_matches(name, fields, 1, _LIKE))
        )
        return super().__call__() | dict.fromkeys(stray, "")


class Settings(BaseSettings):
    """Everything that can be set. Paths that are left out live under `home`."""

    model_config = SettingsConfigDict(
        env_prefix="SOSIE_",
        env_nested_delimiter="__",
        env_parse_none_str="null",
        frozen=True,
        extra="forbid",
        yaml_file=PROJECT / "params.yaml",
    )

    home: Path = PROJECT / "var"
    lake_uri: str = ""
    landing: Path = Path()
    pictures_root: str = ""
    reports: SkipValidation[Path] = Path()  # a folder, or an object store's URI
    models: Path = Path()
    models_pinned: bool = False  # not to be set: whether `models` was, so that they are used whatever is promoted
    feature_repo: Path = PROJECT / "feature_repo"
    repository: Path = PROJECT  # the checkout that training runs `dvc` in
    run_lock_seconds: NonNegativeFloat = 600.0  # how long a run waits for another one of the same home
    milvus_uri: str | None = None
    milvus_token: str | None = None
    milvus_timeout_seconds: PositiveFloat = 30.0
    # How collections are indexed (`index/profiles.py`); `None` goes by their size.
    milvus_profile: Literal["exact", "compressed", "large", "graph"] | None = None

    validation: Validation = Validation()
    embedding: Embedding = Embedding()
    blocking: Blocking = Blocking()
    decider: Decider = Decider()
    clusters: Clusters = Clusters()
    alerts: Alerts = Alerts()
    metrics: Metrics = Metrics()
    report: Report = Report()
    review: Review = Review()
    gate: Gate = Gate()
    rebuild: Rebuild = Rebuild()
    upkeep: Upkeep = Upkeep()

    def encoder(self, modality: str) -> Path:
        """Folder of the encoder in use for "text" or "image"."""
        return {"text": self.text_model, "image": self.image_model}[modality]

    @property
    def text_model(self) -> Path:
        return self.models / self.embedding.text

    @property
    def image_model(self) -> Path:
        return self.models / self.embedding.image

    @property
    def decider_model(self) -> Path:
        return self.models / self.decider.model

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: dict[str, object]) -> dict[str, object]:
        """Fill what hangs on `home`, so that one variable moves everything; relative paths become absolute."""
        values = {key: value for key, value in values.items() if key != "training"}  # knobs of training, not ours
        home = Path(str(values.get("home") or PROJECT / "var")).expanduser().resolve()
        values["home"] = home
        values["landing"] = Path(str(values.get("landing") or home / "landing")).expanduser().resolve()
        values["reports"] = values.get("reports") or home / "reports"
        given = values.get("models")
        values["models"] = Path(str(given)).expanduser().resolve() if given else live_models(home)
        values["models_pinned"] = bool(given)
        values["lake_uri"] = values.get("lake_uri") or str(home / "lake")
        values["pictures_root"] = values.get("pictures_root") or str(values["landing"])
        return values

    @field_validator("reports", mode="before")
    @classmethod
    def _placed(cls, folder: object) -> Path:
        return place(str(folder))

    @field_validator("lake_uri")
    @classmethod
    def _can_hold_tables(cls, uri: str) -> str:
        scheme, separator, _ = uri.partition("://")
        scheme = scheme.lower()
        if not separator and (found := _NOT_IN_A_LAKE.search(uri)):
            raise ValueError(f"{uri} has {found[0]!r} in it, which Delta tables can't lie below; move it, or the home")
        if separator and scheme not in _STORES:
            raise ValueError(f"{uri} is in no store that is known; give a folder, or a URI of {', '.join(_STORES)}")
        if separator and (missing := _lacking_client(scheme)):
            raise ValueError(f"{uri} needs the package {missing} beside Sosie; install it")
        return uri

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls), YamlConfigSettingsSource(settings_cls)


def live_models(home: Path) -> Path:
    """The models that were promoted under `home` (see `sosie.registry`), else those that came with the repository."""
    promoted = live_pointer(home).get("id")
    return home / "registry" / str(promoted) if promoted else PROJECT / "models"


def live_pointer(home: Path) -> dict[str, Any]:
    """What `registry/live.json` says: id, moves and versions; empty where there is none. Raises `ModelError`."""
    file = home / "registry" / "live.json"
    if not file.exists():
        return {}
    try:
        held = json.loads(file.read_bytes())
    except ValueError:  # JSON, or the bytes of its text
        held = None
    moves = held.get("moves") if isinstance(held, dict) else None
    if held is None or "id" not in held or not isinstance(moves, list) or not all(isinstance(m, dict) for m in moves):
        raise ModelError(
            f"{file} is damaged, so nobody knows which models are live. Restore it from a backup, or remove it to "
            "serve the models that came with the repository, and promote again."
        )
    return dict(held)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. Raises `SettingsError` naming each bad setting and its variable."""
    return load()


def load(**overrides: object) -> Settings:
    """Settings with some values given in code. Raises `SettingsError`."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(_told(fault["loc"], fault["msg"].removeprefix("Value error, ")) for fault in error.errors())
        raise SettingsError(
            f"Settings can't be used: {faults}. Mend params.yaml or the environment, where lists and mappings are JSON."
        ) from None


def _lacking_client(scheme: str) -> str | None:
    """The package by which fsspec reaches a store, where it is not installed."""
    from fsspec.registry import known_implementations

    known = {"abfss": "abfs"}.get(scheme, scheme)  # which its client alone registers
    package = str(known_implementations[known]["class"]).partition(".")[0]
    return None if find_spec(package) else package


def _told(where: tuple[int | str, ...], message: str) -> str:
    """One fault of the settings, with the variable that it may come from, and what that may have meant to be."""
    if not where:
        return f"settings: {message}"
    names = [str(name) for name in where]
    meant = [] if names[0] in Settings.model_fields else get_close_matches(names[0], Settings.model_fields, 1, _LIKE)
    hint = f"; perhaps SOSIE_{meant[0].upper()} is meant" if meant else ""
    return f"{'.'.join(names)}: {message} (environment: SOSIE_{'__'.join(names).upper()}{hint})"
