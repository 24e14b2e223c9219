"""Token ids to distributions: one file a family, all behind the `LanguageModel` protocol."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "LanguageModel": "protocol",
        "TransformerConfig": "config",
        "gpt2_arrangement": "config",
        "Transformer": "transformer",
        "NGram": "ngram",
        "load_model": "load",
        "save_model": "load",
    },
)
