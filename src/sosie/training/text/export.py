"""The trained title encoders, each with its reduction, as models that are served."""

import shutil

from sosie.training import reduction
from sosie.training.profile import Profile
from sosie.training.text import encoders, served
from sosie.training.text.titles import Titles


def export(profile: Profile) -> None:
    """Write work/models/text-<encoder> for both, and work/models/text, a copy of the one that is to be used."""
    seen, unseen = Titles.read(profile.data("encoder")), Titles.read(profile.data("decider"))
    for name in encoders.NAMES:
        head = reduction.chosen(profile, f"text-{name}")
        served.write(profile, name, head, seen, unseen, profile.models / f"text-{name}")
    out = profile.models / "text"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(profile.models / f"text-{profile.text.encoder}", out)
