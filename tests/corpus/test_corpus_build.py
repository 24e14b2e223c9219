"""The stage as a whole: what is found, rejected, cut and split, what errors say, and that it survives a kill."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textmill.base.errors import Failure, UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig

SENTENCE = "the river runs under old bridges while people talk of weather and bread in quiet towns"
WORDS = SENTENCE.split()


def prose(seed: int, words: int) -> str:
    draw = random.Random(seed)
    sentences = [" ".join(draw.choices(WORDS, k=9)).capitalize() + "." for _ in range(max(1, words // 9))]
    return "\n\n".join(" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5))


def many(folder: Path, count: int, words: int = 60) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:04d}.txt").write_text(prose(number, words))
    return folder


def digest(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "stage.json"
    }


def test_the_card_counts_what_happened(tmp_path: Path, build, rows) -> None:
    folder = many(tmp_path / "in", 120)
    (folder / "again.txt").write_text((folder / "0003.txt").read_text() + "\n\n")
    (folder / "short.txt").write_text("tiny")
    (folder / "symbols.txt").write_text("-=+*" * 40)
    (folder / "junk.txt").write_bytes(random.Random(5).randbytes(5000))
    (folder / ".hidden.txt").write_text(prose(999, 60))
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    card = build(folder)
    assert card["kept"]["documents"] == 120
    assert {rule: dropped["documents"] for rule, dropped in card["dropped"].items()} == {
        "binary": 1, "duplicate": 1, "symbols": 1, "too_short": 1,
    }  # fmt: skip
    assert card["read"]["skipped"] == {"hidden": 1, "other type (.jpg)": 1}
    kept = {name: card["kept"][name] for name in ("documents", "bytes")}
    assert [{**source, "read": 0} for source in card["sources"]] == [{"source": str(folder), **kept, "read": 0}]
    assert card["sources"][0]["read"]["documents"] == 124
    assert list(card["languages"]) in (["en"], ["en", ""])
    assert sum(split["documents"] for split in card["splits"].values()) == 120
    assert all(split["documents"] for split in card["splits"].values())
    assert card["cut"] is None
    found = rows()
    assert sum(len(row["text"].encode()) for row in found) == card["kept"]["bytes"]
    assert all(row["characters"] == len(row["text"]) for row in found)
    assert len({row["id"] for row in found}) == 120
    rejected = {row["rule"]: row for row in rows("rejected")}
    assert rejected["too_short"]["value"] == "4"
    assert rejected["duplicate"]["id"] in {row["id"] for row in found}
    assert rejected["symbols"]["text"] == "-=+*" * 40
    assert "control bytes" in rejected["binary"]["value"]
    assert card == json.loads((tmp_path / "run" / "corpus" / "card.json").read_text())


def test_the_same_inputs_find_the_stage_finished_and_others_redo_it(tmp_path: Path, build) -> None:
    folder = many(tmp_path / "in", 110)
    first = build(folder)
    before = (tmp_path / "run" / "corpus" / "card.json").stat().st_mtime_ns
    assert build(folder) == first
    assert (tmp_path / "run" / "corpus" / "card.json").stat().st_mtime_ns == before
    assert build(folder, min_characters=60) is not None
    assert (tmp_path / "run" / "corpus" / "card.json").stat().st_mtime_ns != before
    (folder / "new.txt").write_text(prose(5000, 60))
    assert build(folder)["kept"]["documents"] == first["kept"]["documents"] + 1


def test_equal_inputs_give_equal_bytes(tmp_path: Path, build) -> None:
    folder = many(tmp_path / "in", 110)
    build(folder, out="a")
    build(folder, out="b")
    assert digest(tmp_path / "a" / "corpus") == digest(tmp_path / "b" / "corpus")


def test_a_single_long_document_is_cut_so_that_every_split_has_text(tmp_path: Path, build, rows) -> None:
    (tmp_path / "novel.txt").write_text(prose(1, 30_000))
    card = build(tmp_path / "novel.txt")
    assert card["cut"]["characters"] == 4000
    assert card["kept"]["documents"] > 30
    assert all(split["documents"] for split in card["splits"].values())
    found = rows()
    assert "\n\n".join(row["text"] for row in found) == prose(1, 30_000)
    assert all(len(row["text"]) <= 4000 for row in found)
    assert found[0]["source"] == f"{tmp_path / 'novel.txt'}~1"


@pytest.mark.parametrize("words", [40, 400, 4000])
def test_tiny_corpora_still_have_every_split(tmp_path: Path, build, rows, words: int) -> None:
    (tmp_path / "a.txt").write_text(prose(2, words))
    card = build(tmp_path / "a.txt")
    counted = {name: sum(row["split"] == name for row in rows()) for name in card["splits"]}
    assert counted == {name: split["documents"] for name, split in card["splits"].items()}
    assert all(counted.values())
    assert {row["id"] for row in rows() if row["split"] in card["moved"]} >= {
        identity for identities in card["moved"].values() for identity in identities
    }


def test_one_giant_among_many_is_cut_too(tmp_path: Path, build) -> None:
    folder = many(tmp_path / "in", 150)
    (folder / "giant.txt").write_text(prose(77, 60_000))
    card = build(folder)
    assert "more than a tenth" in card["cut"]["rule"]
    assert card["cut"]["documents"] == 1
    assert card["splits"]["train"]["bytes"] > 0.7 * card["kept"]["bytes"]


def test_a_large_file_is_read_in_numbered_pieces(tmp_path: Path, build, rows) -> None:
    text = prose(3, 60_000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    build(tmp_path / "a.txt.gz", max_document_characters=20_000, small_corpus=0, piece_characters=30_000)
    found = rows()
    assert [row["source"] for row in found] == [f"{tmp_path}/a.txt.gz#{n}" for n in range(1, len(found) + 1)]
    assert "\n\n".join(row["text"] for row in found) == text


def test_patterns_stdin_and_folders_of_code(tmp_path: Path, build, rows, monkeypatch) -> None:
    folder = tmp_path / "code"
    (folder / "deep").mkdir(parents=True)
    for number in range(12):
        (folder / "deep" / f"m{number}.py").write_text(f"def f{number}(x):\n    return [x + {number}] * 3\n" * 3)
    (folder / "deep" / "m.pyc").write_bytes(bytes(range(256)) * 9)
    (folder / "loop").symlink_to(folder)
    card = build(folder, out="a")
    assert card["read"]["files"] == 12
    assert card["read"]["skipped"]["binary"] == 1
    assert build(f"{folder}/**/m1*.py", out="b")["read"]["files"] == 3
    assert build(f"{folder}/deep/m[2-4].py", out="d")["read"]["files"] == 3
    assert build(f"{folder}/d??p/**/m[!0-9]*", f"{folder}/deep/m2.py", out="e")["dropped"]["binary"]["documents"] == 1
    done = subprocess.run(
        [sys.executable, "-m", "textmill", "corpus", "-", "--out", str(tmp_path / "c"), "--json", "--quiet"],
        input=prose(4, 3000).encode("utf-16"),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["read"]["encodings"] == {"utf-16-le": 1}
    assert rows(out="c")[0]["source"] == "stdin~1"
    assert not list((tmp_path / "c").glob(".input*"))


def test_a_run_inside_the_folder_is_not_read(tmp_path: Path, build) -> None:
    many(tmp_path / "in", 110)
    build(tmp_path / "in", out="in/run")
    card = build(tmp_path / "in", out="in/run2")
    assert card["read"]["files"] == 110
    assert card["read"]["skipped"]["files of a run"] > 0


def test_a_file_that_vanishes_is_counted_and_reported(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 110)
    victim = folder / "0050.txt"

    class Vanishing(Progress):
        """Deletes a file at the moment that reading begins."""

        def task(self, name: str, total: float | None = None, unit: str = "") -> Any:
            victim.unlink(missing_ok=True)
            return super().task(name, total, unit)

    card = build_corpus([str(folder)], Run.create(tmp_path / "run"), CorpusConfig(), Vanishing("quiet"))
    assert card["kept"]["documents"] == 109
    assert card["read"]["problems"] == [{"source": str(victim), "problem": "cannot be read: No such file or directory"}]


ERRORS: list[tuple[str, Callable[[Path], list[str]], dict[str, Any], type, str]] = [
    ("no-path", lambda p: [str(p / "nope")], {}, UsageError, "There is no"),
    ("nothing", lambda p: [], {}, UsageError, "Nothing to read"),
    ("empty-folder", lambda p: [str(p / "empty")], {}, UsageError, "is empty"),
    ("only-binary", lambda p: [str(p / "images")], {}, UsageError, "holds no text"),
    ("empty-file", lambda p: [str(p / "empty.txt")], {}, Failure, "No readable text"),
    ("junk", lambda p: [str(p / "junk.txt")], {}, Failure, "Every document was rejected"),
    ("short", lambda p: [str(p / "short.txt")], {}, Failure, "Every document was rejected"),
    ("column", lambda p: [str(p / "t.csv")], {"text_column": "c"}, UsageError, 'no column "c"'),
    ("which-column", lambda p: [str(p / "t.csv")], {}, Failure, "Which column"),
    ("sample", lambda p: ["sample:sotuu"], {}, UsageError, 'Did you mean "sotu"'),
    ("same", lambda p: [str(p / "same.txt")], {}, Failure, "too small to split"),
]


@pytest.mark.parametrize(("name", "paths", "settings", "kind", "says"), ERRORS, ids=[row[0] for row in ERRORS])
def test_errors_say_what_why_and_what_to_type(
    tmp_path: Path, build, name: str, paths: Any, settings: dict[str, Any], kind: type, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG" + bytes(50))
    (tmp_path / "empty.txt").touch()
    (tmp_path / "junk.txt").write_bytes(random.Random(1).randbytes(3000))
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "t.csv").write_text("a,b\nfoo,hello\n")
    (tmp_path / "same.txt").write_text("the same line once more\n" * 40)
    with pytest.raises(kind) as caught:
        build(*paths(tmp_path), **settings)
    assert says in caught.value.what
    assert caught.value.fix
    assert caught.value.why or name == "nothing"
    assert not (tmp_path / "run" / "corpus").exists()


def test_a_column_list_names_the_columns(tmp_path: Path, build) -> None:
    (tmp_path / "t.csv").write_text("alpha,beta\nfoo,hello\n")
    with pytest.raises(Failure, match="alpha, beta"):
        build(tmp_path / "t.csv")
    with pytest.raises(UsageError, match='Did you mean "beta"'):
        build(tmp_path / "t.csv", text_column="betta")


@pytest.mark.parametrize("settings", [{"test_share": 1.5}, {"test_share": 0.6, "validation_share": 0.5}])
def test_impossible_shares_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CorpusConfig(**settings)  # type: ignore[arg-type]


RUN_AND_MEASURE = """
import sys
from pathlib import Path
from textmill.base.hardware import peak_bytes
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
config = CorpusConfig(near_duplicates=False)  # what is written here repeats itself
card = build_corpus([sys.argv[1]], Run.create(sys.argv[2]), config, Progress("quiet"))
print(card["kept"]["documents"], card["kept"]["bytes"], peak_bytes())
"""


def test_one_huge_line_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    draw = random.Random(6)
    block = " ".join(draw.choices(WORDS, k=200_000))
    with path.open("w") as stream:
        for number in range(60_000_000 // len(block) + 1):
            stream.write(f"{number} {block} ")
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_MEASURE, str(path), str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    documents, size, peak = map(int, done.stdout.split())
    assert documents >= 100
    assert size > 0.999 * path.stat().st_size - documents
    # Most of it is Python with its libraries and compiled kernels; the whole line would add three times 60 MB.
    assert peak < 450_000_000


@pytest.mark.parametrize("delay", [0.0, 0.15])
def test_a_killed_build_ends_the_same_when_run_again(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "in.txt"
    path.write_text("\n\n".join(prose(seed, 30_000) for seed in range(20)))
    command = [sys.executable, "-c", RUN_AND_MEASURE, str(path)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = subprocess.Popen([*command, str(tmp_path / "run")], stdout=subprocess.DEVNULL)
    partial = tmp_path / "run" / "corpus.partial"
    deadline = time.monotonic() + 60
    while not list(partial.glob("documents-*")) and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "run" / "corpus").exists() or delay
    subprocess.run([*command, str(tmp_path / "run")], check=True, capture_output=True)
    assert digest(tmp_path / "run" / "corpus") == digest(tmp_path / "whole" / "corpus")
    assert not partial.exists()
