"""Stage `train_text`: metric learning of both text encoders, so that titles of one product lie together.

`bert` goes on from the pretrained weights. `character_bert` takes over its transformer: the character CNN first learns
to spell the embeddings that each word had in it (`spelling`), then the whole learns to give the vectors that `bert`
gives (distillation, Hinton et al. 2015, arXiv:1503.02531), and then from the groups as `bert` did.
"""

import json
import math
from pathlib import Path

import numpy as np
import structlog
import torch
from torch import nn

from sosie.tables import DIM
from sosie.training.checkpoints import Checkpoint, write_metrics
from sosie.training.profile import Profile, stage
from sosie.training.schedule import shuffled, warm_then_cosine
from sosie.training.text import encoders, spelling
from sosie.training.text.encoders import WEIGHTS
from sosie.training.text.metric import History, learn
from sosie.training.text.model import Encoded, TitleEncoder, encode
from sosie.training.text.pretrain import SENTENCES
from sosie.training.text.titles import Titles

log = structlog.get_logger()

DISTILLED = "distilled.pt"
_LOG_EVERY = 25


def main(profile: Profile) -> None:
    if profile.text.threads:
        torch.set_num_threads(profile.text.threads)
    titles = Titles.read(profile.data("encoder"))
    sentences = np.load(profile.work / "text" / "pretrained" / SENTENCES)
    train_bert(profile, "bert", titles, sentences)
    train_character_bert(profile, titles)


def train_bert(profile: Profile, name: str, titles: Titles, sentences: np.ndarray) -> None:
    """Write work/text/<name>: weights, and the history of their loss.

    `sentences` float32 [titles, width] of unit length are the base's mean vectors of the titles.
    """
    out = encoders.folder(profile, name)
    if (out / WEIGHTS).exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(profile.seed)
    model = encoders.fresh_bert(profile)
    start = _leading_components(sentences)
    with torch.no_grad():
        # The first vectors are the leading components of the mean over tokens, which the base was trained for.
        model.head.weight.mul_(0.1)
        model.head.weight[:, : sentences.shape[1]] = torch.from_numpy(start)
    first = sentences @ start.T
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    tokens = encoders.tokeniser(profile, "bert")
    history = learn(model, tokens(titles.texts), titles, first, profile.text.metric, profile.seed, out)
    _finish(model, history, out)


def train_character_bert(profile: Profile, titles: Titles) -> None:
    """Write work/text/character_bert likewise."""
    out = profile.work / "text" / "character_bert"
    if (out / WEIGHTS).exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(profile.seed)
    teacher, knobs = encoders.load(profile, "bert"), profile.text.character
    taught = encoders.vectors(teacher, encoders.tokeniser(profile, "bert")(titles.texts))
    model, characters = encoders.fresh_character_bert(profile)
    encoded = encoders.tokeniser(profile, "character_bert")(titles.texts)
    if not (out / DISTILLED).exists():
        words = spelling.taught_words(titles.texts, encoders.pieces(profile), teacher.bert.get_input_embeddings())
        spelling.learn(characters, words, knobs.spelling_epochs, profile.seed)
    distil(model, encoded, taught, knobs.distil_epochs, knobs.distil_rate, profile, out)
    metric = profile.text.metric.model_copy(update={"epochs": knobs.metric_epochs})
    history = learn(model, encoded, titles, taught[1], metric, profile.seed, out)
    _finish(model, history, out)


def distil(
    model: TitleEncoder,
    encoded: Encoded,
    taught: tuple[np.ndarray, np.ndarray],
    epochs: float,
    rate: float,
    profile: Profile,
    out: Path,
) -> None:
    """Bring what `model` gives near to what the teacher gave: `taught` is (pooled [n, 2 · width], vectors [n, 128]).

    Takes up a checkpoint in `out`. The distance that is logged is of the vectors: 1 - cosine.
    """
    batch = profile.text.metric.batch
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    checkpoint = Checkpoint(out / DISTILLED, model=model, optimiser=optimiser)
    order = shuffled(len(encoded), epochs, profile.seed)
    steps = math.ceil(len(order) / batch)
    model.train()
    distances: list[float] = []
    for step in range(checkpoint.resume().get("step", 0), steps):
        optimiser.param_groups[0]["lr"] = rate * warm_then_cosine(step / steps, profile.text.metric.warmup)
        rows = order[step * batch : (step + 1) * batch]
        given = encode(model, encoded, rows)
        pooled, vector = (
            1 - (mine * torch.from_numpy(theirs[rows])).sum(1).mean()
            for mine, theirs in zip(given, taught, strict=True)
        )
        optimiser.zero_grad()
        (pooled + vector).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        distances.append(vector.item())
        if (step + 1) % _LOG_EVERY == 0 or step + 1 == steps:
            log.info("distilled", step=step + 1, of=steps, distance=round(float(np.mean(distances)), 4))
            checkpoint.save(step=step + 1)
            distances = []


def _leading_components(rows: np.ndarray) -> np.ndarray:
    """float32 [128, width]: leading eigenvectors of the second-moment matrix; keeps cosines better than centring."""
    _, vectors = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIM].T, dtype=np.float32)


def _finish(model: TitleEncoder, history: History, out: Path) -> None:
    """The weights go last: they say that the encoder is done."""
    (out / "history.json").write_text(json.dumps(history))
    write_metrics(out, history[-1] if history else {})
    torch.save(model.state_dict(), out / WEIGHTS)
    for checkpoint in ("last.pt", DISTILLED):
        (out / checkpoint).unlink(missing_ok=True)


if __name__ == "__main__":
    stage(main, __doc__)
