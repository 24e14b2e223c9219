"""Weights to text: sampling, streaming, chat. Written on the `LanguageModel` protocol alone."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Chat": "chat",
        "Generation": "generate",
        "SamplingConfig": "config",
        "StreamEvent": "generate",
        "generate": "generate",
        "open_model": "loading",
        "stream": "generate",
    },
)
