"""The held-out documents that every row of a measurement is measured on. Reads token shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from textmill.base.errors import Failure
from textmill.models.ngram import draw_documents

if TYPE_CHECKING:
    from textmill.tokens.shards import Shards
    from textmill.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """Documents to measure on, as tokens and as the very same UTF-8 bytes.

    Attributes:
        documents: int64 ids of each document, its end token included.
        text: their UTF-8 text, concatenated with nothing between.
        available: documents there are, of which `documents` may be a part.
    """

    documents: list[np.ndarray]
    text: bytes
    available: int

    @classmethod
    def draw(
        cls, source: np.ndarray | Shards, tokenizer: Tokenizer, max_tokens: int | None = None, seed: int = 0
    ) -> HeldOut:
        """All documents of `source`, or whole ones drawn at random by `seed` up to `max_tokens`."""
        end = tokenizer.document_end
        ids = draw_documents(source, end, max_tokens, seed)
        cuts = np.flatnonzero(ids == end) + 1
        documents = [part for part in np.split(ids, cuts) if len(part)]
        text = tokenizer.decode_bytes(ids.tolist())
        if len(text) != int(tokenizer.byte_lengths[ids].sum()):
            raise Failure(
                "The tokenizer does not count its bytes.",
                "Its byte lengths disagree with what it decodes.",
                "Make the tokens again: delete the run's tokens folder and build again.",
            )
        if not text:
            raise Failure("There is no text to measure.", "No held-out document holds a byte.")
        return cls(documents, text, len(documents) if isinstance(source, np.ndarray) else source.documents)

    @cached_property
    def tokens(self) -> int:
        """Tokens, document ends included."""
        return sum(len(ids) for ids in self.documents)

    @cached_property
    def hash(self) -> str:
        """BLAKE2b-128 of the text, hex."""
        return hashlib.blake2b(self.text, digest_size=16).hexdigest()

    @property
    def drawn(self) -> str:
        """How many documents, for a signature: "12", or "12of40"."""
        count = len(self.documents)
        return str(count) if count == self.available else f"{count}of{self.available}"
