"""Stage `cross_text`: a title encoder that learned from the decider's part, for vectors of the encoders' part.

The decider has to learn from cosines as they are of listings whose groups the encoder never learned, so with `bert`
alone it could not learn from the encoders' part, which is the larger one. The encoder of this stage starts where `bert`
did (with the vocabulary of the encoders' titles, which tells nothing of groups) and learned from the groups of the
decider's part: by its vectors the two parts change places (cross-fitting, Chernozhukov et al. 2018, arXiv:1608.00060),
and the decider learns from both. It serves nothing else.
"""

import structlog
import torch

from sosie.training.profile import Profile, stage
from sosie.training.text import base, encoders, served
from sosie.training.text.pretrain import base_vectors, tokenised
from sosie.training.text.titles import Titles
from sosie.training.text.train import train_bert

log = structlog.get_logger()

NAME = "crossed"


def main(profile: Profile) -> None:
    """Write work/text/crossed: weights and the model folder; neither where the decider wants none of it."""
    if not profile.text.crossed.datasets:
        log.info("no dataset is crossed: nothing to train")
        return
    if profile.text.threads:
        torch.set_num_threads(profile.text.threads)
    out = encoders.folder(profile, NAME)
    out.mkdir(parents=True, exist_ok=True)
    seen, unseen = Titles.read(profile.data("decider")), Titles.read(profile.data("encoder"))
    bert, pieces = base.load(profile.text.base)
    sentences = base_vectors(bert, tokenised(pieces, seen.texts, profile.text.max_tokens), out)
    metric = profile.text.metric.model_copy(update=profile.text.crossed.model_dump(exclude={"datasets"}))
    profile = profile.model_copy(update={"text": profile.text.model_copy(update={"metric": metric})})
    train_bert(profile, NAME, seen, sentences)
    served.write(profile, NAME, encoders.head(profile, NAME), seen, unseen, profile.crossed_text)


if __name__ == "__main__":
    stage(main, __doc__)
