"""Hidden Markov models: the language model, learned by Baum-Welch, and the part-of-speech tagger."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "HiddenMarkov": "model",
        "HiddenMarkovConfig": "config",
        "Tagger": "tagger",
    },
)
