"""`textmill tokenize`: what it prints, as JSON and for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from textmill.base.run import Run
from textmill.cli.app import run as run_command
from textmill.cli.tokenize import colour_tokens
from textmill.tokens.tokenizer import Tokenizer


@pytest.fixture
def corpus(make_corpus: Callable[..., Run], speeches: list[str]) -> Run:
    """A run with a corpus of a few speeches."""
    return make_corpus([(text, "validation" if i == 0 else "train") for i, text in enumerate(speeches)])


def test_json_is_the_index(corpus: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["tokenize", str(corpus.path), "--vocabulary", "1024", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads((corpus / "tokens/index.json").read_text())
    assert json.loads(out)["vocabulary"] == 1024
    assert err == ""


def test_people_see_the_vocabulary_the_splits_and_a_sentence_cut(
    corpus: Run, speeches: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["tokenize", str(corpus.path)]) == 0
    out = capsys.readouterr().out
    assert "Vocabulary 2,048" in out
    assert "bytes a token" in out
    assert "empty" in out  # the test split
    cut = out.splitlines()[-1]
    assert "|" in cut
    assert speeches[0].startswith(cut.replace("|", "")[:20])


def test_an_impossible_vocabulary_leaves_with_code_2(corpus: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["tokenize", str(corpus.path), "--vocabulary", "7"]) == 2
    assert "vocabulary of 7" in capsys.readouterr().err
    assert run_command(["tokenize", str(corpus.path), "--sample-bytes", "0"]) == 2
    assert "sample_bytes is 0" in capsys.readouterr().err
    assert not (corpus / "tokens").exists()


def test_coloured_tokens_spell_the_text(tokenizer: Tokenizer) -> None:
    text = "Mr. Speaker, 我们 🙂"
    assert colour_tokens(tokenizer, text).plain == text
    assert colour_tokens(tokenizer, text, separated=True).plain.replace("|", "") == text


def test_a_sweep_compares_sizes_and_writes_no_tokens(corpus: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["tokenize", str(corpus.path), "--sweep", "512,1024,2_048", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((corpus / "sweep.json").read_text())
    rows = found["rows"]
    assert [row["vocabulary"] for row in rows] == [512, 1024, 2048]
    assert [row["embedding_parameters"] for row in rows] == [256 * 512, 256 * 1024, 256 * 2048]
    lengths = [row["bytes_per_token"] for row in rows]
    assert lengths == sorted(lengths)
    assert all(1 < row["bits_per_byte"] < 4 for row in rows)
    assert found["best"] in (512, 1024, 2048)
    assert not (corpus / "tokens").exists()
    assert run_command(["tokenize", str(corpus.path), "--sweep", "512,1024"]) == 0
    assert "bits per byte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "many"], "not numbers"),
        (["--sweep", "7"], "vocabulary of 7"),
        (["--sweep", "auto", "--vocabulary", "512"], "nothing to sweep"),
        (["--kind", "unigrams"], "unigram"),
        (["--tokenizer", "nowhere.json"], "does not exist"),
    ],
)
def test_what_cannot_be_done_leaves_with_code_2(
    corpus: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["tokenize", str(corpus.path), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (corpus / "tokens").exists()


def test_a_sweep_without_a_validation_split_is_told(
    make_corpus: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_corpus([("only training text", "train")])
    assert run_command(["tokenize", str(run.path), "--sweep", "auto"]) == 1
    assert "validation split" in capsys.readouterr().err


def test_people_read_what_a_lossy_tokenizer_loses(
    corpus: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "of": 2}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    assert run_command(["tokenize", str(corpus.path), "--tokenizer", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "does not keep text as it is" in out
    assert "100.0% come back changed" in out
