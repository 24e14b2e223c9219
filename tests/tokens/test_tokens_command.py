"""`textmill tokenize`: what it prints, as JSON and for people."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

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
