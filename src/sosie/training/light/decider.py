"""Stage `train_light_decider`: the decider by the recipe of `train_decider`, on the static encoder's vectors."""

from sosie.training.decider.train import Encoders, read_judged, read_pools, train
from sosie.training.profile import Profile, stage


def main(profile: Profile) -> None:
    """Write work/models/light/decider."""
    encoders = Encoders(profile.light_models / "text", profile.light_crossed_text, profile.models / "image")
    pools, vocabulary = read_pools(profile, encoders)
    judged = read_judged(profile, encoders, vocabulary)
    train(profile, [*pools, *judged], vocabulary, profile.light_models / "decider")


if __name__ == "__main__":
    stage(main, __doc__)
