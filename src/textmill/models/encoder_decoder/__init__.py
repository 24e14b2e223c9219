"""Encoder-decoders (T5, BART): one text is read, another written."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "EncoderDecoder": "model",
        "EncoderDecoderConfig": "config",
        "t5_arrangement": "config",
    },
)
