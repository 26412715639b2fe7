"""Entry point of Feast's own command line: the objects of `views.py` for the settings of this process."""

import os
from pathlib import Path

from views import build

from sosie.errors import SettingsError
from sosie.features.versions import versions
from sosie.lake import Lake
from sosie.settings import settings
from sosie.tables import DECISIONS, EMBEDDINGS

if Path(os.environ.get("SOSIE_HOME", "")).expanduser().resolve() != settings().home:
    raise SettingsError(
        "Feast's command line needs SOSIE_HOME in the environment, equal to the home in the settings. "
        f"Run `SOSIE_HOME={settings().home} feast -c feature_repo …`."
    )

_lake = Lake(settings().lake_uri)
_lake.create([*EMBEDDINGS.values(), DECISIONS])
for _one in build(_lake, versions(settings())):
    globals()[f"{type(_one).__name__}_{_one.name}"] = _one
