"""Near-duplicates: candidates by MinHash bands, every one verified by exact Jaccard similarity before a document is
dropped. Reads texts through the function that it is given; writes nothing but unnamed temporary files.

Greedy, best first: a document is dropped only when it is itself similar enough to one that stays. Nothing is merged
through a third document, so a family of pages that share a frame cannot collapse into one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from textmill.corpus.deduplication.buckets import Buckets, buckets
from textmill.corpus.deduplication.minhash import Signatures, matches_beyond
from textmill.corpus.deduplication.shingles import jaccards, shingle_sets
from textmill.corpus.kernels import kernel
from textmill.corpus.texts import Texts

LOST = 1e-4
"""A pair at the threshold is put aside by its estimate alone less often than this (and more similar pairs far less
often)."""
MEMORY = 256 << 20
"""Bytes for keys, buckets and shingles, beside about 50 bytes a document."""

_QUEUE = 1 << 16
_UNDECIDED = 32
# More undecided candidates than this, and they are verified first: a family of near-identical documents whose first
# member is undecided would else be compared each with each.
_PAIRS = 4096
_READ = 8 << 20
_UNSEEN, _KEPT, _WAITING, _LIKELY, _DROPPED = range(5)
_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONES = np.uint64(0x0101010101010101)
_S7, _S56 = np.uint64(7), np.uint64(56)


class NearDuplicates(NamedTuple):
    """What is kept of n documents.

    Attributes:
        kept: int64 [n]; the row of the kept document that each repeats, its own when it repeats none.
        similarity: float64 [n]; exact Jaccard similarity to that document, 0 when it repeats none.
        counts: "candidates" (pairs of a document and a kept one that share a band), of these "estimated_away" and
            "verified", of those "confirmed"; "dropped" documents. The same whatever the memory and the parts.
    """

    kept: np.ndarray
    similarity: np.ndarray
    counts: dict[str, int]


@kernel
def _list(document: int, first: np.ndarray, member_of: np.ndarray, starts: np.ndarray, fill: np.ndarray,
          slots: np.ndarray) -> None:  # fmt: skip
    for at in range(first[document], first[document + 1]):
        bucket = member_of[at]
        slots[starts[bucket] + fill[bucket]] = document
        fill[bucket] += 1


@kernel
def _scan(
    begin: int,
    serial: int,
    digest: np.ndarray,
    first: np.ndarray,
    member_of: np.ndarray,
    starts: np.ndarray,
    fill: np.ndarray,
    slots: np.ndarray,
    state: np.ndarray,
    stamp: np.ndarray,
    away: np.ndarray,
    passing: int,
    sure: int,
    pairs: np.ndarray,
    matches: np.ndarray,
) -> tuple[int, int, int]:
    """Compare documents from `begin` on with those kept or undecided, until the queue of pairs is full.

    Returns:
        the document to go on with, the number of queued pairs, the next serial number for `stamp`.
    """
    queued = 0
    width = digest.shape[1]
    for document in range(begin, first.shape[0] - 1):
        serial += 1
        before = queued
        similar = 0
        undecided = 0
        likely = False
        full = False
        for at in range(first[document], first[document + 1]):
            bucket = member_of[at]
            start = starts[bucket]
            kept = 0
            for slot in range(start, start + fill[bucket]):
                other = slots[slot]
                status = state[other]
                if status == _DROPPED:
                    continue
                slots[start + kept] = other
                kept += 1
                if stamp[other] == serial or full:
                    continue
                stamp[other] = serial
                equal = np.uint64(0)
                for word in range(width):  # adds 1 to the byte of each equal byte; at most 14, so none overflows
                    differ = digest[document, word] ^ digest[other, word]
                    equal += (~(((differ & _LOW) + _LOW) | differ | _LOW)) >> _S7
                count = np.int64((equal * _ONES) >> _S56)
                if count < passing:
                    if status == _KEPT:
                        away[document] += 1
                        continue
                else:
                    similar += 1
                    if status != _KEPT:
                        undecided += 1
                    elif count >= sure:
                        likely = True
                if queued == pairs.shape[0]:
                    full = True
                    continue
                pairs[queued, 0] = document
                pairs[queued, 1] = other
                matches[queued] = count
                queued += 1
            fill[bucket] = kept
        if full or (undecided > _UNDECIDED and not likely and before > 0):
            away[document] = 0
            return document, before, serial
        if similar == 0:
            state[document] = _KEPT
        elif likely:
            state[document] = _LIKELY
        else:
            state[document] = _WAITING
        if not likely:
            _list(document, first, member_of, starts, fill, slots)
    return first.shape[0] - 1, queued, serial


@kernel
def _resolve(
    begin: int,
    end: int,
    queued: int,
    threshold: float,
    passing: int,
    first: np.ndarray,
    member_of: np.ndarray,
    starts: np.ndarray,
    fill: np.ndarray,
    slots: np.ndarray,
    state: np.ndarray,
    away: np.ndarray,
    pairs: np.ndarray,
    matches: np.ndarray,
    found: np.ndarray,
    kept: np.ndarray,
    similarity: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Decide documents `begin` to `end` - 1 in order; where one that seemed sure to be dropped stays, undo what came
    after it, because that was not compared with it. Returns the document to go on with."""
    at = 0
    while at < queued:
        document = pairs[at, 0]
        best = -1.0
        while at < queued and pairs[at, 0] == document:
            other = pairs[at, 1]
            if state[other] == _KEPT:
                if matches[at] < passing:
                    away[document] += 1
                else:
                    counts[0] += 1
                    if found[at] >= threshold:
                        counts[1] += 1
                        if found[at] > best or (found[at] == best and other < kept[document]):
                            best = found[at]
                            kept[document] = other
            at += 1
        if best >= 0:
            state[document] = _DROPPED
            similarity[document] = best
            continue
        surprise = state[document] == _LIKELY
        state[document] = _KEPT
        if surprise:
            for later in range(document + 1, end):
                if state[later] == _KEPT or state[later] == _WAITING:
                    for entry in range(first[later], first[later + 1]):
                        fill[member_of[entry]] -= 1
                state[later] = _UNSEEN
                away[later] = 0
            _list(document, first, member_of, starts, fill, slots)
            return document + 1
    return end


class _Similarity:
    """Exact Jaccard similarity of pairs, with the shingles of recent documents kept in memory."""

    def __init__(self, rows: np.ndarray, texts_of: Callable[[np.ndarray], Texts], memory_bytes: int) -> None:
        self._rows, self._texts_of, self._limit = rows, texts_of, memory_bytes
        self._sets: OrderedDict[int, np.ndarray] = OrderedDict()
        self._held = 0
        self._sizes = np.full(len(rows), -1, np.int64)
        self._read = self._read_bytes = self._known = self._known_bytes = 0

    def of(self, pairs: np.ndarray) -> np.ndarray:
        """float64 [k] of pairs int64 [k, 2] of document numbers."""
        found = np.zeros(len(pairs))
        start = 0
        while start < len(pairs):
            stop = min(start + _PAIRS, len(pairs))
            while True:  # as many pairs as fit
                needed, places = np.unique(pairs[start:stop], return_inverse=True)
                sizes = self._sizes[needed]
                mean = self._known_bytes // self._known if self._known else 1 << 14
                if np.where(sizes < 0, mean, sizes).sum() <= self._limit // 4 or stop == start + 1:
                    break
                stop = start + (stop - start) // 2
            sets = self._take(needed)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(one) for one in sets])])
            places = places.reshape(-1, 2)
            found[start:stop] = jaccards(np.concatenate(sets), offsets, places[:, 0], places[:, 1])
            start = stop
        return found

    def _take(self, needed: np.ndarray) -> list[np.ndarray]:
        taken: dict[int, np.ndarray] = {}
        missing = []
        for document in needed.tolist():
            if document in self._sets:
                self._sets.move_to_end(document)
                taken[document] = self._sets[document]
            else:
                missing.append(document)
        missing.sort(key=self._rows.__getitem__)  # read in the order of storage
        start = 0
        while start < len(missing):
            mean = self._read_bytes // self._read if self._read else 1 << 16
            stop = start + max(1, _READ // max(mean, 1))
            group = missing[start:stop]
            texts = self._texts_of(self._rows[group])
            values, offsets = shingle_sets(texts)
            self._read += len(group)
            self._read_bytes += int(texts.offsets[-1])
            for at, document in enumerate(group):
                taken[document] = self._keep(document, values[offsets[at] : offsets[at + 1]].copy())
            start = stop
        return [taken[document] for document in needed.tolist()]

    def _keep(self, document: int, values: np.ndarray) -> np.ndarray:
        if self._sizes[document] < 0:
            self._sizes[document] = values.nbytes
            self._known += 1
            self._known_bytes += values.nbytes
        self._sets[document] = values
        self._held += values.nbytes
        while self._held > self._limit // 2 and len(self._sets) > 1:
            self._held -= self._sets.popitem(last=False)[1].nbytes
        return values


def _order(priority: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Active rows by descending priority, ties in row order; NaN last."""
    rows = np.flatnonzero(active)
    values = priority[rows]
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -np.inf, values)
    backwards = np.argsort(values[::-1], kind="stable")[::-1]
    return rows[len(rows) - 1 - backwards]


def find_near_duplicates(
    signatures: Signatures | Sequence[Signatures],
    texts_of: Callable[[np.ndarray], Texts],
    priority: np.ndarray,
    active: np.ndarray | None = None,
    threshold: float = 0.7,
    memory_bytes: int = MEMORY,
) -> NearDuplicates:
    """Decide which documents repeat another.

    Documents are taken by descending priority. One is dropped when, of the kept documents that share a band with it,
    the most similar has an exact Jaccard similarity of at least `threshold`; otherwise it is kept. The result does
    not depend on how the signatures are divided into parts, nor on the memory.

    Args:
        signatures: of all documents, in row order; one, or several parts one after the other. Their arrays may be
            memory maps.
        texts_of: gives the texts of the rows asked for (int64, ascending), in that order.
        priority: float64 or int64 [n]; the larger is kept first, ties go to the lower row.
        active: bool [n]; the others are neither dropped nor a reason to drop. All by default.
        threshold: Jaccard similarity of the sets of five-word shingles.
        memory_bytes: for keys, buckets and shingles; beside it about 50 bytes a document.
    """
    parts = [signatures] if isinstance(signatures, Signatures) else list(signatures)
    count = sum(len(part.keys) for part in parts)
    kept_rows = np.arange(count, dtype=np.int64)
    similarity_rows = np.zeros(count)
    priority = np.asarray(priority)
    order = _order(priority, np.ones(count, bool) if active is None else np.asarray(active, bool))
    held = buckets(parts, order, memory_bytes // 2)
    kept, similarity, counts = _greedy(held, _Similarity(held.rows, texts_of, memory_bytes // 2), threshold)
    dropped = np.flatnonzero(similarity)
    kept_rows[held.rows[dropped]] = held.rows[kept[dropped]]
    similarity_rows[held.rows[dropped]] = similarity[dropped]
    return NearDuplicates(kept_rows, similarity_rows, {**counts, "dropped": len(dropped)})


def _greedy(held: Buckets, exact: _Similarity, threshold: float) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    documents = len(held.rows)
    passing, sure = matches_beyond(threshold, LOST)
    index = (held.first, held.member_of, held.starts)
    fill = np.zeros(len(held.starts) - 1, np.int32)
    state = np.zeros(documents, np.int8)
    stamp = np.zeros(documents, np.int64)
    away = np.zeros(documents, np.int64)
    kept = np.zeros(documents, np.int64)
    similarity = np.zeros(documents)
    counts = np.zeros(2, np.int64)
    pairs, matches = np.zeros((_QUEUE, 2), np.int64), np.zeros(_QUEUE, np.uint8)
    begin = serial = 0
    while begin < documents:
        end, queued, serial = _scan(
            begin, serial, held.digest, *index, fill, held.slots, state, stamp, away, passing, sure, pairs, matches
        )
        if end == begin:  # one document alone has more candidates than the queue holds
            pairs, matches = np.zeros((2 * len(pairs), 2), np.int64), np.zeros(2 * len(matches), np.uint8)
            continue
        found = np.full(queued, np.nan)
        verify = np.flatnonzero(matches[:queued] >= passing)
        found[verify] = exact.of(pairs[verify])
        begin = _resolve(
            begin, end, queued, threshold, passing, *index, fill, held.slots, state, away, pairs, matches, found,
            kept, similarity, counts,
        )  # fmt: skip
    put_aside, verified = int(away.sum()), int(counts[0])
    return kept, similarity, {
        "candidates": put_aside + verified,
        "estimated_away": put_aside,
        "verified": verified,
        "confirmed": int(counts[1]),
    }  # fmt: skip
