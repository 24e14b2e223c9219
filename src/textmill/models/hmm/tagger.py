"""A part-of-speech tagger: a hidden Markov model whose states are tags, learned from tagged text as TnT does it.

Brants 2000, "TnT: a statistical part-of-speech tagger": trigrams of tags smoothed by deleted interpolation, words
emitted by relative frequency, unknown words guessed from their endings. Exact Viterbi search instead of TnT's beam.
Reads and writes a tagger's folder.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from textmill import __version__
from textmill.base.errors import Failure, UsageError
from textmill.base.files import read_json, write_json
from textmill.models.hmm.kernels import fast
from textmill.models.hmm.tagged_text import Tagged

RECORD, COUNTS = "tagger.json", "tagger.safetensors"
RARE = 10
"""Words seen at most so often teach how words end (Brants 2000, section 2.3)."""
ENDING = 10
"""Longest ending looked at, characters (there too)."""
LEAST_SHARE = 1e-4
"""An unknown word may have the tags that are at least this likely after its ending."""


def shape(word: str) -> str:
    """What a word looks like: "digit", "hyphen", "capital", or "plain"; endings are counted for each apart."""
    if any(character.isdigit() for character in word):
        return "digit"
    if "-" in word[1:-1]:
        return "hyphen"
    return "capital" if word[:1].isupper() else "plain"


@fast
def search(
    entries: np.ndarray,
    ends: np.ndarray,
    bounds: np.ndarray,
    tags: np.ndarray,
    log_emissions: np.ndarray,
    lower: np.ndarray,
    pairs: np.ndarray,
    pair_bounds: np.ndarray,
    third: np.ndarray,
    shares: np.ndarray,
    path: np.ndarray,
) -> None:
    """Viterbi over pairs of tags, for many sentences.

    Args:
        entries: int64 [words], the entry of each word.
        ends: int64 [sentences], just after each sentence.
        bounds: int64 [entries + 1]; an entry's tags are tags[bounds[e] : bounds[e + 1]].
        tags: int64, the tags that each entry may have.
        log_emissions: float64, log p(word | tag) of each.
        lower: float64 [T + 1, T + 1], the interpolated share of unigram and bigram, p(c | b) but for the trigram; T is
            the boundary of sentences.
        pairs: int64 [T + 1, T + 1], number of a pair of tags, -1 where it was not seen.
        pair_bounds: int64 [pairs + 1]; tags seen after a pair are third[pair_bounds[p] : pair_bounds[p + 1]], rising.
        third: int64.
        shares: float64, what the trigram adds to p(c | a, b).
        path: int64 [words], filled with the tags.
    """
    boundary = lower.shape[0] - 1
    widest = 1
    for entry in entries:
        widest = max(widest, bounds[entry + 1] - bounds[entry])
    longest, begin = 0, 0
    for end in ends:
        longest = max(longest, end - begin)
        begin = end
    came = np.zeros((longest + 1, widest, widest), np.int64)
    best, new = np.empty((widest, widest)), np.empty((widest, widest))
    alone = np.array([boundary])
    begin = 0
    for end in ends:
        size = end - begin
        # best[a, b]: the likeliest way to the last two tags, candidates a and b of the last two words.
        first, second = alone, alone
        best[0, 0] = 0.0
        for t in range(size + 1):
            if t < size:
                low, high = bounds[entries[begin + t]], bounds[entries[begin + t] + 1]
                options = tags[low:high]
            else:
                low, options = 0, alone
            for b in range(len(second)):
                for c in range(len(options)):
                    new[b, c] = -np.inf
                    came[t, b, c] = 0
                for a in range(len(first)):
                    pair = pairs[first[a], second[b]]
                    so_far = best[a, b]
                    for c in range(len(options)):
                        probability = lower[second[b], options[c]]
                        if pair >= 0:
                            left, right = pair_bounds[pair], pair_bounds[pair + 1]
                            while left < right:
                                middle = (left + right) // 2
                                if third[middle] < options[c]:
                                    left = middle + 1
                                else:
                                    right = middle
                            if left < pair_bounds[pair + 1] and third[left] == options[c]:
                                probability += shares[left]
                        value = so_far + np.log(probability)
                        if t < size:
                            value += log_emissions[low + c]
                        if value > new[b, c]:
                            new[b, c] = value
                            came[t, b, c] = a
            best, new = new, best
            first, second = second, options
        # best[a, 0]: a the last word's tag, then the boundary.
        last = 0
        for a in range(1, len(first)):
            if best[a, 0] > best[last, 0]:
                last = a
        following = 0
        for t in range(size - 1, -1, -1):
            path[begin + t] = tags[bounds[entries[begin + t]] + last]
            earlier = came[t + 1, last, following]
            following, last = last, earlier
        begin = end


@dataclass(frozen=True)
class Accuracy:
    """How many words got the tag that they have in the text."""

    words: int
    right: int
    unknown_words: int
    unknown_right: int
    baseline_right: int
    """By giving every word its most frequent tag, and unknown ones the most frequent tag of words seen once."""

    def to_json(self) -> dict[str, Any]:
        """Counts and shares."""
        known = self.words - self.unknown_words
        return {
            "words": self.words,
            "accuracy": self.right / max(1, self.words),
            "known_words": known,
            "known_accuracy": (self.right - self.unknown_right) / max(1, known),
            "unknown_words": self.unknown_words,
            "unknown_accuracy": self.unknown_right / max(1, self.unknown_words),
            "baseline_accuracy": self.baseline_right / max(1, self.words),
        }


class Tagger:
    """Tags words; made by `learn` or `load`.

    Args:
        tags: names of the tags, T of them.
        words: the words that were seen.
        lexicon: int64 [n, 3]: word, tag, how often together; sorted.
        bigrams: int64 [T + 1, T + 1], how often one tag (row) came before another; T is the boundary of sentences.
        trigrams: int64 [m, 4]: three tags in a row, how often; sorted.
        order: 3, or 2 to look back one tag only.
        tagset: how tags of a text to compare with are to be converted: see `read_tagged`.
    """

    def __init__(
        self,
        tags: list[str],
        words: list[str],
        lexicon: np.ndarray,
        bigrams: np.ndarray,
        trigrams: np.ndarray,
        order: int = 3,
        tagset: str = "given",
    ) -> None:
        if order not in (2, 3):
            raise UsageError(f"A tagger of order {order} cannot be made.", fix="Choose 2 (bigrams) or 3 (trigrams).")
        self.tags, self.words, self.order, self.tagset = tags, words, order, tagset
        self.lexicon, self.bigrams, self.trigrams = lexicon, bigrams, trigrams
        self.number = {word: i for i, word in enumerate(words)}
        self.tag_counts = np.bincount(lexicon[:, 1], weights=lexicon[:, 2], minlength=len(tags)).astype(np.int64)
        self.word_counts = np.bincount(lexicon[:, 0], weights=lexicon[:, 2], minlength=len(words)).astype(np.int64)
        self.bounds = np.searchsorted(lexicon[:, 0], np.arange(len(words) + 1))
        self.weights = self._interpolation()
        self._prepare()

    @classmethod
    def learn(cls, sentences: Sequence[Tagged], order: int = 3, tagset: str = "given") -> Tagger:
        """Count tagged sentences.

        Raises:
            Failure: there is no sentence.
        """
        if not any(sentence.words for sentence in sentences):
            raise Failure("The tagger has nothing to learn from.", "The text holds no tagged word.")
        tags = sorted({tag for sentence in sentences for tag in sentence.tags})
        words = sorted({word for sentence in sentences for word in sentence.words})
        tag_number, word_number = {t: i for i, t in enumerate(tags)}, {w: i for i, w in enumerate(words)}
        seen: Counter[tuple[int, int]] = Counter()
        threes: Counter[tuple[int, int, int]] = Counter()
        boundary = len(tags)
        bigrams = np.zeros((boundary + 1, boundary + 1), dtype=np.int64)
        for sentence in sentences:
            path = [boundary, boundary, *(tag_number[tag] for tag in sentence.tags), boundary]
            seen.update(zip((word_number[word] for word in sentence.words), path[2:-1], strict=True))
            threes.update(zip(path, path[1:], path[2:], strict=False))
            np.add.at(bigrams, (path[1:-1], path[2:]), 1)
        lexicon = np.array(sorted((*pair, count) for pair, count in seen.items()), dtype=np.int64)
        trigrams = np.array(sorted((*three, count) for three, count in threes.items()), dtype=np.int64)
        return cls(tags, words, lexicon, bigrams, trigrams, order, tagset)

    def _interpolation(self) -> np.ndarray:
        """Weights of unigram, bigram and trigram, by deleted interpolation (Brants 2000, figure 1)."""
        first, second, third, counts = self.trigrams.T
        pairs = np.zeros_like(self.bigrams)
        np.add.at(pairs, (first, second), counts)
        single = self.bigrams.sum(axis=0)  # the boundary counted once a sentence
        total = single.sum()

        def share(above: np.ndarray, below: np.ndarray | int) -> np.ndarray:
            return np.divide(above - 1, below - 1, out=np.zeros(len(counts)), where=np.asarray(below) > 1)

        found = np.stack(
            [
                share(single[third], np.full(len(counts), total)),
                share(self.bigrams[second, third], self.bigrams.sum(axis=1)[second]),
                share(counts, pairs[first, second]),
            ]
        )
        if self.order == 2:
            found[2] = -1.0
        largest = 2 - np.argmax(found[::-1], axis=0)  # of equals, the longest history
        weights = np.bincount(largest, weights=counts, minlength=3)
        return np.asarray(weights / weights.sum())

    def _prepare(self) -> None:
        """Probabilities from the counts."""
        size = len(self.tags) + 1
        single = self.bigrams.sum(axis=0) / self.bigrams.sum()
        left = self.bigrams.sum(axis=1, keepdims=True)
        second = np.divide(self.bigrams, left, out=np.zeros((size, size)), where=left > 0)
        # A sliver of every tag, so that no sentence is impossible.
        single = (single + 1e-9) / (single + 1e-9).sum()
        self._lower = self.weights[0] * single + self.weights[1] * second + 1e-12
        first, middle, third, counts = self.trigrams.T
        keys, places = np.unique(first * size + middle, return_inverse=True)
        pairs = np.full(size * size, -1, dtype=np.int64)
        pairs[keys] = np.arange(len(keys))
        self._pairs = pairs.reshape(size, size)
        self._pair_bounds = np.searchsorted(places, np.arange(len(keys) + 1))
        totals = np.bincount(places, weights=counts)
        self._third = np.ascontiguousarray(third)
        self._shares = self.weights[2] * counts / totals[places]
        self._known = np.log(self.lexicon[:, 2] / self.tag_counts[self.lexicon[:, 1]])

    @cached_property
    def _endings(self) -> dict[tuple[str, str], np.ndarray]:
        """Counts of tags, float64 [T], after each shape and ending of the rare words."""
        found: defaultdict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(len(self.tags)))
        for word, tag, count in self.lexicon[self.word_counts[self.lexicon[:, 0]] <= RARE].tolist():
            text = self.words[word]
            kind, text = shape(text), text.lower()
            for size in range(min(ENDING, len(text)) + 1):
                found[kind, text[len(text) - size :]][tag] += count
        return dict(found)

    @cached_property
    def _spread(self) -> float:
        """The weight of the shorter ending: the deviation of the tags' shares (Brants 2000, equation 10)."""
        shares = self.tag_counts / self.tag_counts.sum()
        return float(np.std(shares, ddof=1)) if len(shares) > 1 else 0.0

    def guess(self, word: str) -> np.ndarray:
        """p(tag | shape and ending of an unknown word), float64 [T] (Brants 2000, equations 6 to 8)."""
        shares = self.tag_counts / self.tag_counts.sum()
        kind, text = shape(word), word.lower()
        for size in range(min(ENDING, len(text)) + 1):
            counts = self._endings.get((kind, text[len(text) - size :]))
            if counts is None:
                break
            shares = (counts / counts.sum() + self._spread * shares) / (1 + self._spread)
        return np.asarray(shares)

    def tag(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """The likeliest tags of each sentence's words.

        The first word of a sentence, unknown with its capital, counts as the word without it if that is known.
        """
        listed = [list(sentence) for sentence in sentences]
        entries, ends = [], []
        bounds, tags, emissions = [self.bounds], [self.lexicon[:, 1]], [self._known]
        unknown: dict[str, int] = {}
        size = len(self.lexicon)
        for sentence in listed:
            for place, word in enumerate(sentence):
                entry = self.number.get(word)
                if entry is None and place == 0:
                    entry = self.number.get(word[:1].lower() + word[1:])
                if entry is None:
                    entry = unknown.get(word)
                if entry is None:
                    entry = unknown[word] = len(self.words) + len(unknown)
                    shares = self.guess(word)
                    options = np.flatnonzero((shares >= LEAST_SHARE) & (self.tag_counts > 0))
                    tags.append(options)
                    # p(word | tag) = p(tag | word) p(word) / p(tag), p(word) being the same for all tags.
                    emissions.append(np.log(shares[options] / self.tag_counts[options]))
                    size += len(options)
                    bounds.append(np.array([size]))
                entries.append(entry)
            ends.append(len(entries))
        path = np.empty(len(entries), dtype=np.int64)
        if entries:
            search(
                np.array(entries, dtype=np.int64),
                np.array(ends, dtype=np.int64),
                np.concatenate(bounds),
                np.concatenate(tags),
                np.concatenate(emissions),
                self._lower,
                self._pairs,
                self._pair_bounds,
                self._third,
                self._shares,
                path,
            )
        names = [self.tags[i] for i in path.tolist()]
        return [names[end - len(sentence) : end] for end, sentence in zip(ends, listed, strict=True)]

    @cached_property
    def _usual(self) -> tuple[list[str], str]:
        """The most frequent tag of each word, and that of the words seen once."""
        order = np.lexsort((-self.lexicon[:, 2], self.lexicon[:, 0]))
        first = np.unique(self.lexicon[order, 0], return_index=True)[1]
        once = self.word_counts[self.lexicon[:, 0]] == 1
        rare = np.bincount(self.lexicon[once, 1], minlength=len(self.tags)) if once.any() else self.tag_counts
        return [self.tags[i] for i in self.lexicon[order[first], 1]], self.tags[int(rare.argmax())]

    def measure(self, sentences: Sequence[Tagged]) -> Accuracy:
        """Compare with the tags that sentences have."""
        usual, rare = self._usual
        words = right = unknown = unknown_right = baseline = 0
        for sentence, found in zip(sentences, self.tag(sentence.words for sentence in sentences), strict=True):
            for word, tag, ours in zip(sentence.words, sentence.tags, found, strict=True):
                number = self.number.get(word)
                words += 1
                right += ours == tag
                baseline += (rare if number is None else usual[number]) == tag
                if number is None:
                    unknown += 1
                    unknown_right += ours == tag
        return Accuracy(words, right, unknown, unknown_right, baseline)

    def save(self, folder: Path) -> None:
        """Write tagger.json (tags, words, order) and tagger.safetensors (counts) into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "textmill_tagger": 1,
            "textmill_version": __version__,
            "order": self.order,
            "tagset": self.tagset,
            "tags": self.tags,
            "words": self.words,
        }
        write_json(folder / RECORD, record)
        counts = {"lexicon": self.lexicon, "bigrams": self.bigrams, "trigrams": self.trigrams}
        save_file({name: value.astype(np.int32) for name, value in counts.items()}, folder / COUNTS)

    @classmethod
    def load(cls, folder: Path) -> Tagger:
        """Open a tagger's folder.

        Raises:
            UsageError: there is no tagger.
            Failure: a file is damaged.
        """
        try:
            record = read_json(folder / RECORD)
            counts = {name: value.astype(np.int64) for name, value in load_file(folder / COUNTS).items()}
            return cls(
                record["tags"],
                record["words"],
                counts["lexicon"],
                counts["bigrams"],
                counts["trigrams"],
                record["order"],
                record["tagset"],
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(
                f"There is no tagger at {folder}.",
                f"It has no {RECORD} and {COUNTS}.",
                f"Make one with: textmill tag train TAGGED_TEXT --out {folder}",
            ) from error
        except (json.JSONDecodeError, KeyError, ValueError, IndexError, SafetensorError) as error:
            raise Failure(
                f"The tagger in {folder} cannot be read.",
                f"A file is damaged ({type(error).__name__}: {error}).",
                f"Make it again with: textmill tag train TAGGED_TEXT --out {folder}",
            ) from error
