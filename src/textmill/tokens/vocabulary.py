"""How large a vocabulary a corpus of a given size can teach. A pure rule; touches nothing."""

from __future__ import annotations

import math
from typing import NamedTuple

from textmill.base.settings import show_bytes

SMALLEST, LARGEST = 2_048, 65_536


class VocabularyChoice(NamedTuple):
    """A number of token ids and why."""

    vocabulary: int
    reason: str


def choose_vocabulary(corpus_bytes: int) -> VocabularyChoice:
    """The power of two that a training split of `corpus_bytes` can teach.

    A larger vocabulary makes a text shorter, but each token is seen less often, and in a small model the
    output layer grows to cost more than all the rest. The rule: V = 4096 · (bytes / 12 MB)^0.4, rounded to a
    power of two from 2,048 to 65,536.

    Args:
        corpus_bytes: UTF-8 bytes of the training split.
    """
    exact = 4096 * (max(corpus_bytes, 1) / 12e6) ** 0.4
    vocabulary = min(LARGEST, max(SMALLEST, 2 ** round(math.log2(exact))))
    size = show_bytes(corpus_bytes)
    if vocabulary == SMALLEST:
        reason = f"{size} of text is little: more tokens than {vocabulary:,} would each be seen too seldom"
    elif vocabulary == LARGEST:
        reason = f"{size} of text could teach more, but {vocabulary:,} is where longer tokens stop paying"
    else:
        reason = f"{size} of text shows each of {vocabulary:,} tokens often enough; more would be seen too seldom"
    return VocabularyChoice(vocabulary, reason)
