"""One space instead of several, one blank line instead of several. Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.kernels import code_at, inline, kernel, width_of
from textmill.corpus.texts import Texts


@inline
def is_space(code: int) -> bool:
    """Whether a code point is a space within a line: a tab or one of Unicode's category Zs."""
    return (
        code == 32
        or code == 9
        or code == 0xA0
        or code == 0x1680
        or (code >= 0x2000 and code <= 0x200A)
        or code == 0x202F
        or code == 0x205F
        or code == 0x3000
    )


@kernel
def _collapse(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out, places = np.empty(len(data), np.uint8), np.zeros(len(offsets), np.int64)
    to = 0
    for row in range(len(offsets) - 1):
        at, stop, begin = offsets[row], offsets[row + 1], to
        space, breaks = False, 0
        while at < stop:
            byte = data[at]
            width = width_of(byte)
            if byte == 10:
                breaks += 1
                at += 1
                continue
            if is_space(code_at(data, at, width)):
                space = True
                at += width
                continue
            if to > begin:
                if breaks:
                    for _ in range(min(breaks, 2)):
                        out[to] = 10
                        to += 1
                elif space:
                    out[to] = 32
                    to += 1
            space, breaks = False, 0
            for place in range(at, at + width):
                out[to] = data[place]
                to += 1
            at += width
        places[row + 1] = to
    return out[:to], places


def collapse_spaces(texts: Texts) -> Texts:
    """In each of n texts: runs of spaces and tabs become one space, lines lose their blank ends, runs of blank lines
    become one, and both ends of the text lose theirs."""
    return Texts(*_collapse(texts.data, texts.offsets))
