"""Where a text is cut into segments: at sentence ends and at a greatest length, by what was read alone. Pure rules."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from textmill.models.variational.config import AutoencoderConfig

if TYPE_CHECKING:
    from textmill.tokens.tokenizer import Tokenizer

SENTENCE_ENDS = (*".!?…。！？｡", "\n")
CLOSING = " \t\r\"'”’»)]」』）】"
"""May follow a sentence's end inside the same token."""


def sentence_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the tokens that end a sentence: their text, closing quotes and blanks taken off, ends in one of . ! ?
    or their kin, or they hold a line break."""
    found = []
    for token in range(tokenizer.vocabulary):
        text = tokenizer.decode_bytes([token]).decode("utf-8", "ignore")
        if "\n" in text or text.rstrip(CLOSING).endswith(SENTENCE_ENDS):
            found.append(token)
    return tuple(found)


def end_table(config: AutoencoderConfig) -> np.ndarray:
    """int8 [V]: 2 for the document end, 1 for other tokens that may end a segment, else 0."""
    table = np.zeros(config.vocabulary, dtype=np.int8)
    table[list(config.ends)] = 1
    table[config.document_end] = 2
    return table


def ends_segment(config: AutoencoderConfig, table: np.ndarray, token: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Whether a segment ends with `token`, its `length`-th: a function of what was read, never of what follows.

    So the segments form a prefix-free code, and the product of their probabilities is that of the text.
    """
    kind = table[token]
    return (kind == 2) | ((kind == 1) & (length >= config.shortest)) | (length >= config.segment)


def places(config: AutoencoderConfig, targets: np.ndarray) -> np.ndarray:
    """The place of each target in its segment.

    Each row starts afresh; so does a segment after targets that do not count (-1).

    Args:
        targets: int64 [B, T], -1 where nothing counts.

    Returns:
        int64 [B, T]: 0 for the first token of a segment, -1 where the target is -1.
    """
    result = np.full(targets.shape, -1, dtype=np.int64)
    flat = targets.reshape(-1)
    counted = np.flatnonzero(flat >= 0)
    if not len(counted):
        return result
    kind = end_table(config)[flat[counted]]
    row = counted // targets.shape[1]
    broken = (np.diff(counted) != 1) | (np.diff(row) != 0)
    hard = np.flatnonzero((kind == 2) | np.append(broken, True)).tolist()
    soft = np.flatnonzero(kind == 1).tolist()
    starts, start = [], 0
    while start < len(counted):
        starts.append(start)
        last = min(start + config.segment - 1, hard[bisect_left(hard, start)])
        end = bisect_left(soft, start + config.shortest - 1)
        start = 1 + (min(last, soft[end]) if end < len(soft) else last)
    first = np.array(starts)
    result.reshape(-1)[counted] = np.arange(len(counted)) - np.repeat(first, np.diff(first, append=len(counted)))
    return result


class Segments(NamedTuple):
    """Segments cut out of rows, one a line, in reading order."""

    content: Tensor
    """int64 [n, S], the segment's tokens; -1 after its end."""
    before: Tensor
    """int64 [n, S], the token before each of them; what stands after the end means nothing."""
    row: Tensor
    """int64 [n], the row that each came from."""
    ordinal: Tensor
    """int64 [n], its number in that row."""
    source: Tensor
    """int64 [n, S], index of each token into the flattened rows; 0 after the end."""

    @property
    def lengths(self) -> Tensor:
        """int64 [n]."""
        return (self.content >= 0).sum(1)


def pack(tokens: Tensor, targets: Tensor, place: Tensor) -> Segments:
    """Cut rows into segments.

    Args:
        tokens: int64 [B, T], the token before each target.
        targets: int64 [B, T], -1 where nothing counts.
        place: int64 [B, T], from `places`.
    """
    width = targets.shape[1]
    counted = (place >= 0).flatten().nonzero().squeeze(1)
    inside = place.flatten()[counted]
    first = inside == 0
    line = first.long().cumsum(0) - 1
    n, longest = int(first.sum()), int(inside.max()) + 1 if len(inside) else 0
    content = targets.new_full((n, longest), -1)
    before = tokens.new_zeros((n, longest))
    source = counted.new_zeros((n, longest))
    content[line, inside] = targets.flatten()[counted]
    before[line, inside] = tokens.flatten()[counted]
    source[line, inside] = counted
    row = counted[first] // width
    begins = torch.cat((row.new_ones(1, dtype=torch.bool), row[1:] != row[:-1])) if n else row.bool()
    number = torch.arange(n, device=row.device)
    ordinal = number - torch.cummax(torch.where(begins, number, torch.zeros_like(number)), 0).values if n else number
    return Segments(content, before, row, ordinal, source)
