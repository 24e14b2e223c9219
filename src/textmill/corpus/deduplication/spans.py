"""Spans of texts and cutting them out. Touches nothing but numba's cache of compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from textmill.corpus.kernels import kernel
from textmill.corpus.texts import Texts


class Spans(NamedTuple):
    """Stretches of texts, sorted by row and begin, none overlapping another.

    Attributes:
        row: int64 [k].
        begin, end: int64 [k], bytes of that row's text, at the edges of characters.
    """

    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray


@kernel
def _cut(
    data: np.ndarray,
    offsets: np.ndarray,
    row: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    result: np.ndarray,
    result_offsets: np.ndarray,
) -> int:
    used = 0
    span = 0
    for text in range(offsets.shape[0] - 1):
        start = offsets[text]
        stop = offsets[text + 1]
        at = start
        first = used
        cut_end = False
        while span < row.shape[0] and row[span] == text:
            until = start + begin[span]
            if until > at:
                result[used : used + until - at] = data[at:until]
                used += until - at
            at = max(at, start + end[span])
            cut_end = at == stop
            span += 1
        result[used : used + stop - at] = data[at:stop]
        used += stop - at
        while cut_end and used > first and result[used - 1] <= 0x20:
            used -= 1
        result_offsets[text + 1] = used
    return used


def remove_spans(texts: Texts, spans: Spans) -> Texts:
    """The texts without the spans; where the end of a text goes, so does the white space before it."""
    if not len(spans.row):
        return texts
    result = np.empty(int(texts.offsets[-1]), np.uint8)
    offsets = np.zeros(len(texts) + 1, np.int64)
    row, begin, end = (np.asarray(values, np.int64) for values in spans)
    used = _cut(texts.data, texts.offsets, row, begin, end, result, offsets)
    return Texts(result[:used], offsets)
