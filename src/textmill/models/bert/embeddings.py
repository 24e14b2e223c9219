"""Texts to vectors, with any model that offers `embed`: pieces put together in batches of like length. No files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch

from textmill.base.errors import UsageError
from textmill.models.families import FAMILIES, family_of
from textmill.tokens.opening import open_tokenizer
from textmill.tokens.tokenizer import Tokenizer

BATCH_TOKENS = 8192
"""Tokens read at once, padding included."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors of texts."""

    vectors: np.ndarray
    """float32 [texts, width]."""
    tokens: np.ndarray
    """int64 [texts], tokens that were read of each, those around it included."""
    cut: np.ndarray
    """int64 [texts], tokens left out at the end of each because the model reads no more at once."""


def embed_texts(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    pooling: Literal["mean", "cls"] = "mean",
    normalize: bool = True,
) -> Embeddings:
    """One vector for each text.

    Args:
        model: an encoder, or an encoder-decoder: whatever offers `embed(tokens, lengths, pooling, normalize)`, and in
            `around` the tokens that it wants before and after a text.
        tokenizer: the one that it was trained with.
        texts: of any length; what exceeds the model's context is left out, and counted.
        pooling: the mean over all tokens, or the vector of the first.
        normalize: to length 1.

    Raises:
        UsageError: the model is of a family without embeddings.
    """
    if not hasattr(model, "around"):
        _refuse(getattr(model, "family", type(model).__name__.lower()))
    before, after = model.around
    room = model.context + 1 - len(before) - len(after)
    pieces = [ids.astype(np.int64) for ids in tokenizer.encode_arrays(texts)]
    if any(len(ids) and int(ids.max()) >= model.vocabulary for ids in pieces):
        raise UsageError(
            "The model and the tokenizer do not belong together.",
            f"The tokenizer has {tokenizer.vocabulary} tokens, the model knows {model.vocabulary}.",
            "Take both from the same model folder.",
        )
    lengths = np.array([min(len(ids), room) + len(before) + len(after) for ids in pieces], dtype=np.int64)
    cut = np.array([max(0, len(ids) - room) for ids in pieces], dtype=np.int64)
    vectors = np.zeros((len(pieces), model.config.width), dtype=np.float32)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        part = order[start : start + max(1, BATCH_TOKENS // longest)]
        rows = np.full((len(part), longest), after[0], dtype=np.int64)
        for row, i in zip(rows, part, strict=True):
            row[: lengths[i]] = [*before, *pieces[i][:room], *after]
        found = model.embed(
            torch.from_numpy(rows).to(model.device),
            torch.from_numpy(lengths[part]).to(model.device),
            pooling=pooling,
            normalize=normalize,
        )
        vectors[part] = found.float().cpu().numpy()
        start += len(part)
    return Embeddings(vectors, lengths, cut)


def open_encoder(folder: Path, device: str | None = None) -> tuple[Any, Tokenizer]:
    """A model that gives embeddings, and its tokenizer.

    Args:
        folder: a model folder of Textmill, or one of Hugging Face with a BERT or a T5 in it.
        device: where to put the model; the GPU when there is one, else the CPU.

    Raises:
        UsageError: the model is of a family without embeddings.
    """
    from textmill.models.bert.files import import_bert, is_stock_folder
    from textmill.models.encoder_decoder.files import import_t5, is_t5_folder
    from textmill.models.load import load_model

    if is_stock_folder(folder):
        model: Any = import_bert(folder, device)
    elif is_t5_folder(folder):
        model = import_t5(folder, device)
    else:
        family = family_of(folder)
        if family in FAMILIES and not hasattr(FAMILIES[family].model_class(), "around"):
            _refuse(family)  # before a large model is read for nothing
        model = load_model(folder, device)
    tokenizer = open_tokenizer(str(folder))
    return model, tokenizer


def _refuse(family: str) -> NoReturn:
    raise UsageError(
        f"A model of the family {family} gives no embeddings.",
        "It predicts tokens, and holds no vector that stands for a whole text.",
        "Build an encoder: textmill build TEXTS --family bert",
    )
