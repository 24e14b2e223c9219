"""The tokens stage: shards of every split, deterministic, bounded, redone only when something changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from textmill.base.errors import Failure, UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.tokens import build
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.reading import Group, measure_splits, sample_texts
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer
from textmill.tokens.vocabulary import LARGEST, SMALLEST, choose_vocabulary

MakeCorpus = Callable[..., Run]
QUIET = Progress("quiet")
NAMES = ("train", "validation", "test")


@pytest.fixture
def documents(speeches: list[str]) -> list[tuple[str, str]]:
    """Speeches and short texts over the three splits."""
    split = {0: "validation", 1: "test"}
    texts = [*speeches, "天下大势，分久必合。🙂", "NUL \0 and <|end|> in a text", "x"]
    return [(text, split.get(i % 6, "train")) for i, text in enumerate(texts)]


def test_every_document_is_in_its_split_whole_and_in_order(
    make_corpus: MakeCorpus, documents: list[tuple[str, str]]
) -> None:
    run = make_corpus(documents)
    index = tokenize_corpus(run, TokenizerConfig(shard_tokens=20_000), QUIET)
    tokenizer = Tokenizer.load(run / "tokens")
    assert index == json.loads((run / "tokens" / "index.json").read_text())
    assert index["vocabulary"] == tokenizer.vocabulary
    assert index["special"] == tokenizer.special
    assert len(index["splits"]["train"]["shards"]) > 1
    for name in NAMES:
        texts = [text for text, split in documents if split == name]
        shards = Shards(run / "tokens", name)
        assert [tokenizer.decode(shards.document(i)) for i in range(shards.documents)] == texts
        assert all(shards.document(i)[-1] == tokenizer.document_end for i in range(shards.documents))
        assert shards.bytes == sum(len(text.encode()) for text in texts)
        assert shards.bytes == int(tokenizer.byte_lengths[shards.read(0, shards.tokens)].sum())


def test_the_tokenizer_learns_from_the_training_split_alone(
    make_corpus: MakeCorpus, documents: list[tuple[str, str]]
) -> None:
    secret = ("zyzzyva quokka axolotl " * 500, "validation")
    plain = make_corpus(documents, "plain")
    other = make_corpus([*documents, secret], "other")
    for run in (plain, other):
        tokenize_corpus(run, TokenizerConfig(), QUIET)
    assert (plain / "tokens/tokenizer.json").read_bytes() == (other / "tokens/tokenizer.json").read_bytes()


def test_two_builds_are_byte_identical_whatever_the_number_of_threads(
    make_corpus: MakeCorpus, documents: list[tuple[str, str]]
) -> None:
    here = make_corpus(documents, "here")
    config = TokenizerConfig(shard_tokens=30_000, sample_bytes=150_000)
    tokenize_corpus(here, config, QUIET)
    there = make_corpus(documents, "there")
    code = (
        "import sys; from textmill.base.run import Run; from textmill.base.progress import Progress;"
        "from textmill.tokens.build import tokenize_corpus;"
        "from textmill.tokens.config import TokenizerConfig;"
        "tokenize_corpus(Run.open(sys.argv[1]), TokenizerConfig(shard_tokens=30_000, sample_bytes=150_000),"
        " Progress('quiet'))"
    )
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(there.path)], check=True, env=environment)
    names = sorted(path.name for path in (here / "tokens").iterdir())
    assert names == sorted(path.name for path in (there / "tokens").iterdir())
    for name in names:
        if name != "stage.json":  # it holds the time of day
            assert (here / "tokens" / name).read_bytes() == (there / "tokens" / name).read_bytes(), name


def test_a_finished_stage_is_not_done_again_and_a_changed_one_is(
    make_corpus: MakeCorpus, documents: list[tuple[str, str]]
) -> None:
    run = make_corpus(documents)
    first = tokenize_corpus(run, TokenizerConfig(), QUIET)
    written = (run / "tokens/tokenizer.json").stat().st_mtime_ns
    assert tokenize_corpus(run, TokenizerConfig(), QUIET) == first
    assert (run / "tokens/tokenizer.json").stat().st_mtime_ns == written
    assert tokenize_corpus(run, TokenizerConfig(), QUIET, vocabulary=1000)["vocabulary"] == 1024
    assert tokenize_corpus(run, TokenizerConfig(vocabulary=512), QUIET, vocabulary=1000)["vocabulary"] == 512
    make_corpus([*documents, ("one more", "train")])
    assert tokenize_corpus(run, TokenizerConfig(), QUIET)["splits"]["train"]["documents"] == (
        first["splits"]["train"]["documents"] + 1
    )


def test_a_killed_attempt_leaves_no_old_shard_behind(
    make_corpus: MakeCorpus, documents: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_corpus(documents)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_json", stop)  # at the last moment, all shards being written
        with pytest.raises(KeyboardInterrupt):
            tokenize_corpus(run, TokenizerConfig(), QUIET)
    assert not (run / "tokens").exists()
    stale = run / "tokens.partial" / "train-00009.bin"
    stale.write_bytes(b"\0\0")
    tokenize_corpus(run, TokenizerConfig(), QUIET)
    assert not (run / "tokens" / stale.name).exists()
    assert not (run / "tokens.partial").exists()


@pytest.mark.parametrize("killed_after", [1, 3, 6])
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(
    make_corpus: MakeCorpus, documents: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    config = TokenizerConfig(shard_tokens=20_000, vocabulary=1024)
    whole = make_corpus(documents, "whole", files=7)
    tokenize_corpus(whole, config, QUIET)
    killed = make_corpus(documents, "killed", files=7)
    monkeypatch.setattr(build, "PIECE_BYTES", 1)
    encoded: list[tuple[int, int]] = []
    encode = build.encode_group

    def count(tokenizer: Tokenizer, group: Group, *rest: object) -> int:
        if len(encoded) == killed_after:
            for path in (killed / "tokens.partial").glob("*.bin"):  # written, but not by a finished piece
                if not path.with_suffix(".ends.npy").exists():
                    with path.open("ab") as stream:
                        stream.write(b"\1\2\3")
            raise KeyboardInterrupt
        encoded.append(group.place)
        return encode(tokenizer, group, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(build, "encode_group", count)
        with pytest.raises(KeyboardInterrupt):
            tokenize_corpus(killed, config, QUIET)
    trained = (killed / "tokens.partial/tokenizer.json").stat().st_mtime_ns
    first, killed_after = list(encoded), 10**9
    encoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr(build, "encode_group", count)
        tokenize_corpus(killed, config, QUIET)
    assert [*first, *encoded] == [(file, 0) for file in range(7)]  # nothing twice
    assert (killed / "tokens/tokenizer.json").stat().st_mtime_ns == trained
    names = sorted(path.name for path in (whole / "tokens").iterdir())
    assert names == sorted(path.name for path in (killed / "tokens").iterdir())
    for name in names:
        if name != "stage.json":
            assert (whole / "tokens" / name).read_bytes() == (killed / "tokens" / name).read_bytes(), name


def test_a_document_is_written_as_often_as_its_copies_say(make_corpus: MakeCorpus) -> None:
    run = make_corpus([("one", "train"), ("none", "train"), ("thrice", "train"), ("held out", "validation")])
    path = run / "corpus/documents-00000.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.append_column("copies", pa.array([1, 0, 3, 5])), path)
    index = tokenize_corpus(run, TokenizerConfig(kind="byte"), QUIET)
    tokenizer, shards = Tokenizer.load(run / "tokens"), Shards(run / "tokens", "train")
    texts = [tokenizer.decode(shards.document(i)) for i in range(shards.documents)]
    assert texts == ["one", "thrice", "thrice", "thrice"]
    assert index["splits"]["train"]["bytes"] == len("".join(texts))
    assert index["splits"]["validation"]["documents"] == 1


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "word", "character", "byte"])
def test_a_stage_of_every_kind_loses_nothing(make_corpus: MakeCorpus, speeches: list[str], kind: str) -> None:
    documents = [(speeches[0], "train"), (speeches[1], "train"), ("天下大势 🙂 \0", "test")]
    run = make_corpus(documents)
    vocabulary = None if kind == "byte" else 768
    index = tokenize_corpus(run, TokenizerConfig(kind=kind, vocabulary=vocabulary), QUIET)  # type: ignore[arg-type]
    assert (index["kind"], index["lossless"]) == (kind, True)
    tokenizer = Tokenizer.load(run / "tokens")
    assert tokenizer.decode(Shards(run / "tokens", "test").document(0)) == documents[2][0]
    assert tokenizer.decode(Shards(run / "tokens", "train").document(1)) == speeches[1]


def test_the_sample_is_bounded_and_reaches_from_the_first_document_to_the_last(
    make_corpus: MakeCorpus, speeches: list[str]
) -> None:
    documents = [(f"{i:04d} " + "word " * 50, "train") for i in range(1000)]
    run = make_corpus([*documents, (speeches[0] * 30, "train"), ("no", "test")], files=2)
    sizes = measure_splits(run / "corpus")
    assert sizes == {
        "train": sum(len(t.encode()) for t, _ in documents) + 30 * len(speeches[0].encode()),
        "validation": 0,
        "test": 2,
    }
    pieces = list(sample_texts(run / "corpus", sizes["train"], 60_000))
    assert 30_000 < sum(len(piece.encode()) for piece in pieces) <= 60_000
    numbers = [int(piece[:4]) for piece in pieces if piece[:4].isdigit()]
    assert min(numbers) < 40
    assert max(numbers) > 960
    whole = list(sample_texts(run / "corpus", sizes["train"], 10**9))
    assert sum(len(piece.encode()) for piece in whole) == sizes["train"]


def test_an_empty_training_split_is_told(make_corpus: MakeCorpus) -> None:
    with pytest.raises(Failure, match="no text"):
        tokenize_corpus(make_corpus([("only a test", "test")]), TokenizerConfig(), QUIET)


def test_a_missing_corpus_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="textmill corpus"):
        tokenize_corpus(Run.create(tmp_path / "run"), TokenizerConfig(), QUIET)


def test_a_damaged_corpus_is_told(make_corpus: MakeCorpus) -> None:
    run = make_corpus([("text", "train")])
    (run / "corpus/documents-00000.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(Failure, match="cannot be read"):
        tokenize_corpus(run, TokenizerConfig(), QUIET)


def test_the_vocabulary_grows_with_the_corpus_between_its_bounds() -> None:
    sizes = [10**k for k in range(3, 13)]
    chosen = [choose_vocabulary(size).vocabulary for size in sizes]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (SMALLEST, LARGEST)
    assert choose_vocabulary(12_000_000).vocabulary == 4096
    assert choose_vocabulary(1_500_000).vocabulary == 2048
    assert choose_vocabulary(75_000_000).vocabulary == 8192
    assert choose_vocabulary(400_000_000).vocabulary == 16_384
    assert choose_vocabulary(3_000_000_000).vocabulary == 32_768
    assert "12.0 MB" in choose_vocabulary(12_000_000).reason
