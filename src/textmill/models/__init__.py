"""Token ids to distributions: a file or a folder for each family, all behind the `LanguageModel` protocol."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "LanguageModel": "protocol",
        "TransformerConfig": "config",
        "arrange": "presets",
        "gpt2_arrangement": "config",
        "Transformer": "transformer",
        "NGram": "ngram",
        "load_model": "load",
        "save_model": "load",
        "import_model": "importer",
        "export_folder": "exporter",
        "export_gguf": "exporter",
    },
)
