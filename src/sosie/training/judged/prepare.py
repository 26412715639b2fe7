"""Stage `judgements`: part the pinned export into judgements to learn from and judgements that are held back.

    data/judged/learn   for the decider, beside the datasets of its own part
    data/judged/held    what only the evaluation reads

Groups are parted, not pairs: whatever a chain of judgements or clusters connects is on one side, so that no product is
on both. Where no export is pinned both are empty, and nothing is learnt from them.
"""

import shutil
from pathlib import Path

import structlog

from sosie.pictures import Thumbnails
from sosie.settings import PROJECT
from sosie.training.judged.data import PICTURES, Judged
from sosie.training.judged.groups import parted
from sosie.training.judged.pin import read_pinned
from sosie.training.profile import Profile, stage

log = structlog.get_logger()


def main(profile: Profile) -> None:
    """Write both parts anew."""
    part(profile, PROJECT)


def part(profile: Profile, repository: Path) -> None:
    """Part what is pinned in a repository. Raises `DatasetError`."""
    judged, source = read_pinned(repository)
    for name, pairs in parted(judged.pairs, profile.judgements.held_back).items():
        out = profile.judged(name)
        shutil.rmtree(out, ignore_errors=True)
        own: Judged = judged.of(pairs)
        own.write(out)
        held = Thumbnails(str(source / PICTURES)) if source else None
        for image_hash in own.listings["image_hash"].drop_nulls().unique():
            if held and held.has(image_hash):
                file = out / PICTURES / held.path(image_hash)
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(f"{held.uri}/{held.path(image_hash)}", file)
        log.info("parted", part=name, judgements=pairs.height, groups=pairs["group"].n_unique())


if __name__ == "__main__":
    stage(main, __doc__)
