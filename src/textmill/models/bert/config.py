"""The BERT encoder's shape and switches, and a preset for the stock arrangement. Imports nothing heavy.

Which token plays [MASK]: `<|reserved_0|>`, the first reserved special token of our own tokenizers (id 6); a tokenizer
made elsewhere lends its own `[MASK]` or `<mask>`, or, where it has none of these, the `<|pad|>` that it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from textmill.base.errors import UsageError
from textmill.tokens.special import END, PAD, SPECIAL_TOKENS

MASK_TOKENS = ("[MASK]", "<mask>", "<|reserved_0|>", PAD)
"""Names of the token that plays [MASK], the first that a tokenizer has. None of them occurs in text."""
MASKED_SHARE = 0.15
"""Share of the tokens that are predicted (Devlin et al. 2019, section 3.1)."""


@dataclass(frozen=True)
class BertConfig:
    """Shape and arrangement of the encoder. The defaults are the modern arrangement; `stock_bert` is BERT's own."""

    vocabulary: int = 4096
    """Token ids, a multiple of 64."""
    context: int = 256
    """Tokens of a training row, and of a scored window; the encoder reads one more, the document end before them."""
    layers: int = 4
    """Blocks of attention and feed-forward."""
    width: int = 256
    """Size of the residual stream."""
    heads: int = 4
    """Attention heads; width / heads is the head size."""
    hidden: int = 1024
    """Inner size of the feed-forward part; usually four times the width."""
    token_types: int = 0
    """Rows of the token-type table (BERT's first and second sentence); 0 for no such table."""
    position: Literal["rotary", "learned"] = "rotary"
    """How order is told: rotary embedding (Su et al. 2021) or a learned table of context + 1 rows (BERT)."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm without weights, or LayerNorm with weight and bias."""
    norm_place: Literal["pre", "post"] = "pre"
    """Normalize what enters a block part (Xiong et al. 2020), or the sum that leaves it (BERT)."""
    norm_epsilon: float = 1e-6
    """Added to the variance; BERT has 1e-12."""
    activation: Literal["relu2", "gelu", "gelu_tanh", "relu"] = "relu2"
    """Squared ReLU, GELU by the error function (BERT) or in its tanh form, or ReLU."""
    bias: bool = False
    """Bias vectors in the linear layers."""
    qk_norm: bool = True
    """RMSNorm of queries and keys: keeps attention logits bounded at high learning rates."""
    zero_init: bool = True
    """Output projections start at zero, so that each block starts as the identity."""
    head: Literal["plain", "transform", "none"] = "plain"
    """What predicts masked tokens: the output matrix; or a dense layer, the activation and a normalization before the
    output matrix and its bias (BERT); or nothing (an encoder for embeddings alone)."""
    tied_head: bool = False
    """Use the embedding table as the output matrix."""
    logit_softcap: float = 15.0
    """Logits are capped by cap * tanh(logit / cap); 0 switches it off."""
    pooler: bool = False
    """A dense layer and tanh over the first token, for classification (BERT)."""
    dropout: float = 0.0
    """Share of activations dropped while training."""
    masked_share: float = MASKED_SHARE
    """Share of the tokens that the masked-token objective has predicted."""
    whole_words: bool = True
    """Mask all tokens of a word together, so that no word is guessed from its own pieces."""
    mask: int = SPECIAL_TOKENS.index("<|reserved_0|>")
    """Id of the token that plays [MASK]."""
    begin: int = SPECIAL_TOKENS.index(END)
    """Id of the token before a text that is embedded; its vector is the `cls` embedding."""
    finish: int = SPECIAL_TOKENS.index(END)
    """Id of the token after a text that is embedded."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UsageError(
                f"Width {self.width} cannot be divided over {self.heads} heads.",
                fix="Choose a width that is a multiple of the number of heads.",
            )
        if (self.width // self.heads) % 2 and self.position == "rotary":
            raise UsageError(
                f"Rotary positions need an even head size, not {self.width // self.heads}.",
                fix="Choose another width or number of heads.",
            )
        for name in ("vocabulary", "context", "layers", "width", "heads", "hidden"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.masked_share < 1:
            raise UsageError(
                f"masked_share must lie between 0 and 1, not {self.masked_share:g}.",
                "It is the share of the tokens that are predicted from the others.",
                "0.15 is BERT's.",
            )
        for name in ("mask", "begin", "finish"):
            if not 0 <= getattr(self, name) < self.vocabulary:
                raise UsageError(
                    f"{name} is token {getattr(self, name)}, outside the vocabulary of {self.vocabulary}.",
                    fix="Take the ids from the tokenizer's special tokens: config.with_special(tokenizer.special).",
                )

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.width // self.heads

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token: the blocks, and the head's by the share of tokens that are predicted."""
        block = (4 * self.width + 2 * self.hidden) * self.width
        head = {"plain": self.vocabulary, "transform": self.vocabulary + self.width, "none": 0}[self.head] * self.width
        return self.layers * block + round(self.masked_share * head)

    def flops_per_token(self) -> float:
        """Training FLOPs a token, forward and backward: 6 N + 12 L d T (Kaplan et al. 2020); nothing is causal here."""
        return 6.0 * self.matmul_parameters + 12.0 * self.layers * self.width * self.context

    def with_special(self, special: Mapping[str, int]) -> BertConfig:
        """The same with the ids of a tokenizer's special tokens: [MASK], what begins and what ends a text.

        Args:
            special: `Tokenizer.special`, id by name. `[CLS]` and `[SEP]` stand around a text where it has them,
                else the document end does.

        Raises:
            UsageError: there is no token that could play [MASK].
        """
        found = [special[name] for name in MASK_TOKENS if name in special]
        if not found:
            raise UsageError(
                "This tokenizer has no token that could stand for a masked one.",
                f"It has none of {', '.join(MASK_TOKENS)}.",
                "Take it over with: textmill tokenize RUN --tokenizer PATH",
            )
        end = special.get(END, self.begin)
        return replace(self, mask=found[0], begin=special.get("[CLS]", end), finish=special.get("[SEP]", end))


def stock_bert(
    *,
    vocabulary: int,
    context: int,
    layers: int,
    width: int,
    heads: int,
    hidden: int,
    token_types: int = 2,
    activation: Literal["relu2", "gelu", "gelu_tanh", "relu"] = "gelu",
    norm_epsilon: float = 1e-12,
    head: Literal["plain", "transform", "none"] = "transform",
    pooler: bool = False,
    dropout: float = 0.1,
    masked_share: float = MASKED_SHARE,
    whole_words: bool = True,
    mask: int = BertConfig.mask,
    begin: int = BertConfig.begin,
    finish: int = BertConfig.finish,
) -> BertConfig:
    """BERT's own arrangement (Devlin et al. 2019): every modern switch off; opens in the stock classes.

    Args: as the fields of `BertConfig`.
    """
    return BertConfig(
        vocabulary=vocabulary,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        hidden=hidden,
        token_types=token_types,
        position="learned",
        norm="layer",
        norm_place="post",
        norm_epsilon=norm_epsilon,
        activation=activation,
        bias=True,
        qk_norm=False,
        zero_init=False,
        head=head,
        tied_head=True,
        logit_softcap=0.0,
        pooler=pooler,
        dropout=dropout,
        masked_share=masked_share,
        whole_words=whole_words,
        mask=mask,
        begin=begin,
        finish=finish,
    )


def is_stock(config: BertConfig) -> bool:
    """Whether the arrangement is BERT's own, so that the stock classes open it."""
    free = (
        "vocabulary", "context", "layers", "width", "heads", "hidden", "token_types", "activation", "norm_epsilon",
        "head", "pooler", "dropout", "masked_share", "whole_words", "mask", "begin", "finish",
    )  # fmt: skip
    if config.head == "plain" or config.token_types < 1 or config.activation == "relu2":
        return False
    return config == stock_bert(**{name: getattr(config, name) for name in free})
