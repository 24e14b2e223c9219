"""N-gram models with interpolated modified Kneser-Ney smoothing, order 1 (unigram) to 6. No files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from textmill.base.errors import Failure, UsageError

if TYPE_CHECKING:
    from textmill.tokens.shards import Shards

MAX_ORDER = 6
FIXED_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of counts 1, 2 and 3+ where the corpus is too small to estimate them."""
READ_ROWS_BYTES = 32 << 20
"""Working memory of `read` for its double-precision distributions."""


def discounts(counts: np.ndarray) -> np.ndarray:
    """Discounts of counts 0, 1, 2 and 3 or more, float64 [4] (the first is 0), from the counts of one order.

    D_j = j - (j + 1) Y n_(j+1) / n_j with Y = n_1 / (n_1 + 2 n_2), n_j being how many n-grams have count j
    (Chen and Goodman 1998, equations 26 to 28). Where an n_j is 0 or a D_j leaves (0, j], the single discount
    Y serves all three (Ney, Essen and Kneser 1994); where n_1 or n_2 is 0 too, `FIXED_DISCOUNTS`.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if n[1] == 0 or n[2] == 0:
        return np.array([0.0, *FIXED_DISCOUNTS])
    single = n[1] / (n[1] + 2 * n[2])
    if n[3] and n[4]:
        found = [j - (j + 1) * single * n[j + 1] / n[j] for j in (1, 2, 3)]
        if all(0 < d <= j for j, d in zip((1, 2, 3), found, strict=True)):
            return np.array([0.0, *found])
    return np.array([0.0, single, single, single])


@dataclass(frozen=True)
class Level:
    """The n-grams of one order k >= 2, sorted by (context, token).

    A context is named by the place of its own (k-1)-gram in the level below (for k = 2, by its token id), so
    that a key never exceeds n-grams x vocabulary, however long the n-gram.
    """

    keys: np.ndarray
    """int64 [n-grams]: context * vocabulary + token, ascending."""
    shares: np.ndarray
    """float32 [n-grams]: (count - discount) / count of the context."""
    left: np.ndarray
    """float32 [contexts]: the share left to the order below; 1 where nothing followed the context."""
    bounds: np.ndarray
    """int64 [contexts + 1]: the n-grams of context c are bounds[c] to bounds[c + 1]."""

    def find(self, contexts: np.ndarray, tokens: np.ndarray, vocabulary: int) -> np.ndarray:
        """Places of the n-grams (context, token), int64; -1 where the context is -1 or nothing was seen."""
        wanted = contexts * vocabulary + tokens
        places = np.searchsorted(self.keys, wanted)
        places[places == len(self.keys)] = 0
        missing = contexts < 0
        missing |= self.keys[places] != wanted if len(self.keys) else True
        places[missing] = -1
        return places


class NGram:
    """An n-gram language model: interpolated modified Kneser-Ney (Chen and Goodman 1998).

    p_k(w | c) = (count(c w) - D(count(c w))) / count(c .) + left(c) p_(k-1)(w | c without its first token),
    down to the unigram, which is interpolated with the uniform 1 / V: every token of the vocabulary has a
    probability above 0. The highest order uses plain counts, every lower order the number of distinct tokens
    seen before the n-gram. Order 1 alone is the unigram model: plain counts, discounted the same way and
    interpolated with the uniform.

    Documents are independent. A document is read after one document-end token, which plays the part of `<s>`,
    and closes with one, which plays `</s>`. There is no further padding: its first tokens are predicted with
    the shorter history that exists, from n-grams that begin with the document end. These have no token before
    them, so they keep their plain counts in the lower orders (as in KenLM: Heafield, Pouzyrevsky, Clark and
    Koehn 2013).

    Args:
        vocabulary: number of token ids, V.
        document_end: id of the document-end token.
        order: length of the longest n-gram, 1 to 6.
    """

    context: int | None = None

    def __init__(self, vocabulary: int, document_end: int, order: int = 5) -> None:
        if not 1 <= order <= MAX_ORDER:
            raise UsageError(
                f"An n-gram model of order {order} cannot be made.",
                fix=f"Choose an order from 1 to {MAX_ORDER}.",
            )
        self.vocabulary, self.document_end, self.order = vocabulary, document_end, order
        self.unigram = np.full(vocabulary, 1.0 / vocabulary)
        """float64 [V]: the distribution of order 1."""
        self.levels: list[Level] = []
        """Orders 2 and up."""
        self.discounts: list[np.ndarray] = []
        """For each order from 1, the discounts of counts 0, 1, 2 and 3 or more."""
        self.tokens = 0
        """Tokens that the model was fitted on."""
        self._unigrams = 0

    @property
    def parameters(self) -> int:
        """Number of stored n-grams, of all orders together."""
        return self._unigrams + sum(len(level.keys) for level in self.levels)

    def fit(self, source: np.ndarray | Shards, *, max_tokens: int | None = None, seed: int = 0) -> NGram:
        """Count the n-grams of `source`; replaces what was fitted before.

        Takes 100 to 200 bytes of memory for each token at its peak.

        Args:
            source: token ids [N], each document followed by its end token; or shards of such ids.
            max_tokens: fit on at most so many tokens: whole documents, drawn at random by `seed`, in their
                order.
            seed: of that draw.

        Returns:
            the model itself.
        """
        tokens = draw_documents(source, self.document_end, max_tokens, seed)
        if len(tokens) == 0:
            raise Failure("The n-gram model has nothing to count.", "The training split holds no token.")
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.vocabulary:
            raise Failure(
                "The n-gram model cannot count these tokens.",
                f"They hold ids outside 0 to {self.vocabulary - 1}: the shards are of another tokenizer.",
                "Make them again with: textmill tokenize RUN",
            )
        self.tokens, self.levels = len(tokens), []
        starts = np.concatenate(([True], tokens[:-1] == self.document_end))
        place = np.arange(len(tokens), dtype=np.int64)
        offset = (place - np.maximum.accumulate(np.where(starts, place, 0))).astype(np.int32)
        del place

        # ids[i]: the place, in its level, of the n-gram that ends at token i; -1 where the document is too
        # short.
        ids = tokens
        size = self.vocabulary
        counts, keys, opening = np.bincount(tokens, minlength=size), None, np.zeros(size, dtype=bool)
        found: list[np.ndarray] = []
        for order in range(2, self.order + 1):
            contexts = np.empty(len(tokens), dtype=np.int64)
            contexts[1:] = ids[:-1]
            contexts[starts] = self.document_end if order == 2 else -1
            where = np.flatnonzero(contexts >= 0)
            packed = contexts[where] * self.vocabulary + tokens[where]
            del contexts
            sorting = np.argsort(packed)
            packed = packed[sorting]
            first = np.ones(len(packed), dtype=bool)
            np.not_equal(packed[1:], packed[:-1], out=first[1:])
            higher = np.full(len(tokens), -1, dtype=np.int64)
            higher[where[sorting]] = np.cumsum(first) - 1
            at = np.flatnonzero(first)
            seen = where[sorting[at]]  # one place in the text for each n-gram of this order
            del sorting, where
            # Lower order: how many distinct tokens come before, unless the n-gram opens the document.
            distinct = np.bincount(ids[seen], minlength=size)
            self._store(order - 1, keys, np.where(opening, counts, distinct), found)
            counts, keys = np.diff(np.append(at, len(packed))), packed[at]
            opening, ids, size = offset[seen] == order - 2, higher, len(keys)
            del packed, first, at, seen
        self._store(self.order, keys, counts, found)
        self.discounts = found
        return self

    def _store(self, order: int, keys: np.ndarray | None, counts: np.ndarray, found: list[np.ndarray]) -> None:
        """Turn the counts of one order into the shares of its n-grams."""
        discount = discounts(counts)
        found.append(discount)
        taken = discount[np.minimum(counts, 3)]
        if keys is None:
            total = counts.sum()
            self._unigrams = int(np.count_nonzero(counts))
            self.unigram = (counts - taken) / total + taken.sum() / total / self.vocabulary
            return
        contexts = keys // self.vocabulary
        size = self.vocabulary if order == 2 else len(self.levels[-1].keys)
        totals = np.bincount(contexts, weights=counts, minlength=size)
        left = np.ones(size)
        np.divide(np.bincount(contexts, weights=taken, minlength=size), totals, out=left, where=totals > 0)
        bounds = np.zeros(size + 1, dtype=np.int64)
        np.cumsum(np.bincount(contexts, minlength=size), out=bounds[1:])
        shares = (counts - taken) / totals[contexts]
        self.levels.append(Level(keys, shares.astype(np.float32), left.astype(np.float32), bounds))

    def start(self, batch: int) -> np.ndarray:
        """The state before any token, int64 [batch, order - 1]: the place of the last k-gram, -1 for none."""
        return np.full((batch, max(1, self.order - 1)), -1, dtype=np.int64)

    def read(self, tokens: torch.Tensor, state: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Read `tokens` [B, T]: log-probabilities [B, T, V] (nats) after each of them, and the new state."""
        ids = tokens.detach().cpu().numpy().astype(np.int64)
        batch, length = ids.shape
        histories = self._histories(ids, state)
        rows = batch * length
        flat = [history.reshape(rows) for history in histories]
        result = np.empty((rows, self.vocabulary), dtype=np.float32)
        step = max(1, READ_ROWS_BYTES // (8 * self.vocabulary))
        for begin in range(0, rows, step):
            part = slice(begin, min(begin + step, rows))
            result[part] = np.log(self._distributions([history[part] for history in flat]))
        new = np.stack([history[:, -1] for history in histories], axis=1) if length else state
        return torch.from_numpy(result.reshape(batch, length, self.vocabulary)).to(tokens.device), new

    def score(self, ids: np.ndarray) -> np.ndarray:
        """Natural-log probability of each token of one document given those before it, float64 [len(ids)].

        The first token is predicted after a document end. Several documents may follow one another, each with
        its end token: every one is then scored by itself.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        probability = self.unigram[tokens]
        before = np.concatenate(([self.document_end], tokens[:-1]))
        begins = before == self.document_end
        contexts = before
        for level in self.levels:
            places = level.find(contexts, tokens, self.vocabulary)
            known = contexts >= 0
            probability[known] *= level.left[contexts[known]]
            seen = places >= 0
            probability[seen] += level.shares[places[seen]]
            contexts = np.concatenate(([-1], places[:-1]))
            contexts[begins] = -1
        return np.log(probability)

    def _histories(self, tokens: np.ndarray, state: np.ndarray) -> list[np.ndarray]:
        """For k = 1 … order - 1, the place of the k-gram that ends at each of `tokens` [B, T] (-1: none)."""
        histories = [tokens]
        for index, level in enumerate(self.levels[:-1]):
            contexts = np.concatenate([state[:, index : index + 1], histories[-1][:, :-1]], axis=1)
            places = level.find(contexts, tokens, self.vocabulary)
            places[tokens == self.document_end] = -1  # nothing is remembered across the end of a document
            histories.append(places)
        return histories

    def _distributions(self, histories: list[np.ndarray]) -> np.ndarray:
        """The distributions [N, V] after N histories, given as the places of their k-grams, k = 1, 2, …"""
        rows = len(histories[0])
        result = np.repeat(self.unigram[None], rows, axis=0)
        for level, contexts in zip(self.levels, histories, strict=False):
            known = np.flatnonzero(contexts >= 0)
            contexts = contexts[known]
            result[known] *= level.left[contexts][:, None]
            first = level.bounds[contexts]
            widths = level.bounds[contexts + 1] - first
            if not len(widths) or not widths.any():
                continue
            inside = np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths)
            entries = np.repeat(first, widths) + inside
            result[np.repeat(known, widths), level.keys[entries] % self.vocabulary] += level.shares[entries]
        return result


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
