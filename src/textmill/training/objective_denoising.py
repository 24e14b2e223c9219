"""Denoising: the objective of the encoder-decoder. A batch is a pure function of the seed and the step. No files.

Four kinds of rows, by the shares in the configuration (a mixture as in UL2: Tay et al. 2022, section 3.1):
spans    T5's span corruption: spans of the text become sentinels, the decoder writes each sentinel and its span;
infill   BART's noise: spans become one mark each and sentences are shuffled, the decoder writes the whole text;
prefix   the source is the first part of the text, the decoder writes the rest;
plain    the source is empty, the decoder is a language model from left to right.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import UsageError
from textmill.models.encoder_decoder.config import EncoderDecoderConfig
from textmill.tokens.tokenizer import Tokenizer

INFILL_SHARE, INFILL_MEAN = 0.3, 3.0
"""Share of a text that BART's noise takes out, and the mean length of a span (Lewis et al. 2020, section 2.2)."""
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…")
SMALLEST_TEXT = 8
"""A row with fewer tokens is left as plain text."""


class Denoising:
    """Give back what was there before the noise.

    Args:
        config: the model's configuration, whose shares and spans count here.
        special: the tokenizer's special tokens and their ids.
        seed: of what is drawn.
        tokenizer: says which tokens end a sentence; without it sentences are not shuffled.

    Raises:
        UsageError: there are fewer than two sentinels.
    """

    def __init__(
        self, config: EncoderDecoderConfig, special: Mapping[str, int], seed: int, tokenizer: Tokenizer | None = None
    ) -> None:
        self.config, self.seed = config, seed
        self.sentinels = np.array(config.sentinel_ids(special), dtype=np.int64)
        if len(self.sentinels) < 2:
            raise UsageError(
                "Denoising needs two sentinels at least.",
                "One marks a gap of span corruption, another the gaps of BART's noise.",
                "Set sentinels to 64.",
            )
        self._ends = np.zeros(config.rows, dtype=bool)
        if tokenizer is not None:
            for token in range(tokenizer.vocabulary):
                piece = tokenizer.decode_bytes([token]).decode("utf-8", "ignore").rstrip()
                self._ends[token] = piece.endswith(SENTENCE_ENDS)

    def batch(self, tokens: np.ndarray, targets: np.ndarray, step: int) -> dict[str, Tensor]:
        """Sources, and what the decoder reads and writes.

        Args:
            tokens: int64 [B, T].
            targets: int64 [B, T], the token after each, -1 where it does not count.
            step: number of the step.

        Returns:
            "source" int64 [B, T + 1], each closed by the document end and padded with it; "source_length" int64 [B];
            "tokens" and "targets" int64 [B, T] of the decoder, -1 after the end of what it writes.
        """
        config = self.config
        B, T = tokens.shape
        source = np.full((B, T + 1), config.document_end, dtype=np.int64)
        lengths = np.ones(B, dtype=np.int64)
        read = np.full((B, T), config.document_end, dtype=np.int64)
        write = np.full((B, T), -1, dtype=np.int64)
        bounds = np.cumsum([config.span_share, config.infill_share, config.prefix_share])
        for row in range(B):
            random = np.random.default_rng([self.seed, step, row])
            kind = int(np.searchsorted(bounds, random.random(), side="right"))
            text = targets[row][targets[row] >= 0]
            if kind == 3 or len(text) < SMALLEST_TEXT:
                read[row], write[row] = tokens[row], targets[row]
                continue
            given, answer = (self.corrupt_spans, self.infill, self.cut)[kind](text[: T - 1], random)
            given = given[:T]  # BART's marks that stand for nothing may make a text longer
            source[row, : len(given)] = given
            lengths[row] = len(given) + 1
            write[row, : len(answer)] = answer
            read[row, 1 : len(answer)] = answer[:-1]
        return {
            name: torch.from_numpy(value)
            for name, value in {"tokens": read, "targets": write, "source": source, "source_length": lengths}.items()
        }

    def corrupt_spans(self, text: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """T5's span corruption (Raffel et al. 2020, section 3.1.4): the text with gaps, and the gaps' contents.

        Args:
            text: int64 [n], at least 2.
            random: what is drawn comes from here.

        Returns:
            the source without its end, and what the decoder writes, its end included: for each gap its sentinel and
            what was there.
        """
        noise = min(max(1, round(len(text) * self.config.noise_share)), len(text) - 1)
        count = max(1, round(noise / self.config.mean_span))
        count = min(count, noise, len(text) - noise, len(self.sentinels) - 1)
        kept, gone = _cut(len(text) - noise, count, random), _cut(noise, count, random)
        given: list[np.ndarray] = []
        answer: list[np.ndarray] = []
        place = 0
        for i in range(count):
            sentinel = self.sentinels[i : i + 1]
            given += [text[place : place + kept[i]], sentinel]
            answer += [sentinel, text[place + kept[i] : place + kept[i] + gone[i]]]
            place += kept[i] + gone[i]
        return np.concatenate(given), np.concatenate([*answer, [self.config.document_end]])

    def infill(self, text: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """BART's noise (Lewis et al. 2020, section 2.2): text infilling and sentence permutation.

        Args:
            text: int64 [n].
            random: what is drawn comes from here.

        Returns:
            the source without its end, in which the last sentinel stands for each span taken out, whose lengths are
            Poisson-distributed (a length of 0 puts a mark where nothing is missing); and the text and its end.
        """
        mark = self.sentinels[-1:]
        budget = round(INFILL_SHARE * len(text))
        gone = np.zeros(len(text), dtype=bool)
        before = np.zeros(len(text), dtype=bool)  # where a mark stands for nothing
        while budget > 0:
            length, start = int(random.poisson(INFILL_MEAN)), int(random.integers(0, len(text)))
            before[start] |= length == 0
            gone[start : start + min(length, budget)] = True
            budget -= max(length, 1)
        borders = np.flatnonzero(self._ends[text]) + 1
        sentences = np.split(np.arange(len(text)), borders[borders < len(text)])
        given: list[np.ndarray] = []
        for i in random.permutation(len(sentences)):
            for place in sentences[i].tolist():
                if before[place] or (gone[place] and (place == sentences[i][0] or not gone[place - 1])):
                    given.append(mark)
                if not gone[place]:
                    given.append(text[place : place + 1])
        return np.concatenate(given), np.append(text, self.config.document_end)

    def cut(self, text: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Prefix language modelling: the first part of a text, and the rest, which has no end of its own."""
        place = int(random.integers(1, len(text)))
        return text[:place], text[place:]


def _cut(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """Lengths of `parts` parts of at least 1 that `total` falls into, each way equally likely."""
    borders = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.zeros(0, np.int64)
    return np.diff(np.concatenate(([0], borders, [total]))).astype(np.int64)
