"""Decontamination: the n-grams found are those of plain Python, and files are read or refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from textmill.base.errors import UsageError
from textmill.corpus.deduplication.contamination import COLUMNS, RULES, Contamination, evaluation_texts
from textmill.corpus.judging.rules import decide
from textmill.corpus.texts import Texts


def words(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices("abcdefghij", k=6)) for _ in range(count)]


def test_overlaps_are_found_and_counted() -> None:
    example = words(40, 0)
    index = Contamination.from_texts(Texts.from_strings([" ".join(example), " ".join(words(30, 1))]))
    documents = [
        " ".join([*words(60, 2), *example, *words(60, 3)]),
        " ".join([*words(87, 4), *(word.upper() + "," for word in example[5:18])]),
        " ".join([*words(50, 5), *example[:12], *words(50, 6)]),
        " ".join(words(100, 7)),
        "",
    ]
    found = index.measure(Texts.from_strings(documents))
    assert list(found) == list(COLUMNS)
    assert found["contamination_ngrams"].tolist() == [28, 1, 0, 0, 0]
    assert found["contamination_share"].tolist() == [40 / 160, 13 / 100, 0, 0, 0]
    assert found["contamination_example_share"].tolist() == [1.0, 1 / 28, 0, 0, 0]
    assert found["contamination_match"][0] == " ".join(example[:13])
    assert found["contamination_match"][1] == ", ".join(word.upper() for word in example[5:18])
    assert found["contamination_match"][2:].tolist() == [""] * 3
    decision = decide(RULES, found, np.array(["en"] * 5))
    assert decision.rule.tolist() == [0, 0, -1, -1, -1]


def test_digits_count_and_chinese_characters_are_words() -> None:
    index = Contamination.from_texts(
        Texts.from_strings(["0 1 2 3 4 5 6 7 8 9 10 11 12", "床前明月光，疑是地上霜。举头望明月"])
    )
    documents = [
        "7 " * 40,
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
        "李白写道：床前明月光疑是地上霜举头望明月，低头思故乡。",
    ]
    found = index.measure(Texts.from_strings(documents))
    assert found["contamination_ngrams"].tolist() == [0, 1, 3]
    assert found["contamination_match"][2] == "床前明月光疑是地上霜举头望"


def test_a_short_example_is_found_only_as_a_whole_document() -> None:
    index = Contamination.from_texts(Texts.from_strings(["What is the capital of France?"]))
    found = index.measure(Texts.from_strings(["what is the capital of france", "So what is the capital of France?"]))
    assert found["contamination_ngrams"].tolist() == [1, 0]


def test_a_row_depends_on_its_text_alone(tmp_path: Path) -> None:
    example = words(500, 0)
    index = Contamination.from_texts(Texts.from_strings([" ".join(example)]), 8)
    index.save(tmp_path / "index.model")
    loaded = Contamination.load(tmp_path / "index.model")
    documents = [" ".join([*words(at % 7, at), *example[at : at + at % 30]]) for at in range(200)]
    whole = index.measure(Texts.from_strings(documents))
    for first, last in ((0, 1), (50, 120)):
        part = loaded.measure(Texts.from_strings(documents[first:last]))
        for name, values in part.items():
            assert values.tolist() == whole[name][first:last].tolist()


def test_no_examples() -> None:
    index = Contamination.from_texts(Texts.from_strings([]))
    assert index.measure(Texts.from_strings(["some text", ""]))["contamination_ngrams"].tolist() == [0, 0]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("First one.\nStill first.\n \nSecond one.")
    record = {"question": "Which?", "choices": {"text": ["this", "that"], "label": [1, 2]}, "answer": 3}
    (tmp_path / "b.jsonl").write_text(json.dumps(record) + "\n\n" + json.dumps("plain") + "\n")
    (tmp_path / "c.csv").write_text('question,answer\n"a, b",c\n')
    (tmp_path / "ignored.bin").write_bytes(b"\xff\xfe")
    found = evaluation_texts([tmp_path]).strings()
    assert found == [
        "First one.\nStill first.",
        "Second one.",
        "Which?\nthis\nthat",
        "plain",
        "question\nanswer",
        "a, b\nc",
    ]


@pytest.mark.parametrize(
    ("name", "content"), [("gone.txt", None), ("bad.jsonl", b"{"), ("bad.txt", b"\xff\xfe\xfa"), ("bad.pdf", b"x")]
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        Contamination.from_files([tmp_path / name])
