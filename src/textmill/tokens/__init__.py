"""Documents to token shards: the tokenizer, its vocabulary, the shards on disk, the batches cut from them."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "TokenizerConfig": "config",
        "Tokenizer": "tokenizer",
        "StreamDecoder": "tokenizer",
        "train_tokenizer": "tokenizer",
        "open_tokenizer": "opening",
        "KINDS": "kinds",
        "choose_vocabulary": "vocabulary",
        "ShardWriter": "shards",
        "Shards": "shards",
        "tokenize_corpus": "build",
        "Batches": "batches",
        "validation_blocks": "batches",
    },
)
