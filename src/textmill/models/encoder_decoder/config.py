"""The encoder-decoder's shape and switches, and a preset for the arrangement of T5 v1.1. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from textmill.base.errors import UsageError
from textmill.tokens.special import END, SPECIAL_TOKENS

NOISE_SHARE = 0.15
"""Share of a text that span corruption takes out (Raffel et al. 2020, section 3.1.4)."""


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """Shape, arrangement and training mixture. The defaults are the modern arrangement; `t5_arrangement` is T5's own.

    As a language model it reads an empty source, one document end, and the decoder goes from left to right.
    """

    vocabulary: int = 4096
    """Token ids of the tokenizer, a multiple of 64."""
    context: int = 256
    """Tokens that the decoder can look back on, the length of a training row, and the longest source."""
    encoder_layers: int = 2
    """Blocks of attention and feed-forward that read the source."""
    decoder_layers: int = 4
    """Blocks of attention, cross-attention and feed-forward that write."""
    width: int = 256
    """Size of the residual stream."""
    heads: int = 4
    """Attention heads."""
    head_size: int = 64
    """Size of one head; heads times head size need not be the width."""
    hidden: int = 1024
    """Inner size of the feed-forward part; usually four times the width."""
    sentinels: int = 64
    """Ids after the vocabulary that stand for the gaps of a corrupted text; 0 where the tokenizer has its own."""
    position: Literal["rotary", "relative"] = "rotary"
    """How order is told: rotary embedding (Su et al. 2021), or a learned bias by bucketed distance, the same in all
    layers (T5: Raffel et al. 2020, section 2.1). Cross-attention knows no order."""
    buckets: int = 32
    """Buckets of the relative distance."""
    furthest: int = 128
    """Distance from which on all share the last bucket."""
    activation: Literal["relu2", "gated_gelu", "relu"] = "relu2"
    """Squared ReLU, GELU (tanh form) that gates a second linear layer (T5 v1.1), or ReLU (T5)."""
    qk_norm: bool = True
    """RMSNorm of queries and keys, and scores divided by the root of the head size; T5 does neither."""
    embedding_norm: bool = True
    """RMSNorm right after the embedding."""
    zero_init: bool = True
    """Output projections start at zero, so that each block starts as the identity."""
    tied_head: bool = False
    """Use the embedding table as the output matrix, its logits divided by the root of the width (T5, not v1.1)."""
    logit_softcap: float = 15.0
    """Logits are capped by cap * tanh(logit / cap); 0 switches it off."""
    norm_epsilon: float = 1e-6
    """Added to the mean square in RMSNorm."""
    dropout: float = 0.0
    """Share of activations dropped while training."""
    span_share: float = 0.25
    """Share of the training rows for span corruption: spans become sentinels, the decoder writes what was there."""
    infill_share: float = 0.1
    """Share for BART's noise: spans become one mark, sentences are shuffled, the decoder writes the whole text."""
    prefix_share: float = 0.15
    """Share for prefix language modelling: the source is the first part of a row, the decoder writes the rest. What is
    left of the rows has an empty source: the decoder alone, a language model from left to right."""
    noise_share: float = NOISE_SHARE
    """Share of a text that span corruption takes out."""
    mean_span: float = 3.0
    """Mean length in tokens of what it takes out at once."""
    document_end: int = SPECIAL_TOKENS.index(END)
    """Id of the token that is the empty source, ends a source, and starts and ends what the decoder writes."""

    def __post_init__(self) -> None:
        for name in (
            "vocabulary", "context", "encoder_layers", "decoder_layers", "width", "heads", "head_size", "hidden",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.head_size % 2 and self.position == "rotary":
            raise UsageError(
                f"Rotary positions need an even head size, not {self.head_size}.", fix="Choose another head size."
            )
        if self.buckets < 4 or self.buckets % 4 or self.furthest <= self.buckets:
            raise UsageError(
                f"{self.buckets} buckets for distances up to {self.furthest} are not possible.",
                "Half of them are for each direction, and half of those for single distances.",
                "Choose a multiple of 4, and a furthest distance above it; T5 has 32 and 128.",
            )
        shares = (self.span_share, self.infill_share, self.prefix_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise UsageError(
                f"The shares of the training rows are {', '.join(f'{share:g}' for share in shares)}.",
                "Each has to be at least 0, and together at most 1; the rest is for plain text.",
                "For example: span_share 0.25, infill_share 0.1, prefix_share 0.15.",
            )
        if not 0 < self.noise_share < 1 or self.mean_span < 1:
            raise UsageError(
                f"Spans of {self.mean_span:g} tokens over a share of {self.noise_share:g} cannot be taken out.",
                fix="Choose a share between 0 and 1 and spans of at least one token; T5 has 0.15 and 3.",
            )
        if not 0 <= self.document_end < self.vocabulary:
            raise UsageError(
                f"document_end is token {self.document_end}, outside the vocabulary of {self.vocabulary}.",
                fix="Take it from the tokenizer: config.with_special(tokenizer.special).",
            )

    @property
    def rows(self) -> int:
        """Rows of the embedding table: the vocabulary, and the sentinels after it."""
        return self.vocabulary + self.sentinels

    def _attention(self) -> int:
        return 4 * self.width * self.heads * self.head_size

    def _feed(self) -> int:
        return (3 if self.activation == "gated_gelu" else 2) * self.width * self.hidden

    @property
    def encoder_parameters(self) -> int:
        """Weights that multiply each token of the source."""
        return self.encoder_layers * (self._attention() + self._feed())

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token that the decoder reads; the source's are `encoder_parameters`."""
        return self.decoder_layers * (2 * self._attention() + self._feed()) + self.rows * self.width

    def flops_per_token(self) -> float:
        """Training FLOPs for each token of text, forward and backward, over the training mixture.

        6 N for the weights (cross-attention's keys and values multiply the source, counted with the decoder here)
        and 12 d T a layer for attention. A row of span corruption has its text in the encoder and a quarter of it in
        the decoder; of BART's noise, all in both; of a prefix, half and half; of plain text, all in the decoder.
        """
        plain = 1 - self.span_share - self.infill_share - self.prefix_share
        encoded = self.span_share + self.infill_share + 0.5 * self.prefix_share
        decoded = 0.25 * self.span_share + self.infill_share + 0.5 * self.prefix_share + plain
        attention = 12.0 * self.heads * self.head_size * self.context
        encoder = 6.0 * self.encoder_parameters + attention * self.encoder_layers
        decoder = 6.0 * self.matmul_parameters + 2 * attention * self.decoder_layers
        return encoded * encoder + decoded * decoder

    def with_special(self, special: Mapping[str, int]) -> EncoderDecoderConfig:
        """The same with the ids of a tokenizer's special tokens: the document end, and T5's own sentinels if any.

        Args:
            special: `Tokenizer.special`, id by name.
        """
        own = 0 if "<extra_id_0>" in special else self.sentinels
        return replace(self, document_end=special.get(END, self.document_end), sentinels=own)

    def sentinel_ids(self, special: Mapping[str, int]) -> list[int]:
        """Ids of the sentinels in their order: those after the vocabulary, or the tokenizer's `<extra_id_N>`.

        Args:
            special: `Tokenizer.special`.

        Raises:
            UsageError: there is none.
        """
        if self.sentinels:
            return list(range(self.vocabulary, self.rows))
        found: list[int] = []
        while (name := f"<extra_id_{len(found)}>") in special:
            found.append(special[name])
        if not found:
            raise UsageError(
                "There are no sentinels for span corruption.",
                "The configuration adds none, and the tokenizer has no <extra_id_0>.",
                "Set sentinels to 64.",
            )
        return found


def t5_arrangement(
    *,
    vocabulary: int,
    context: int,
    encoder_layers: int,
    decoder_layers: int,
    width: int,
    heads: int,
    head_size: int,
    hidden: int,
    buckets: int = 32,
    furthest: int = 128,
    activation: Literal["relu2", "gated_gelu", "relu"] = "gated_gelu",
    tied_head: bool = False,
    norm_epsilon: float = 1e-6,
    dropout: float = 0.1,
    document_end: int = EncoderDecoderConfig.document_end,
    sentinels: int = 0,
) -> EncoderDecoderConfig:
    """The arrangement of T5 v1.1 (Shazeer 2020; Raffel et al. 2020): every modern switch off.

    Args: as the fields of `EncoderDecoderConfig`. `activation="relu", tied_head=True` is the first T5.
    """
    return EncoderDecoderConfig(
        vocabulary=vocabulary,
        context=context,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        heads=heads,
        head_size=head_size,
        hidden=hidden,
        sentinels=sentinels,
        position="relative",
        buckets=buckets,
        furthest=furthest,
        activation=activation,
        qk_norm=False,
        embedding_norm=False,
        zero_init=False,
        tied_head=tied_head,
        logit_softcap=0.0,
        norm_epsilon=norm_epsilon,
        dropout=dropout,
        document_end=document_end,
    )


def is_t5(config: EncoderDecoderConfig) -> bool:
    """Whether the arrangement is T5's, so that the stock class opens it."""
    return (
        config.position == "relative"
        and config.activation != "relu2"
        and not (config.qk_norm or config.embedding_norm or config.logit_softcap)
    )
