"""Files to clean documents: read, clean, judge, deduplicate, split. Writes `RUN/corpus/`."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "CorpusConfig": "config",
        "Sample": "samples",
        "SAMPLES": "samples",
        "build_corpus": "build",
    },
)
