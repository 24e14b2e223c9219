"""How the next token is chosen: one frozen dataclass with vLLM's names. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from textmill.base.errors import UsageError

DEFAULT_MIN_P = 0.05
MOST_ALTERNATIVES = 100
"""Alternatives to each token that may be asked for."""

Texts = Annotated[tuple[str, ...], Parameter(negative=())]
Ids = Annotated[tuple[int, ...], Parameter(negative=())]

OFF = {
    "top_k": (0,),
    "top_p": (1.0,),
    "min_p": (0.0, DEFAULT_MIN_P),
    "typical_p": (1.0,),
    "top_n_sigma": (0.0,),
    "xtc_probability": (0.0,),
    "mirostat": (0,),
    "seed": (None,),
    "n": (1,),
}
"""Settings that shape a draw, and their values at which they do nothing."""


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. The defaults suit small models trained on little text.

    A setting that would have no effect beside the others is an error, so that nobody tunes a knob that turns
    nothing.
    """

    temperature: float = 0.8
    """Divides the scores before sampling: below 1 safer, above 1 wilder, 0 always the likeliest token. A
    small model spreads too much probability over unlikely tokens; 0.8 takes some of that back."""
    top_k: int = 0
    """Keep only the K likeliest tokens; 0 keeps all (a fixed K is too many after "New" and too few after
    "the")."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together hold this share of the probability; 1 keeps all."""
    min_p: float = DEFAULT_MIN_P
    """Drop tokens less likely than this share of the likeliest one's probability; 0 drops none. It cuts the
    long tail of nonsense without taking away choice where many tokens are about equally likely (Nguyen et al.
    2024)."""
    typical_p: float = 1.0
    """Keep the tokens whose surprise is nearest to the expected one, until they hold this share of the probability
    (Meister et al. 2023); 1 keeps all."""
    top_n_sigma: float = 0.0
    """Keep tokens whose score is at most so many standard deviations below the best one's (Tang et al. 2024); it does
    not depend on the temperature. 0 keeps all."""
    xtc_probability: float = 0.0
    """Chance, at each token, that all likely choices but the least likely of them are left out ("exclude top choices"):
    less expected, still sensible text. 0 is off."""
    xtc_threshold: float = 0.1
    """Probability from which on a token counts as a likely choice for xtc_probability."""
    mirostat: Literal[0, 2] = 0
    """2: hold the surprise of the text at mirostat_tau by a feedback rule (Basu et al. 2021, version 2) in place of any
    truncation; 0 is off."""
    mirostat_tau: float = 5.0
    """Surprise in bits a token that mirostat aims at."""
    mirostat_eta: float = 0.1
    """How fast mirostat corrects itself."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that were already read or written less likely (Keskar et al. 2019); 1 is off. Off
    because a small vocabulary has to repeat its tokens to spell; try 1.1 when a model goes round in
    circles."""
    presence_penalty: float = 0.0
    """Taken off the score of every token written already, once (OpenAI); below 0 it favours them."""
    frequency_penalty: float = 0.0
    """Taken off the score of a token for each time that it was written already (OpenAI)."""
    dry_multiplier: float = 0.0
    """Strength of DRY ("don't repeat yourself"): a token that would lengthen a repetition of L tokens loses
    multiplier * base ** (L - allowed_length). Against loops, without punishing single words; try 0.8. 0 is off."""
    dry_base: float = 1.75
    """How fast DRY's penalty grows with the length of the repetition."""
    dry_allowed_length: int = 2
    """Repetitions up to so many tokens are free."""
    dry_range: int = 0
    """How many tokens back DRY looks; 0: over the whole text."""
    dry_breakers: Texts = ("\n", ":", '"', "*")
    """Tokens that contain one of these end a repetition for DRY, so that lists and dialogues may have their form."""
    logit_bias: dict[str, float] = field(default_factory=dict)
    """Added to the scores of single tokens, by id: --logit-bias.42 -5."""
    bad_words: Texts = ()
    """Texts that are never written, however they are cut into tokens; "cat" rules out "concatenate" as well, " cat "
    does not. May be given several times."""
    allowed_token_ids: Ids = ()
    """Write only these tokens (and the end); empty: all."""
    seed: int | None = None
    """The same seed gives the same text; without one a fresh seed is drawn, and reported."""
    stop: Texts = ()
    """End before this text; it is not shown. May be given several times."""
    stop_token_ids: Ids = ()
    """End at any of these tokens."""
    include_stop_str_in_output: bool = False
    """Show the stop text that ended the sample."""
    ignore_eos: bool = False
    """The model may not end its text itself: write on until max_tokens or a stop text."""
    min_tokens: int = 0
    """Before so many tokens neither the model nor a stop text or stop token ends the text."""
    max_tokens: int = 200
    """Write at most this many tokens."""
    n: Annotated[int, Parameter(name=("--n", "-n"))] = 1
    """Samples for each prompt. Sample i is the same text however many are asked for."""
    logprobs: int | None = None
    """Report so many likeliest alternatives to each token written, with their log-probabilities."""
    prompt_logprobs: int | None = None
    """Report the log-probability of each token of the prompt, and so many alternatives to it."""
    echo: bool = False
    """Begin the text with the prompt."""

    def __post_init__(self) -> None:
        for name in ("stop", "bad_words", "dry_breakers"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("stop_token_ids", "allowed_token_ids"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "logit_bias", {str(token): bias for token, bias in dict(self.logit_bias).items()})
        for name, low, high, example in (
            ("temperature", 0.0, 100.0, "--temperature 0.8, or 0 for the likeliest token each time"),
            ("top_p", 0.0, 1.0, "--top-p 0.9, or 1 to keep all tokens"),
            ("min_p", 0.0, 1.0, "--min-p 0.05, or 0 to drop none"),
            ("typical_p", 0.0, 1.0, "--typical-p 0.9, or 1 to keep all tokens"),
            ("top_n_sigma", 0.0, 100.0, "--top-n-sigma 1, or 0 to keep all tokens"),
            ("xtc_probability", 0.0, 1.0, "--xtc-probability 0.5, or 0 for never"),
            ("xtc_threshold", 0.0, 1.0, "--xtc-threshold 0.1"),
            ("mirostat_tau", 0.0, 100.0, "--mirostat-tau 5"),
            ("mirostat_eta", 0.0, 1.0, "--mirostat-eta 0.1"),
            ("repetition_penalty", 0.0, 100.0, "--repetition-penalty 1.1, or 1 for none"),
            ("presence_penalty", -100.0, 100.0, "--presence-penalty 0.5, or 0 for none"),
            ("frequency_penalty", -100.0, 100.0, "--frequency-penalty 0.5, or 0 for none"),
            ("dry_multiplier", 0.0, 100.0, "--dry-multiplier 0.8, or 0 for none"),
            ("dry_base", 1.0, 100.0, "--dry-base 1.75"),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise UsageError(
                    f"{name} is {value}.", f"It has to lie between {low:g} and {high:g}.", f"Try {example}."
                )
        self._check_counts()
        self._check_idle()
        if self.temperature == 0:
            self._check_greedy()

    @property
    def biases(self) -> dict[int, float]:
        """`logit_bias` by token id."""
        return {int(token): bias for token, bias in self.logit_bias.items()}

    def greedy(self) -> SamplingConfig:
        """These settings with the likeliest token each time: all that shapes a draw is left out."""
        off: dict[str, Any] = {name: values[0] for name, values in OFF.items()} | {"min_p": DEFAULT_MIN_P}
        return dataclasses.replace(self, temperature=0.0, xtc_threshold=0.1, mirostat_tau=5.0, mirostat_eta=0.1, **off)

    def _check_counts(self) -> None:
        if 0 < self.temperature < 0.01:
            raise UsageError(
                f"temperature is {self.temperature}.",
                "So close to 0 the scores divided by it overflow.",
                "For the likeliest token each time: --temperature 0.",
            )
        for name in ("top_p", "typical_p"):
            if getattr(self, name) == 0:
                raise UsageError(
                    f"{name} is 0.", "No token would be left.", "For the likeliest token each time: --temperature 0."
                )
        if self.repetition_penalty == 0:
            raise UsageError("repetition_penalty is 0.", "Scores are divided by it.", "Leave it out, or try 1.1.")
        for name, low in (
            ("top_k", 0), ("max_tokens", 1), ("n", 1), ("min_tokens", 0), ("dry_allowed_length", 1), ("dry_range", 0)
        ):  # fmt: skip
            value = getattr(self, name)
            if value < low:
                raise UsageError(f"{name} is {value}.", f"It has to be at least {low}.", f"Leave {name} out.")
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MOST_ALTERNATIVES:
                raise UsageError(
                    f"{name} is {value}.", f"It has to lie between 0 and {MOST_ALTERNATIVES}.", f"Leave {name} out."
                )
        if self.min_tokens > self.max_tokens:
            raise UsageError(
                f"min_tokens is {self.min_tokens}, max_tokens {self.max_tokens}.", fix="Make max_tokens the larger one."
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}.", "It has to lie between 0 and 2**63 - 1.", "Try --seed 1.")
        if "" in self.stop:
            raise UsageError("A stop text is empty.", "Every text contains it.", 'Try --stop "." or leave it out.')
        if "" in self.bad_words:
            raise UsageError("A bad word is empty.", "Every text contains it.", "Leave it out.")
        if self.mirostat not in (0, 2):
            raise UsageError(f"mirostat is {self.mirostat}.", "There are versions 0 (off) and 2.", "Try --mirostat 2.")
        for token, bias in self.logit_bias.items():
            if not (token.isascii() and token.isdecimal() and math.isfinite(bias) and abs(bias) <= 1000):
                raise UsageError(
                    f'The bias of token "{token}" is {bias}.',
                    "A token is given by its id, and a bias lies between -1000 and 1000.",
                    "To rule a text out: --bad-words TEXT.",
                )

    def _check_idle(self) -> None:
        """Settings that do something only beside another one."""
        for owner, names in (
            ("xtc_probability", ("xtc_threshold",)),
            ("mirostat", ("mirostat_tau", "mirostat_eta")),
            ("dry_multiplier", ("dry_base", "dry_allowed_length", "dry_range", "dry_breakers")),
            ("stop", ("include_stop_str_in_output",)),
        ):
            changed = [name for name in names if getattr(self, name) != _default(name)]
            if not getattr(self, owner) and changed:
                raise UsageError(
                    f"{' and '.join(changed)} would have no effect.",
                    f"It belongs to {owner}, which is off.",
                    f"Give {owner} as well, or leave {' and '.join(changed)} out.",
                )
        if self.mirostat:
            cut = [name for name in ("top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability")
                   if getattr(self, name) not in OFF[name]]  # fmt: skip
            if cut:
                raise UsageError(
                    f"{' and '.join(cut)} would have no effect.",
                    "mirostat decides by itself how many tokens are kept.",
                    f"Leave {' and '.join(cut)} out, or mirostat.",
                )

    def _check_greedy(self) -> None:
        """At temperature 0 nothing is drawn, so whatever shapes the drawing would have no effect."""
        idle = [name for name, off in OFF.items() if getattr(self, name) not in off]
        if idle:
            raise UsageError(
                f"{' and '.join(idle)} would have no effect.",
                "At temperature 0 the likeliest token is taken each time; nothing is drawn.",
                f"Leave {' and '.join(idle)} out, or choose a temperature above 0.",
            )


def _default(name: str) -> object:
    """A field's default value."""
    return next(one.default for one in dataclasses.fields(SamplingConfig) if one.name == name)
