"""Chunks of files to batches of drafts, one file a format. Reads files, writes only temporary copies."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(__name__, {"Drafts": "drafts", "Row": "drafts", "read_chunk": "chunk"})
