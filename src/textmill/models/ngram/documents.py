"""The documents that a counted model is fitted on: all, or whole ones drawn at random. No files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from textmill.tokens.shards import Shards


def draw_documents(
    source: np.ndarray | Shards, document_end: int, max_tokens: int | None = None, seed: int = 0
) -> np.ndarray:
    """The tokens of `source` as one int64 array, cut to `max_tokens` by drawing whole documents at random.

    Documents are taken in the order of a random permutation until the next would not fit, and keep their
    order in the text; when not even the first fits, its beginning is taken.
    """
    if isinstance(source, np.ndarray):
        total = len(source)
        ends = np.flatnonzero(source == document_end) + 1
        if total and (not len(ends) or ends[-1] != total):
            ends = np.append(ends, total)
    else:
        total, ends = source.tokens, np.asarray(source.ends, dtype=np.int64)

    def part(begin: int, end: int) -> np.ndarray:
        return source[begin:end] if isinstance(source, np.ndarray) else source.read(begin, end)

    if max_tokens is None or total <= max_tokens:
        return np.asarray(part(0, total), dtype=np.int64)
    begins = np.concatenate(([0], ends[:-1]))
    drawn = np.random.default_rng(seed).permutation(len(ends))
    fits = int(np.searchsorted(np.cumsum((ends - begins)[drawn]), max_tokens, side="right"))
    if fits == 0:
        return np.asarray(part(int(begins[drawn[0]]), int(begins[drawn[0]]) + max_tokens), dtype=np.int64)
    chosen = np.sort(drawn[:fits])
    return np.concatenate([np.asarray(part(int(begins[i]), int(ends[i])), dtype=np.int64) for i in chosen])
