"""Near-duplicates beside datatrove and datasketch: the same labelled documents, and the speed of signatures.

    python -m bench.dedup --documents FILE.jsonl [--oracle-python PYTHON]

The labelled set is made of real documents by known edits: words dropped, replaced, inserted at rates from 0.5% to 12%,
many about the 3.8% at which five-word shingles reach Jaccard 0.7; and pages that share a frame (the beginning and end
of one real page) around different bodies. The truth is the exact Jaccard similarity of five-word shingles of all pairs,
computed here in plain Python, apart from what is measured; once with numbers as they stand, which is Textmill's
definition, and once with every number as 0, which is datatrove's.

Two levels. Pairs: those that a method takes for repeats against those at Jaccard 0.7 or more. Documents: of those that
a method removes, which still have a kept one at 0.7 or more (precision), and of these and the kept ones that repeat an
earlier kept one, which were removed (recall). A false merge is a pair of pages with one frame taken for repeats, or
such a page removed, below 0.7. "F1, edits" leaves those pages out.

Verification applies the definition that the truth applies, so its precision shows that it is carried out rightly; what
is at stake is recall, which candidates and estimates can lose. The set is harder than a crawl: it is crowded about the
threshold, where a method that only estimates must err.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import re
import subprocess
import tempfile
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textmill.corpus.deduplication.minhash import Signatures, estimated_jaccard, matches_beyond, sign
from textmill.corpus.deduplication.near_duplicates import LOST, find_near_duplicates
from textmill.corpus.deduplication.shingles import jaccards, shingle_sets
from textmill.corpus.texts import Texts

THRESHOLD = 0.7
RATES = (0.005, 0.01, 0.02, 0.03, 0.034, 0.038, 0.042, 0.046, 0.06, 0.08, 0.12)
PEER = Path(__file__).parent / "peers" / "datatrove_minhash.py"

Pairs = set[tuple[int, int]]


class Labelled(NamedTuple):
    """Documents with their truth.

    Attributes:
        texts: in order.
        framed: family of pages with one frame that each belongs to, -1 for none.
        similar: Jaccard similarity of all pairs (i < j) at 0.4 or more.
    """

    texts: list[str]
    framed: list[int]
    similar: dict[tuple[int, int], float]

    @property
    def true_pairs(self) -> Pairs:
        """Pairs at the threshold or above."""
        return {pair for pair, value in self.similar.items() if value >= THRESHOLD}


def plain_shingles(text: str, numbers_alike: bool = False) -> set[tuple[str, ...]]:
    """Runs of five words: lower case, without accents and punctuation; plain Python.

    Args:
        text: of a document.
        numbers_alike: count every number as 0, as datatrove does; without, tables that differ only in their numbers
            are not alike, which is what Textmill promises.
    """
    letters = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = re.findall(r"[^\W_]+", re.sub(r"\d+", "0", letters) if numbers_alike else letters)
    if len(words) < 5:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def all_pairs(texts: list[str], numbers_alike: bool, least: float = 0.4) -> dict[tuple[int, int], float]:
    """Exact Jaccard similarity of every pair that reaches `least`."""
    sets = [plain_shingles(text, numbers_alike) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    found = {}
    for number, one in enumerate(sets):
        common = np.zeros(number, np.int64)
        for value in one:
            if value in holders:
                common[holders[value]] += 1
            holders[value].append(number)
        for other in np.flatnonzero(common).tolist():
            similarity = int(common[other]) / (len(one) + len(sets[other]) - int(common[other]))
            if similarity >= least:
                found[other, number] = similarity
    return found


def edited(text: str, rate: float, vocabulary: list[str], chance: random.Random) -> str:
    """The text with words dropped, replaced or inserted at this rate; white space as it was."""
    parts = re.split(r"(\s+)", text)
    made = []
    for part in parts:
        if part.strip() and chance.random() < rate:
            action = chance.randrange(3)
            if action == 0:
                continue
            part = chance.choice(vocabulary) if action == 1 else f"{part} {chance.choice(vocabulary)}"
        made.append(part)
    return "".join(made)


def labelled(documents: list[str], bases: int, families: int, members: int, seed: int = 0) -> Labelled:
    """Build the set from real documents."""
    chance = random.Random(seed)
    usable = [text for text in documents if 100 <= len(text.split()) <= 2000]
    chosen = chance.sample(usable, min(len(usable), bases + families * (members + 1)))
    vocabulary = [word for text in chosen[:100] for word in text.split()]
    texts, framed = [], []
    for text in chosen[:bases]:
        texts.append(text)
        for rate in chance.sample(RATES, 3):
            texts.append(edited(text, rate, vocabulary, chance))
        framed += [-1] * 4
    rest = chosen[bases:]
    for family in range(families):
        frame, *bodies = rest[family * (members + 1) : (family + 1) * (members + 1)]
        words = frame.split()[:240]
        for body in bodies:
            # 0.3 to 0.8 times as long as its frame: Jaccard of two such pages from 0.4 to just below 0.7
            middle = " ".join(body.split()[: int(len(words) * chance.uniform(0.3, 0.8))])
            half = len(words) // 2
            texts.append(f"{' '.join(words[:half])}\n\n{middle}\n\n{' '.join(words[half:])}")
            framed.append(family)
    order = list(range(len(texts)))
    chance.shuffle(order)
    texts, framed = [texts[at] for at in order], [framed[at] for at in order]
    return Labelled(texts, framed, all_pairs(texts, numbers_alike=False))


def without_frames(found: Pairs, truth: Labelled) -> Pairs:
    """Pairs of which neither is a page with a shared frame."""
    return {(a, b) for a, b in found if truth.framed[a] < 0 and truth.framed[b] < 0}


def score_pairs(found: Pairs, truth: Labelled) -> dict[str, float]:
    """Precision, recall, F1 and false merges of pairs."""
    right = len(found & truth.true_pairs)
    merges = sum(truth.framed[a] >= 0 and truth.framed[a] == truth.framed[b] for a, b in found - truth.true_pairs)
    edits, wanted = without_frames(found, truth), without_frames(truth.true_pairs, truth)
    alone = _f1(len(edits & wanted), len(edits), len(wanted))["f1"]
    return _f1(right, len(found), len(truth.true_pairs)) | {"false_merges": merges, "f1_edits": alone}


def score_documents(removed: Iterable[int], truth: Labelled) -> dict[str, float]:
    """Precision, recall, F1 and false merges of documents removed."""
    gone = set(removed)
    near: dict[int, list[int]] = defaultdict(list)
    for a, b in truth.true_pairs:
        near[a].append(b)
        near[b].append(a)
    right = {one for one in gone if any(other not in gone for other in near[one])}
    missed = [
        one for one in range(len(truth.texts)) if one not in gone and any(o < one and o not in gone for o in near[one])
    ]
    merges = sum(truth.framed[one] >= 0 for one in gone - right)
    counts = [sum(truth.framed[one] < 0 for one in chosen) for chosen in (right, gone, missed)]
    alone = _f1(counts[0], counts[1], counts[0] + counts[2])["f1"]
    return _f1(len(right), len(gone), len(right) + len(missed)) | {"false_merges": merges, "f1_edits": alone}


def _f1(right: int, found: int, wanted: int) -> dict[str, float]:
    precision, recall = right / max(found, 1), right / max(wanted, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-12)}


def banded(signatures: Signatures) -> np.ndarray:
    """Pairs that share a band, int64 [k, 2]."""
    found: Pairs = set()
    for band in range(signatures.keys.shape[1]):
        holders: dict[int, list[int]] = defaultdict(list)
        for number, key in enumerate(signatures.keys[:, band].tolist()):
            if key:
                holders[key].append(number)
        for one in holders.values():
            found.update(itertools.combinations(one, 2))
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def as_pairs(values: np.ndarray) -> Pairs:
    """Rows as tuples."""
    return {(a, b) for a, b in values.tolist()}


def union_find(pairs: Pairs, count: int) -> list[int]:
    """Documents removed when all pairs are merged and the first of each cluster stays."""
    parent = list(range(count))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for a, b in sorted(pairs):
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return [one for one in range(count) if root(one) != one]


def ours(truth: Labelled) -> dict[str, tuple[Pairs, list[int]]]:
    """Pairs and removed documents: verified, and by signatures alone."""
    texts = Texts.from_strings(truth.texts)
    signatures = sign(texts)
    pairs = banded(signatures)
    matches = (signatures.digest[pairs[:, 0]] == signatures.digest[pairs[:, 1]]).sum(axis=1)
    alone = as_pairs(pairs[estimated_jaccard(matches) >= THRESHOLD])
    likely = pairs[matches >= matches_beyond(THRESHOLD, LOST)[0]]
    exact = jaccards(*shingle_sets(texts), likely[:, 0], likely[:, 1])
    kept = find_near_duplicates(signatures, texts.take, np.zeros(len(texts)), threshold=THRESHOLD).kept
    return {
        "textmill": (as_pairs(likely[exact >= THRESHOLD]), np.flatnonzero(kept != np.arange(len(texts))).tolist()),
        "textmill, signatures alone": (alone, union_find(alone, len(texts))),
    }


def with_datasketch(truth: Labelled) -> dict[str, tuple[Pairs, list[int]]]:
    """datasketch's MinHashLSH at the same threshold and number of permutations, unverified, as it is mostly used."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=112)
    pairs: Pairs = set()
    for number, text in enumerate(truth.texts):
        one = MinHash(num_perm=112)
        one.update_batch([" ".join(words).encode() for words in plain_shingles(text)])
        pairs.update((other, number) for other in index.query(one))
        index.insert(number, one)
    return {f"datasketch {version('datasketch')}": (pairs, union_find(pairs, len(truth.texts)))}


def run_peer(python: Path, texts: list[str], *options: str) -> dict[str, Any]:
    """What datatrove says of these texts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "documents.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        command = [str(python), str(PEER), "--input", str(file), "--work", f"{folder}/work", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def with_datatrove(truth: Labelled, python: Path) -> dict[str, tuple[Pairs, list[int]]]:
    """datatrove's own MinHash with its defaults."""
    said = run_peer(python, truth.texts)
    return {"datatrove 14 x 8": ({(a, b) for a, b in said["pairs"]}, said["removed"])}


def rate(work: Callable[[], Any], size: int) -> float:
    """MB/s of CPU time."""
    began = time.process_time()
    work()
    return size / 1e6 / (time.process_time() - began)


def speeds(documents: list[str], python: Path | None, repeats: int) -> dict[str, list[float]]:
    """MB/s of CPU time of making signatures; ours on 16 MB, the peer on 2 MB, interleaved."""
    large, small = _up_to(documents, 16 << 20), _up_to(documents, 2 << 20)
    texts = Texts.from_strings(large)
    sign(texts)  # compiles, or loads what was compiled
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        found["textmill"].append(rate(lambda: sign(texts), int(texts.offsets[-1])))
        for name in ("sha1", "xxhash") if python else ():
            said = run_peer(python, small, "--hash", name, "--only-signatures")  # type: ignore[arg-type]
            found[f"datatrove, {name}"].append(said["bytes"] / 1e6 / said["cpu"])
    return dict(found)


def _up_to(documents: list[str], size: int) -> list[str]:
    chosen, total = [], 0
    for text in documents:
        if total >= size:
            break
        chosen.append(text)
        total += len(text.encode())
    return chosen


def table(rows: list[list[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        lines.append(
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table; the raw figures go to --out."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.dedup", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--documents", type=Path, required=True, help="JSONL with a field text")
    parser.add_argument("--oracle-python", type=Path, help="interpreter that has datatrove; without it only ours")
    parser.add_argument("--bases", type=int, default=600, help="documents that get three edited copies each")
    parser.add_argument("--families", type=int, default=12, help="families of pages that share a frame")
    parser.add_argument("--members", type=int, default=60, help="pages of a family")
    parser.add_argument("--repeats", type=int, default=3, help="of the speed measurement, in turn")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the raw figures")
    asked = parser.parse_args()
    with asked.documents.open() as lines:
        documents = [json.loads(line)["text"] for line in itertools.islice(lines, 0, None, 3)]
    truth = labelled(documents, asked.bases, asked.families, asked.members)
    alike = truth._replace(similar=all_pairs(truth.texts, numbers_alike=True))
    close = sum(0.65 <= value < 0.75 for value in truth.similar.values())
    negative = sum(
        value < THRESHOLD and truth.framed[a] >= 0 and truth.framed[a] == truth.framed[b]
        for (a, b), value in truth.similar.items()
    )
    print(
        f"{len(truth.texts)} documents, {len(truth.true_pairs)} pairs at {THRESHOLD} or more, {close} between 0.65 and "
        f"0.75, {negative} pairs of pages with one frame between 0.4 and {THRESHOLD}\n"
    )
    found = ours(truth) | with_datasketch(truth)
    if asked.oracle_python:
        found |= with_datatrove(truth, asked.oracle_python)
    scores = {
        name: {
            "pairs": score_pairs(pairs, truth),
            "documents": score_documents(gone, truth),
            "pairs, numbers alike": score_pairs(pairs, alike),
            "documents, numbers alike": score_documents(gone, alike),
        }
        for name, (pairs, gone) in found.items()
    }
    rows = [["", "level", "precision", "recall", "F1", "false merges", "F1, edits"]]
    for name, by_level in scores.items():
        for level, score in by_level.items():
            rows.append([name, level, *(f"{score[key]:.4f}" for key in ("precision", "recall", "f1"))])
            rows[-1] += [f"{score['false_merges']:.0f}", f"{score['f1_edits']:.4f}"]
    print(table(rows), "\n")
    rates = speeds(documents, asked.oracle_python, asked.repeats)
    rows = [["signatures", "MB/s of CPU time, median", "all"]]
    rows += [[name, f"{np.median(values):.2f}", " ".join(f"{v:.2f}" for v in values)] for name, values in rates.items()]
    print(table(rows))
    asked.out.mkdir(parents=True, exist_ok=True)
    raw = {"scores": scores, "rates": rates, "machine": platform.platform(), "documents": len(truth.texts)}
    (asked.out / "dedup.json").write_text(json.dumps(raw, indent=2))


if __name__ == "__main__":
    main()
