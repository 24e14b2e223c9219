"""The n-gram family: counting, smoothing, ARPA and KenLM files, fast queries, and the model over token ids."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "NGram": "model",
        "NGramConfig": "config",
        "Smoothing": "config",
        "draw_documents": "documents",
        "train_words": "train",
        "TrainingConfig": "config",
        "WordModel": "query",
        "open_model": "query",
        "write_arpa": "arpa",
        "read_arpa": "arpa",
    },
)
