"""Which documents share a band key: buckets of at least two, band by band, in bounded memory. Writes nothing but
unnamed temporary files, and those only when the buckets exceed the memory allowed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textmill.corpus.deduplication.minhash import Signatures
from textmill.corpus.kernels import kernel

_S32 = np.uint64(32)


class Buckets(NamedTuple):
    """Documents that share a band key with another, numbered 0 to m - 1 in order of their rank.

    Attributes:
        rows: int64 [m], the row of each.
        digest: uint64 [m, 14], the digest of each.
        first: int64 [m + 1]; document i is in the buckets `member_of[first[i] : first[i + 1]]`.
        member_of: uint32 [entries].
        starts: int64 [buckets + 1]; bucket j may use `slots[starts[j] : starts[j + 1]]`.
        slots: uint32 [entries], to be filled by the caller.
    """

    rows: np.ndarray
    digest: np.ndarray
    first: np.ndarray
    member_of: np.ndarray
    starts: np.ndarray
    slots: np.ndarray


def scratch(shape: tuple[int, ...], dtype: type, limit: int) -> np.ndarray:
    """An array in memory, or in an unnamed temporary file when it is larger than `limit` bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= limit:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive
        file.truncate(size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


@kernel
def _link(members: np.ndarray, sizes: np.ndarray, bucket: int, next_: np.ndarray, member_of: np.ndarray) -> int:
    at = 0
    for size in sizes:
        for _ in range(size):
            member = members[at]
            member_of[next_[member]] = bucket
            next_[member] += 1
            at += 1
        bucket += 1
    return bucket


def _band(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Buckets of one band.

    Args:
        keys: uint32 [ranks], 0 for none.

    Returns:
        members uint32 (ranks, bucket after bucket) and the size of each bucket, int64.
    """
    pairs = keys.astype(np.uint64) << _S32 | np.arange(len(keys), dtype=np.uint64)
    pairs = pairs[keys != 0]
    pairs.sort()  # by key, then by rank; NumPy's vectorized sort
    found = (pairs >> _S32).astype(np.uint32)
    same = np.zeros(len(found) + 1, bool)
    np.equal(found[1:], found[:-1], out=same[1:-1])
    chosen = same[1:] | same[:-1]
    begins = np.flatnonzero(chosen & ~same[:-1])
    members = pairs.astype(np.uint32)[chosen]
    del pairs, found
    before = np.cumsum(chosen)[begins] - 1
    return members, np.diff(np.append(before, len(members)))


def _rank_keys(parts: Sequence[Signatures], bands: range, rank: np.ndarray, ranked: int) -> np.ndarray:
    keys = np.zeros((len(bands), ranked), np.uint32)
    start = 0
    for part in parts:
        found = np.asarray(part.keys[:, bands.start : bands.stop])
        places = rank[start : start + len(found)]
        chosen = places >= 0
        keys[:, places[chosen]] = found[chosen].T
        start += len(found)
    return keys


def buckets(parts: Sequence[Signatures], order: np.ndarray, memory_bytes: int) -> Buckets:
    """Put the documents of `order` into buckets.

    Args:
        parts: signatures in row order; each part's arrays may be memory maps, and are read one part at a time, in as
            many passes as the memory needs.
        order: int64 [ranked], rows by rank, best first.
        memory_bytes: what the keys read in one pass, and the buckets, may take; larger buckets go to a temporary
            file.
    """
    total = sum(len(part.keys) for part in parts)
    ranked = len(order)
    rank = np.full(total, -1, np.int64)
    rank[order] = np.arange(ranked)
    bands = parts[0].keys.shape[1] if parts else 0
    # A pass holds the keys of some bands, and in sorting one of them about six times its size.
    at_once = int(np.clip(memory_bytes // 2 // (4 * max(ranked, 1)) - 6, 1, max(bands, 1)))
    counts = np.zeros(ranked + 1, np.int64)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    held = 0
    for begin in range(0, bands, at_once):
        span = range(begin, min(begin + at_once, bands))
        keys = _rank_keys(parts, span, rank, ranked)
        for band in range(len(span)):
            members, sizes = _band(keys[band])
            if held + members.nbytes > memory_bytes // 4:
                stored = scratch(members.shape, np.uint32, 0)
                stored[:] = members
                members = stored
            else:
                held += members.nbytes
            counts[1:][members] += 1  # a document is in one bucket of a band
            found.append((members, sizes))
        del keys
    involved = np.flatnonzero(counts[1:])
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[1:][involved])])
    number = np.cumsum(counts[1:] > 0) - 1
    entries = int(first[-1])
    member_of = scratch((entries,), np.uint32, memory_bytes // 4)
    starts = np.concatenate([np.zeros(1, np.int64), *(sizes for _, sizes in found)]).cumsum()
    next_ = first[:-1].copy()
    bucket = 0
    for members, sizes in found:
        bucket = _link(number[members].astype(np.uint32), sizes, bucket, next_, member_of)
    rows = order[involved]
    digest = _digests(parts, rows, memory_bytes)
    return Buckets(rows, digest, first, member_of, starts, scratch((entries,), np.uint32, memory_bytes // 4))


def _digests(parts: Sequence[Signatures], rows: np.ndarray, memory_bytes: int) -> np.ndarray:
    width = parts[0].digest.shape[1] if parts else 8
    digest = scratch((len(rows), width // 8), np.uint64, memory_bytes // 2)
    by_row = np.argsort(rows)
    sorted_rows = rows[by_row]
    start = 0
    for part in parts:
        stop = start + len(part.digest)
        low, high = np.searchsorted(sorted_rows, (start, stop))
        if high > low:
            here = np.ascontiguousarray(part.digest[sorted_rows[low:high] - start])
            digest[by_row[low:high]] = here.view(np.uint64)
        start = stop
    return digest
