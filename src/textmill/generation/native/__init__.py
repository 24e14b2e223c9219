"""A compiled forward pass for Transformers: quantized weights, paged cache, the same numbers in any company."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Cache": "model",
        "NativeModel": "model",
        "Weights": "packing",
        "best_weights": "model",
        "why_not": "model",
    },
)
