"""BERT: reads in both directions, guesses masked tokens, turns texts into vectors."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Bert": "model",
        "BertConfig": "config",
        "stock_bert": "config",
    },
)
