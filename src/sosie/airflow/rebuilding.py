"""What the tasks of `dedup_rebuild` do. As `bridge`, it imports a step's libraries where a task runs it."""

import logging

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

log = logging.getLogger(__name__)

PARAMS = {
    "models": Param(
        None,
        type=["null", "string"],
        title="Models",
        description="An id that `sosie models` lists, or `packaged` for those that came with the repository.",
    ),
    "promote": Param(
        "never",
        type="string",
        enum=["never", "without_concerns", "always"],
        title="Promote",
        description="Whether to switch to the new version at the end without a person looking at the comparison.",
    ),
}


def build(models: str | None) -> dict[str, int]:
    """Embed and load the catalogue under these models. Returns the counts."""
    from sosie import rebuild
    from sosie.errors import SettingsError
    from sosie.settings import settings

    if not models:
        raise SettingsError("Trigger with `models` = an id that `sosie models` lists, or `packaged`.")
    return dict(rebuild.build(settings(), rebuild.Target.of(settings(), models)))


def compare(models: str) -> list[str]:
    """Write the comparison; returns what speaks against the new version, a sentence each."""
    from sosie import rebuild
    from sosie.rebuild.comparison import folder
    from sosie.settings import settings

    target = rebuild.Target.of(settings(), models)
    concerns: list[str] = rebuild.compare(settings(), target)["concerns"]
    for concern in concerns:
        log.warning("%s", concern)
    log.info("The comparison is in %s.", folder(settings(), target) / "index.html")
    return concerns


def promote(models: str, when: str, who: str, *, concerns: list[str]) -> dict[str, int]:
    """Switch where that was asked for. Raises `TerminalError` where the models never passed the gate."""
    from sosie import rebuild, registry
    from sosie.errors import TerminalError
    from sosie.settings import settings

    if when == "never":
        raise AirflowSkipException(f"Nobody asked for it. `sosie promote {models}` does it by hand.")
    if when == "without_concerns" and concerns:
        raise AirflowSkipException(f"{len(concerns)} concerns: {' '.join(concerns)}")
    if models == rebuild.PACKAGED:
        raise TerminalError("Only a candidate is promoted; `sosie rollback` goes back to the packaged models.")
    counts = registry.promote(settings(), models, who)
    log.info("%s is live from now on: %s", models, counts)
    return counts
