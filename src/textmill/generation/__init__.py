"""Weights to text: sampling, streaming, chat. Written on the `LanguageModel` protocol alone."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Chat": "chat",
        "ContrastiveSearch": "contrastive",
        "Generation": "sampling",
        "SamplingConfig": "config",
        "StreamEvent": "sampling",
        "beam_search": "beam",
        "generate": "sampling",
        "open_model": "loading",
        "stream": "sampling",
    },
)
