"""Stage `export`: the trained encoders as models that are served, checked against what was trained."""

from sosie.training.image import export as image
from sosie.training.profile import Profile, stage
from sosie.training.text import export as text


def main(profile: Profile) -> None:
    text.export(profile)
    image.export(profile)


if __name__ == "__main__":
    stage(main, __doc__)
