"""The Transformer's shape and switches: one frozen dataclass. Imports nothing heavy. Known arrangements: presets.py."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from textmill.base.errors import UsageError
from textmill.models import transformer_shape as shape

Norm = Literal["rms", "layer", "rms-weight", "rms-offset"]
Position = Literal["rotary", "learned", "sinusoidal"]
Activation = Literal["relu2", "gelu", "gelu-exact", "silu"]
Scaling = Literal["none", "linear", "llama3"]


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
    """Attention heads."""
    kv_heads: int = 0
    """Heads of keys and values, each shared by heads / kv_heads heads of queries (grouped-query attention, Ainslie et
    al. 2023); 0: as many as heads."""
    head_dim: int = 0
    """Size of one attention head; 0: width / heads."""
    feed_forward: int = 4
    """Hidden size of the feed-forward part, as a multiple of the width."""
    feed_forward_size: int = 0
    """Hidden size of the feed-forward part itself; 0: feed_forward times the width."""
    gated: bool = False
    """A third matrix gates the hidden values: SwiGLU with activation silu, GeGLU with gelu (Shazeer 2020)."""
    position: Position = "rotary"
    """How order is told: rotary embedding (Su et al. 2021), a learned table (GPT-2), or sines and cosines (Vaswani et
    al. 2017)."""
    rotary_base: float = 10000.0
    """Longest wavelength of the rotary embedding, in units of 2 pi tokens ("rope theta")."""
    rotary_base_local: float = 0.0
    """The same for layers with a window, which are then not slowed down either (Gemma 3); 0: as all layers."""
    rotary_share: float = 1.0
    """Share of each head's values that is rotated."""
    rotary_scaling: Scaling = "none"
    """How rotation is slowed down for contexts longer than those trained on: linear, or by Llama 3.1's rule."""
    rotary_factor: float = 1.0
    """How many times slower."""
    rotary_low: float = 1.0
    """llama3: wavelengths above rotary_original / rotary_low are slowed down in full…"""
    rotary_high: float = 4.0
    """…and those below rotary_original / rotary_high not at all."""
    rotary_original: int = 8192
    """llama3: the context before it was made longer."""
    window: int = 0
    """Tokens that a local layer's attention sees, the token itself included; 0: every layer sees the whole context."""
    window_pattern: str = "L"
    """Which layers are local (L) and which global (G), from the first on, repeated: LLLLLG is Gemma 3's."""
    norm: Norm = "rms"
    """RMSNorm without weights (Zhang and Sennrich 2019), LayerNorm with weight and bias, RMSNorm with a weight, or
    with 1 + weight (Gemma)."""
    norm_epsilon: float = 0.0
    """Added to the variance; 0: 1e-6 for RMSNorm, 1e-5 for LayerNorm."""
    post_norm: bool = False
    """Normalize what attention and feed-forward give, too, before it is added (Gemma 2)."""
    activation: Activation = "relu2"
    """Squared ReLU (So et al. 2021), GELU in its tanh form (GPT-2), GELU proper, or SiLU."""
    bias: bool = False
    """Bias vectors in the linear layers."""
    qkv_bias: bool = False
    """Bias vectors of queries, keys and values alone (Qwen 2)."""
    qk_norm: bool = True
    """RMSNorm of queries and keys (Henry et al. 2020): keeps attention logits bounded at high learning rates."""
    qk_norm_weight: bool = False
    """With a weight for each value of a head (Qwen 3)."""
    attention_scale: float = 0.0
    """Factor of the attention scores; 0: one over the root of the head size."""
    attention_softcap: float = 0.0
    """Attention scores are capped by cap * tanh(score / cap) (Gemma 2); 0 switches it off."""
    embedding_scale: bool = False
    """Multiply the embedding by the root of the width (Vaswani et al. 2017; Gemma)."""
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
    experts: int = 0
    """Experts of the feed-forward part, of which each token uses a few (Shazeer et al. 2017); 0: a plain one."""
    experts_used: int = 2
    """How many experts a token uses: those that the router scores highest."""
    expert_size: int = 0
    """Hidden size of one expert; 0: as the plain feed-forward part."""
    expert_every: int = 1
    """Every how many layers there are experts; the others have the plain feed-forward part."""
    expert_renormalize: bool = True
    """The weights of the experts used sum to one (Mixtral), rather than being the router's own (Qwen 2 MoE)."""
    shared_expert_size: int = 0
    """Hidden size of an expert that every token uses, behind a learned gate (Qwen 2 MoE); 0: none."""
    balance_loss: float = 0.01
    """Weight of the term that keeps the experts evenly used (Fedus et al. 2022, eq. 4), averaged over layers."""

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "width", "heads", "feed_forward", "expert_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("kv_heads", "head_dim", "feed_forward_size", "window", "experts", "expert_size"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, not {getattr(self, name)}.")
        if self.width % self.heads and not self.head_dim:
            raise UsageError(
                f"Width {self.width} cannot be divided over {self.heads} heads.",
                fix="Choose a width that is a multiple of the number of heads, or give head_dim.",
            )
        if self.head_size % 2 and self.position == "rotary":
            raise UsageError(
                f"Rotary positions need an even head size, not {self.head_size}.",
                fix="Choose another width or number of heads.",
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise UsageError(
                f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly.",
                fix=f"Choose a kv_heads that divides {self.heads}.",
            )
        if not self.window_pattern or set(self.window_pattern) - {"L", "G"}:
            raise UsageError(
                f'"{self.window_pattern}" is no pattern of layers.',
                fix="Write L for a layer with a window and G for one that sees everything, such as LLLG.",
            )
        if self.experts and not 1 <= self.experts_used <= self.experts:
            raise UsageError(f"A token cannot use {self.experts_used} of {self.experts} experts.")
        if not 0 < self.rotary_share <= 1 or (self.position == "rotary" and not shape.rotary_size(self)):
            raise UsageError(f"rotary_share must lie above 0 and be at most 1, not {self.rotary_share}.")
        if self.rotary_base <= 0 or self.rotary_factor <= 0:
            raise UsageError("rotary_base and rotary_factor must be above 0.")
        if self.rotary_scaling == "llama3" and not 0 < self.rotary_low < self.rotary_high:
            raise UsageError("rotary_low must lie above 0 and below rotary_high.")

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return shape.head_size(self)

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token: the blocks and the head, not the tables that are only looked up, and of
        the experts only those that a token uses."""
        return self.layers * shape.attention_matrices(self) + self._feed_forward(True) + self.vocabulary * self.width

    @property
    def idle_parameters(self) -> int:
        """Weights of the experts that a token does not use: they take memory, not time."""
        return self._feed_forward(False) - self._feed_forward(True)

    def _feed_forward(self, active: bool) -> int:
        return sum(shape.feed_forward_matrices(self, layer, active) for layer in range(self.layers))

    def flops_per_token(self, context: int | None = None) -> float:
        """Training FLOPs a token, forward and backward: 6 N + 12 L d T (Kaplan et al. 2020, without causal halving),
        with a local layer's window in place of T."""
        length = context or self.context
        seen = sum(min(length, shape.reach(self, layer)) for layer in range(self.layers))
        return 6.0 * self.matmul_parameters + 12.0 * seen * self.heads * self.head_size


@dataclass(frozen=True)
class Switches:
    """Parts of the Transformer to set by hand, each otherwise as the arrangement has it. For ablations."""

    kv_heads: int | None = None
    """Heads of keys and values, shared by several heads of queries; 0: as many as heads."""
    head_dim: int | None = None
    """Size of one attention head; 0: width / heads."""
    position: Position | None = None
    """Rotary embedding (Su et al. 2021), a learned table of positions, or sines and cosines."""
    rotary_base: float | None = None
    """Longest wavelength of the rotary embedding, in units of 2 pi tokens."""
    rotary_share: float | None = None
    """Share of each head's values that is rotated."""
    window: int | None = None
    """Tokens that a local layer's attention sees; 0: every layer sees the whole context."""
    window_pattern: str | None = None
    """Which layers are local (L) and which global (G), repeated, such as LLLG."""
    norm: Norm | None = None
    """RMSNorm without weights, LayerNorm, RMSNorm with a weight, or with 1 + weight."""
    post_norm: bool | None = None
    """Normalize what attention and feed-forward give, too."""
    activation: Activation | None = None
    """Squared ReLU, GELU (tanh form or proper), or SiLU."""
    gated: bool | None = None
    """A third matrix gates the feed-forward part: SwiGLU with silu, GeGLU with gelu."""
    bias: bool | None = None
    """Bias vectors in the linear layers."""
    qkv_bias: bool | None = None
    """Bias vectors of queries, keys and values alone."""
    qk_norm: bool | None = None
    """RMSNorm of queries and keys."""
    qk_norm_weight: bool | None = None
    """That RMSNorm with a weight."""
    attention_softcap: float | None = None
    """Cap of the attention scores; 0 for none."""
    embedding_scale: bool | None = None
    """Multiply the embedding by the root of the width."""
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
    feed_forward_size: int | None = None
    """Hidden size of the feed-forward part itself; 0: the multiple."""
    experts: int | None = None
    """Experts of the feed-forward part, of which each token uses a few; 0: a plain one."""
    experts_used: int | None = None
    """How many experts a token uses."""
    expert_size: int | None = None
    """Hidden size of one expert; 0: as the plain feed-forward part."""
    expert_every: int | None = None
    """Every how many layers there are experts."""
    shared_expert_size: int | None = None
    """Hidden size of an expert that every token uses; 0: none."""
    balance_loss: float | None = None
    """Weight of the term that keeps the experts evenly used."""

    def chosen(self) -> dict[str, Any]:
        """Those that were set."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


def gpt2_arrangement(**shape: Any) -> TransformerConfig:
    """The arrangement of GPT-2 (Radford et al. 2019): every modern switch off; exports to the stock class."""
    from textmill.models.presets import arrange

    return arrange("gpt2", **shape)
