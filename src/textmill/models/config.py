"""The Transformer's shape and switches: one frozen dataclass, presets for known arrangements. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from textmill.base.errors import UsageError


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and arrangement of the decoder. Every part is a named switch; the defaults are what measured best."""

    vocabulary: int = 4096
    """Token ids, a multiple of 64 (aligned matrix products)."""
    context: int = 256
    """Tokens that a prediction can look back on, and the length of a training row."""
    layers: int = 4
    """Blocks of attention and feed-forward."""
    width: int = 256
    """Size of the residual stream."""
    heads: int = 4
    """Attention heads; width / heads is the head size."""
    feed_forward: int = 4
    """Hidden size of the feed-forward part, as a multiple of the width."""
    position: Literal["rotary", "learned"] = "rotary"
    """How order is told: rotary embedding (Su et al. 2021) or a learned table (GPT-2)."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm without weights (Zhang and Sennrich 2019), or LayerNorm with weight and bias."""
    activation: Literal["relu2", "gelu"] = "relu2"
    """Squared ReLU (So et al. 2021), or GELU in its tanh form (GPT-2)."""
    bias: bool = False
    """Bias vectors in the linear layers."""
    qk_norm: bool = True
    """RMSNorm of queries and keys (Henry et al. 2020): keeps attention logits bounded at high learning rates."""
    embedding_norm: bool = True
    """RMSNorm right after the embedding."""
    zero_init: bool = True
    """Output projections start at zero, so that each block starts as the identity."""
    logit_softcap: float = 15.0
    """Logits are capped by cap * tanh(logit / cap); 0 switches it off."""
    tied_head: bool = False
    """Use the embedding table as the output matrix."""
    residual_lambdas: bool = True
    """Learned scalars mixing the residual stream and the embedding into each block's input."""
    value_embeddings: bool = True
    """Every second layer adds a per-token table, gated, to its attention values: capacity without multiplications."""
    bigram_buckets: int = 0
    """Rows of a hashed table of (previous token, token) added to the embedding: an n-gram model inside, without
    multiplications; 0 switches it off."""
    smear: bool = False
    """A learned gate adds the previous token's embedding to the current one."""
    dropout: float = 0.0
    """Share of activations dropped while training (for corpora read many times over)."""

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
        for name in ("vocabulary", "context", "layers", "width", "heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.width // self.heads

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token: the blocks and the head, not the tables that are only looked up."""
        block = (4 + 2 * self.feed_forward) * self.width * self.width
        return self.layers * block + self.vocabulary * self.width

    def flops_per_token(self, context: int | None = None) -> float:
        """Training FLOPs a token, forward and backward: 6 N + 12 L d T (Kaplan et al. 2020, without causal halving)."""
        return 6.0 * self.matmul_parameters + 12.0 * self.layers * self.width * (context or self.context)


@dataclass(frozen=True)
class Switches:
    """Parts of the Transformer to set by hand, each otherwise as the arrangement has it. For ablations."""

    position: Literal["rotary", "learned"] | None = None
    """Rotary embedding (Su et al. 2021), or a learned table of positions."""
    norm: Literal["rms", "layer"] | None = None
    """RMSNorm without weights, or LayerNorm with weight and bias."""
    activation: Literal["relu2", "gelu"] | None = None
    """Squared ReLU, or GELU."""
    bias: bool | None = None
    """Bias vectors in the linear layers."""
    qk_norm: bool | None = None
    """RMSNorm of queries and keys."""
    embedding_norm: bool | None = None
    """RMSNorm right after the embedding."""
    zero_init: bool | None = None
    """Output projections start at zero."""
    logit_softcap: float | None = None
    """Cap of the logits; 0 for none."""
    tied_head: bool | None = None
    """Use the embedding table as the output matrix."""
    residual_lambdas: bool | None = None
    """Learned scalars mixing the embedding into each block's input."""
    value_embeddings: bool | None = None
    """A per-token table added to the attention values of every second layer."""
    bigram_buckets: int | None = None
    """Rows of the hashed table of token pairs; 0 for none."""
    smear: bool | None = None
    """Add the previous token's embedding through a learned gate."""
    dropout: float | None = None
    """Share of activations dropped while training."""
    feed_forward: int | None = None
    """Hidden size of the feed-forward part, as a multiple of the width."""

    def chosen(self) -> dict[str, Any]:
        """Those that were set."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


def gpt2_arrangement(**shape: Any) -> TransformerConfig:
    """The arrangement of GPT-2 (Radford et al. 2019): every modern switch off; exports to the stock class."""
    return TransformerConfig(
        **shape,
        position="learned",
        norm="layer",
        activation="gelu",
        bias=True,
        qk_norm=False,
        embedding_norm=False,
        zero_init=False,
        logit_softcap=0.0,
        tied_head=True,
        residual_lambdas=False,
        value_embeddings=False,
        bigram_buckets=0,
        smear=False,
    )
