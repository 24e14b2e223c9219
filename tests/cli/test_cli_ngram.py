"""`textmill ngram` makes lmplz's models and prints what KenLM's query prints; every mistake is explained."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import Textmill

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lmplz"
TRAIN, TEST = FIXTURES / "train.txt", FIXTURES / "test.txt"


def test_a_model_is_made_in_both_forms_and_scores_as_kenlm(textmill: Textmill, tmp_path: Path) -> None:
    arpa, binary = tmp_path / "o5.arpa.gz", tmp_path / "o5.ngrams"
    ended = textmill(
        "ngram", str(TRAIN), "--order", "5", "--prune", "0", "0", "1", "--arpa", str(arpa), "--binary", str(binary)
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "12,922 tokens of 2,346 types" in ended.stdout
    wanted = gzip.decompress((FIXTURES / "o5-prune001.arpa.gz").read_bytes())
    assert gzip.decompress(arpa.read_bytes()).split(b"\\3-grams:")[0] == wanted.split(b"\\3-grams:")[0]
    first, *summary = (FIXTURES / "o5-prune001.query.txt").read_text().splitlines()
    for model in (arpa, binary):
        ended = textmill("ngram", "query", str(model), str(TEST), "--show", "words")
        assert ended.returncode == 0, ended.stderr
        lines = ended.stdout.splitlines()
        assert first in lines
        assert lines[-4:] == summary
    shown = json.loads(textmill("ngram", "query", str(binary), str(TEST), "--show", "sentences", "--json").stdout)
    assert (shown["oov"], shown["tokens"], shown["order"], len(shown["scores"])) == (231, 2201, 5, 54)
    assert f"Perplexity including OOVs:\t{shown['perplexity_including_oov']}" == summary[0]


def test_text_from_standard_input_in_little_memory_gives_the_same_file(textmill: Textmill, tmp_path: Path) -> None:
    many = tmp_path / "many.txt.gz"
    many.write_bytes(gzip.compress(TRAIN.read_bytes() + (FIXTURES / "odd.txt").read_bytes() + TEST.read_bytes()))
    words = ("ngram", "-", "--arpa", str(tmp_path / "small.arpa"), "--memory", "1.1M", "--json")
    with many.open("rb") as stream:
        ended = subprocess.run([sys.executable, "-m", "textmill", *words], stdin=stream, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["on_disk"]
    assert [row["order"] for row in facts["orders"]] == [1, 2, 3]
    ended = textmill("ngram", str(many), "--arpa", "-", "--quiet")
    assert ended.stdout == (tmp_path / "small.arpa").read_text()


def test_a_compact_model_remembers_its_units(textmill: Textmill, tmp_path: Path) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("床前明月光\n疑是地上霜\n举头望明月\n低头思故乡\n", encoding="utf-8")
    model = tmp_path / "poem.ngrams"
    options = ("--vocabulary", "characters", "--order", "2", "--smoothing", "witten-bell", "--binary", str(model))
    assert textmill("ngram", str(text), *options).returncode == 0
    shown = json.loads(textmill("ngram", "query", str(model), str(text), "--json").stdout)
    assert (shown["oov"], shown["tokens"]) == (0, 24)


def test_maximum_likelihood_answers_with_infinity_and_says_why(textmill: Textmill, tmp_path: Path) -> None:
    model = tmp_path / "ml.ngrams"
    textmill("ngram", str(TRAIN), "--smoothing", "maximum-likelihood", "--binary", str(model))
    ended = textmill("ngram", "query", str(model), str(TEST))
    assert ended.returncode == 0
    assert "Perplexity including OOVs:\tinf" in ended.stdout
    assert "no probability" in ended.stderr
    shown = json.loads(textmill("ngram", "query", str(model), str(TEST), "--json").stdout)
    assert shown["perplexity_including_oov"] is None


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["ngram", str(TRAIN)], 2, "--arpa"),
        (["ngram", "absent.txt", "--arpa", "x"], 2, "absent.txt cannot be read"),
        (["ngram", ".", "--arpa", "x"], 2, "folder"),
        (["ngram", str(TRAIN), "--order", "7", "--arpa", "x"], 2, "1 to 6"),
        (["ngram", str(TRAIN), "--prune", "1", "0", "--arpa", "x"], 2, "--prune 0 0 1"),
        (["ngram", str(TRAIN), "--memory", "lots", "--arpa", "x"], 2, "--memory 500M"),
        (["ngram", str(TRAIN), "--memory", "1k", "--arpa", "x"], 2, "too little"),
        (["ngram", str(TRAIN), "--vocabulary", "syllables", "--arpa", "x"], 2, "characters"),
        (["ngram", str(TRAIN), "--discount-fallback", "2", "--arpa", "x"], 2, "0.5 1 1.5"),
        (["ngram", "query", "absent.arpa", str(TEST)], 2, "absent.arpa"),
        (["ngram", "query", str(TEST), str(TEST)], 1, "line 1"),
    ],
)
def test_mistakes_are_explained(textmill: Textmill, words: list[str], code: int, told: str) -> None:
    ended = textmill(*words)
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_regular_text_is_refused_until_there_are_discounts_to_fall_back_on(
    textmill: Textmill, tmp_path: Path
) -> None:
    text = tmp_path / "same.txt"
    text.write_text("to be or not to be\n" * 3)
    ended = textmill("ngram", str(text), "--arpa", "same.arpa")
    assert ended.returncode == 1
    assert "--discount-fallback 0.5 1 1.5" in ended.stderr
    assert textmill("ngram", str(text), "--arpa", "same.arpa", "--discount-fallback").returncode == 0
    text.write_text("a <unk> b\n")
    ended = textmill("ngram", str(text), "--arpa", "same.arpa")
    assert (ended.returncode, "line 1" in ended.stderr, "--skip-symbols" in ended.stderr) == (1, True, True)
