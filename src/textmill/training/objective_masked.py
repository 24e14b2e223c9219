"""Masked tokens: the objective of BERT. A batch's masks are a pure function of the seed and the step. No files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import Failure
from textmill.models.bert.config import BertConfig
from textmill.models.bert.words import Words
from textmill.tokens.tokenizer import Tokenizer

SHOWN_AS_MASK, SHOWN_AS_OTHER = 0.8, 0.1
"""Of the tokens asked for, the share shown as [MASK] and the share shown as some other token; the rest is shown as it
is (Devlin et al. 2019, section 3.1)."""


class MaskedToken:
    """Ask for a share of the tokens, given the others.

    Args:
        config: the model's configuration; `masked_share`, `whole_words` and `mask` count here.
        special: the tokenizer's special tokens and their ids.
        seed: of what is drawn.
        tokenizer: says where words begin; without it every token is taken for a word of its own.

    Raises:
        Failure: the configuration's [MASK] is a token that occurs in text.
    """

    def __init__(
        self, config: BertConfig, special: Mapping[str, int], seed: int, tokenizer: Tokenizer | None = None
    ) -> None:
        if config.mask not in special.values():
            raise Failure(
                f"Token {config.mask} cannot play [MASK].",
                "It is none of the tokenizer's special tokens, so it may occur in text.",
                "Make the configuration with config.with_special(tokenizer.special).",
            )
        self.config, self.seed = config, seed
        self.words = Words(tokenizer) if tokenizer is not None and config.whole_words else None
        ordinary = np.ones(config.vocabulary, dtype=bool)
        ordinary[[i for i in special.values() if i < config.vocabulary]] = False
        self._ordinary = np.flatnonzero(ordinary)

    def batch(self, tokens: np.ndarray, targets: np.ndarray, step: int) -> dict[str, Tensor]:
        """Rows with masks, and what is asked.

        Args:
            tokens: int64 [B, T], the text.
            targets: int64 [B, T], the token after each; what is -1 there is not asked here either.
            step: number of the step.

        Returns:
            "tokens" int64 [B, T], and "targets" int64 [B, T]: the token that stood there, -1 where nothing is asked.
            Words are drawn whole, each with the probability `masked_share`, at least one a row.
        """
        random = np.random.default_rng([self.seed, step])
        counts = np.concatenate((targets[:, :1], targets[:, :-1]), 1) >= 0
        words = np.arange(tokens.shape[1])[None].repeat(len(tokens), 0)
        if self.words is not None:
            words = self.words.number(tokens)
        draws = random.random(tokens.shape)
        asked = np.take_along_axis(draws, words, 1) < self.config.masked_share
        least = np.take_along_axis(words, np.where(counts, draws, 2.0).argmin(1)[:, None], 1)
        empty = ~(asked & counts).any(1, keepdims=True)
        asked = (asked | (empty & (words == least))) & counts
        shown = random.random(tokens.shape)
        others = self._ordinary[random.integers(0, len(self._ordinary), tokens.shape)]
        changed = np.where(shown < SHOWN_AS_MASK, self.config.mask, others)
        changed = np.where(asked & (shown < SHOWN_AS_MASK + SHOWN_AS_OTHER), changed, tokens)
        return {"tokens": torch.from_numpy(changed), "targets": torch.from_numpy(np.where(asked, tokens, -1))}
