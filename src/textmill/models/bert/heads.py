"""Heads on an encoder: one label for a text, or one for each token. Trained by whoever has labels. No files.

Both have the shapes of their stock counterparts: `BertForSequenceClassification` and `BertForTokenClassification`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from textmill.base.errors import UsageError
from textmill.models.bert.model import Bert
from textmill.models.transformer_parts import linear


class Classifier(nn.Module):
    """A label for a whole text, from the pooled first token.

    Args:
        encoder: an encoder; it is trained along. Without a pooler of its own the first token's vector is taken as it
            is.
        labels: how many there are, at least 2.
        dropout: share of the pooled vector dropped while training.
    """

    def __init__(self, encoder: Bert, labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        _check_labels(labels)
        self.encoder, self.labels, self.dropout = encoder, labels, dropout
        self.output = nn.Linear(encoder.config.width, labels)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens_BT: Tensor, lengths_B: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Logits, float32 [B, labels].

        Args:
            tokens_BT: int64, each text between `config.begin` and `config.finish`, padded at its end.
            lengths_B: int64, tokens of each row without the padding; None where there is none.
            types_BT: int64, the sentence of each token, of pairs of sentences.
        """
        pooled = self.encoder.pooled(self.encoder.hidden(tokens_BT, lengths_B, types_BT))
        return linear(self.output, F.dropout(pooled, self.dropout, self.training)).float()

    def loss(self, tokens_BT: Tensor, lengths_B: Tensor | None, labels_B: Tensor) -> Tensor:
        """Mean cross-entropy in nats; a label of -1 does not count."""
        return F.cross_entropy(self(tokens_BT, lengths_B), labels_B, ignore_index=-1)


class Tagger(nn.Module):
    """A label for each token, such as a part of speech.

    Args:
        encoder: an encoder; it is trained along.
        labels: how many there are, at least 2.
        dropout: share of the hidden vectors dropped while training.
    """

    def __init__(self, encoder: Bert, labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        _check_labels(labels)
        self.encoder, self.labels, self.dropout = encoder, labels, dropout
        self.output = nn.Linear(encoder.config.width, labels)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits, float32 [B, T, labels]; arguments as for `Classifier`."""
        hidden = self.encoder.hidden(tokens_BT, lengths_B)
        return linear(self.output, F.dropout(hidden, self.dropout, self.training)).float()

    def loss(self, tokens_BT: Tensor, lengths_B: Tensor | None, labels_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the tokens; -1 (padding, later pieces of a word) does not count."""
        return F.cross_entropy(self(tokens_BT, lengths_B).flatten(0, 1), labels_BT.flatten(), ignore_index=-1)


def _check_labels(labels: int) -> None:
    if labels < 2:
        raise UsageError(f"{labels} label is nothing to choose from.", fix="Give at least 2 labels.")
