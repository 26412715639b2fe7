"""A trained title encoder as the model folder that is served: int8 graph, tokenizer, card, held to its weights."""

import shutil
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
import torch

from sosie import artifacts
from sosie.embedding.text import GRAPH, KIND, TOKENIZER, TextEncoder, run_sorted, session_of, tokens_of
from sosie.tables import DIM
from sosie.training.profile import Profile
from sosie.training.quantise import held_to_parity, quantise
from sosie.training.text import base, encoders, graph, measure
from sosie.training.text.titles import Titles

log = structlog.get_logger()

_BATCH = 32


def write(profile: Profile, name: str, head: npt.NDArray[np.float32], seen: Titles, unseen: Titles, out: Path) -> None:
    """The encoder in work/text/<name> with its reduction as the model folder `out`, held to parity.

    `head` is float32 [128, width]; `seen` are the titles that it learned from, `unseen` those it is measured on.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    scratch = profile.work / "scratch" / "export"
    scratch.mkdir(parents=True, exist_ok=True)
    trunk, small, exact = (scratch / f"{name}-{kind}.onnx" for kind in ("trunk", "int8", "exact"))
    model = encoders.load(profile, name)
    graph.export_pooled(model, trunk)
    quantise(trunk, small)
    graph.attach_head(small, head, out / GRAPH)
    graph.attach_head(trunk, head, exact)
    files = [GRAPH]
    if name != "character_bert":
        shutil.copyfile(encoders.tokenizer_file(profile), out / TOKENIZER)
        files.append(TOKENIZER)
    usage = {
        "max_tokens": profile.text.max_tokens,
        "dim": DIM,
        "reads": "characters" if name == "character_bert" else "pieces",
        "text": "clean_title(title)",
    }
    artifact = artifacts.save(out, KIND, files, usage, {})
    serving = TextEncoder.load(out)
    about: dict[str, object] = {
        "base": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)"
        if profile.text.base == base.PACKAGED
        else profile.text.base,
        "recipe": profile.text.model_dump(exclude={"threads", "encoder", "crossed"}),
        "seed": profile.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_on": {
            corpus: {"titles": len(mine := seen.of(corpus)), "groups": len(np.unique(mine.groups))}
            for corpus in sorted(set(seen.corpora))
        },
        "unseen_groups": measure.compared(unseen, serving.encode(unseen.texts, _BATCH)),
        "parity": held_to_parity(name, _parity(serving, exact, artifact, unseen.texts[:: max(1, len(unseen) // 500)])),
        "titles_per_cpu_second": _speed(profile, name, out, unseen.texts[:: max(1, len(unseen) // 300)]),
        "limits": "Titles of the corpora named above, in Indonesian, English and Malay; other languages were not seen. "
        "Two sizes or colours of one product lie close together: telling them apart is the decider's part.",
    }
    artifact = artifacts.save(out, KIND, files, usage, about)
    log.info("exported", encoder=name, version=artifact.version, bytes=(out / GRAPH).stat().st_size)


def _parity(serving: TextEncoder, exact: Path, artifact: artifacts.Artifact, titles: list[str]) -> dict[str, float]:
    """Cosines of the served vectors to the float32 graph's, and to themselves when a title is encoded alone."""
    shipped = serving.encode(titles, _BATCH)
    wanted = run_sorted(session_of(exact, 0), tokens_of(artifact)(titles), _BATCH, DIM)
    cosines = (shipped * wanted).sum(1)
    alone = (shipped[:64] * serving.encode(titles[:64], 1)).sum(1)
    return {
        "titles": len(titles),
        "cosine_mean": round(float(cosines.mean()), 4),
        "cosine_min": round(float(cosines.min()), 4),
        "alone_against_batch_min": round(float(alone.min()), 4),
    }


def _speed(profile: Profile, name: str, out: Path, titles: list[str]) -> dict[str, float]:
    """Titles per second of CPU time on one thread in batches of 32: as served, and in torch on the same weights."""
    serving, model = TextEncoder.load(out, threads=1), encoders.load(profile, name)
    encoded = encoders.tokeniser(profile, name)(titles)
    in_order = [np.arange(start, min(start + _BATCH, len(titles))) for start in range(0, len(titles), _BATCH)]

    def plain() -> None:
        with torch.inference_mode():
            for rows in in_order:
                model(*encoded.padded(rows))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = {}
    for kind, run in (("onnx_int8", lambda: serving.encode(titles, _BATCH)), ("torch_float32", plain)):
        run()  # warm
        started = time.process_time()
        run()
        rates[kind] = round(len(titles) / (time.process_time() - started), 1)
    torch.set_num_threads(threads)
    return rates
