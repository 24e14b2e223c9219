"""The families of language models by name: what each is, where it lives, what it can do. Imports no model."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from textmill.base.errors import UsageError, nearest
from textmill.base.files import read_json

Kind = Literal["counted", "neural"]


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: what is typed, as in `--family lstm`.
        label: for people.
        kind: "counted" (fitted by counting or EM) or "neural" (trained by gradients).
        where: "module:class" of the model, below `textmill.models`.
        about: one sentence: what it is and what it is good for.
        generates: whether it can write text from left to right.
        expect: what to expect of its writing, where that is less than of the others.
    """

    name: str
    label: str
    kind: Kind
    where: str
    about: str
    generates: bool = True
    expect: str = ""

    def model_class(self) -> Any:
        """The model's class; imports torch."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(f"textmill.models.{module}"), name)


FAMILIES: dict[str, Family] = {
    one.name: one
    for one in (
        Family(
            "ngram",
            "n-gram",
            "counted",
            "ngram:NGram",
            "Counts of the last few tokens (Kneser-Ney): made in seconds, hard to beat on little text.",
            expect="An n-gram knows only the last few tokens: expect phrases that sound right and lead nowhere.",
        ),
        Family(
            "hmm",
            "hidden Markov",
            "counted",
            "hmm:HiddenMarkov",
            "A few hundred hidden states: tiny and easy to look into, a weak predictor.",
            expect="A hidden Markov model knows which kind of word follows which, not what was said: expect words in a "
            "plausible order, without sense.",
        ),
        Family("rnn", "simple RNN", "neural", "recurrent:Rnn", "The plain recurrent network of 1990, for comparison."),
        Family("gru", "GRU", "neural", "recurrent:Gru", "Gated recurrence: small state, no limit of context."),
        Family(
            "lstm",
            "LSTM",
            "neural",
            "recurrent:Lstm",
            "Gated recurrence with dropout everywhere (AWD-LSTM): strong on small text that is read many times.",
        ),
        Family(
            "mingru",
            "minGRU",
            "neural",
            "recurrent:MinGru",
            "Recurrence that trains in parallel: the modern recurrent choice where speed matters.",
        ),
        Family(
            "mamba",
            "Mamba-2",
            "neural",
            "state_space:Mamba",
            "A state-space model: constant memory however long the text.",
        ),
        Family(
            "transformer",
            "Transformer",
            "neural",
            "transformer:Transformer",
            "Attention over the last tokens, with tables inside: the default, and the best where there is time.",
        ),
        Family(
            "bert",
            "BERT",
            "neural",
            "bert:Bert",
            "Reads in both directions: embeddings and labels, no writing.",
            generates=False,
        ),
        Family(
            "encoder-decoder",
            "encoder-decoder",
            "neural",
            "encoder_decoder:EncoderDecoder",
            "Reads one text, writes another (T5, BART): for translating and rewriting.",
        ),
        Family(
            "autoencoder",
            "autoencoder",
            "neural",
            "variational:Autoencoder",
            "Squeezes a sentence into one vector and writes it back.",
            expect="An autoencoder was trained to copy, not to write: expect fragments.",
        ),
        Family(
            "vae",
            "VAE",
            "neural",
            "variational:Vae",
            "A sentence as a point in a smooth space: sampling and interpolation, likelihood only as a bound.",
            expect="A VAE writes each piece from a new random point: expect sentences that do not follow one another.",
        ),
    )
}
"""In the order in which a comparison trains them: what is quick first."""


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in FAMILIES:
        raise UsageError(
            f'There is no family "{name}".{nearest(name, FAMILIES)}', fix=f"Choose one of: {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]


def family_of(folder: Path) -> str:
    """The family of the model in a folder; a folder that does not say is a Transformer's."""
    try:
        return str(read_json(folder / "config.json").get("textmill_family", "transformer"))
    except (OSError, ValueError, AttributeError):
        return "transformer"  # opening it says what is wrong
