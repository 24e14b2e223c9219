"""Settings of the planner and of the trainer. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError
from textmill.models.config import Switches
from textmill.models.families import family_named
from textmill.models.presets import Arrangement


@dataclass(frozen=True)
class PlanConfig:
    """What you fix yourself; what is left empty, the planner chooses from corpus, budget and machine."""

    family: str = "transformer"
    """Family of the model: ngram, hmm, rnn, gru, lstm, mingru, mamba, transformer, bert, encoder-decoder, autoencoder
    or vae. `build` and `train` take it as --family too."""
    vocabulary: int | None = None
    """Token ids (2,048 to 65,536)."""
    width: int | None = None
    """Size of the residual stream, a multiple of 64."""
    layers: int | None = None
    """Number of blocks."""
    heads: int | None = None
    """Attention heads (by default one for every 64 of width)."""
    context: int | None = None
    """Tokens that a prediction can look back on."""
    batch_tokens: int | None = None
    """Tokens a step."""
    steps: int | None = None
    """Exactly so many steps, whatever the clock says; the budget then only sizes the model."""
    set: tuple[str, ...] = ()
    """Settings of the family itself, name=value each, such as reverse_path=aligned for the VAE."""
    allow_small: bool = False
    """Train on less than 100 kB of text all the same; the result will know its text by heart."""
    embeddings: str = ""
    """Folder of word vectors (`textmill vectors RUN --dimensions WIDTH` makes RUN/vectors) that the token embeddings
    begin with, in place of random ones."""
    arrangement: Arrangement = "modern"
    """modern: the parts that measured best; the others: those of published models, which the stock classes of
    `transformers` open, and llama.cpp as GGUF (all but mistral)."""
    model: Switches = Switches()  # noqa: RUF009 (frozen)
    """Single parts of the arrangement to switch on or off."""

    def __post_init__(self) -> None:
        family_named(self.family)
        object.__setattr__(self, "set", tuple(self.set))  # a list when it comes from JSON
        for name in ("vocabulary", "width", "layers", "heads", "context", "batch_tokens", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")
        if self.vocabulary is not None and not 512 <= self.vocabulary <= 65536:
            raise UsageError(
                f"A vocabulary of {self.vocabulary} is outside 512 to 65,536.",
                "256 bytes and 16 special tokens must fit, and beyond 64k the table only costs time.",
                "Leave it out to let the planner choose.",
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are learned. The defaults were tuned on small corpora and short budgets (docs/LOG.md)."""

    optimizer: Literal["muon", "asgd"] = "muon"
    """muon: Muon for the matrices inside the blocks, AdamW for the rest. asgd: SGD at a constant rate whose weights are
    averaged once validation no longer improves (NT-ASGD of the AWD-LSTM, Merity et al. 2017): for recurrent
    families and hours of time; docs/recipes/awd-lstm.toml holds the rest of that recipe."""
    sgd_rate: float = 30.0
    """Learning rate of asgd, for gradients clipped to 0.25."""
    matrix_rate: float = 0.02
    """Learning rate of Muon, for the matrices inside the blocks."""
    table_rate: float = 0.3
    """Learning rate of AdamW for embedding tables, at width 768; scaled by sqrt(768 / width)."""
    head_rate: float = 0.004
    """Learning rate of AdamW for the output matrix, scaled likewise."""
    dense_rate: float = 0.002
    """Learning rate of AdamW for the matrices of families that Muon does not suit."""
    scalar_rate: float = 0.01
    """Learning rate of AdamW for scalars, gates, norms and biases."""
    momentum: float = 0.95
    """Muon's Nesterov momentum (reached from 0.85 over the first 200 steps)."""
    weight_decay: float = 0.0
    """Muon's cautious weight decay; matters once the text is read many times over."""
    table_decay: float | None = None
    """AdamW's weight decay of the bigram and value tables. They memorize the text once it is read again; by default
    none for the first reading, then 0.05 for each further one, at most 0.1."""
    warmup_steps: int = 20
    """Steps of linear warm-up."""
    decay_share: float = 0.6
    """Last share of the training in which the learning rate falls linearly to zero."""
    clip: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down. 0 switches it off."""
    spike: float = 3.0
    """A step whose loss is this many nats above its running mean is skipped; three in a row go back a checkpoint."""
    checkpoint_seconds: float = 60.0
    """Seconds of training between checkpoints; at most so much work is lost by a kill."""
    validations: int = 12
    """Validations along the training."""
    validation_tokens: int = 65536
    """Tokens of the validation split scored each time; the final evaluation scores all of it."""
    patience: int = 4
    """Validations without improvement before the training stops early and keeps the best weights."""
    compile: bool | None = None
    """Compile the blocks (needs a C++ compiler); by default when there is one and the budget is worth it."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the matrix products; auto is bf16 where this machine multiplies it fast."""
    seed: int = 0
    """Seed of the weights and of the order of the text."""
    threads: int | None = None
    """CPU threads (by default all usable cores). Runs are bit-identical at an equal number."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay_share <= 1:
            raise UsageError(f"decay_share must lie between 0 and 1, not {self.decay_share}.")
        if self.checkpoint_seconds <= 0:
            raise UsageError("checkpoint_seconds must be above 0.")
        rates = ("matrix_rate", "table_rate", "head_rate", "dense_rate", "scalar_rate")
        for name in (*rates, "sgd_rate"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0.")
        idle = ("sgd_rate",) if self.optimizer == "muon" else (*rates, "momentum", "decay_share", "table_decay")
        for name in idle:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise UsageError(
                    f"{name} has no effect with the optimizer {self.optimizer}.",
                    "asgd has one constant rate, sgd_rate; muon has the others.",
                    f"Leave {name} out.",
                )
        if self.threads is not None and self.threads < 1:
            raise UsageError("threads must be at least 1.")
