"""Matrices that stay as a GGUF file has them: read from the mapped file, turned into floats where they are used.

The model around them is an ordinary `Transformer`: slower than one in floats, but in no more memory than the file. The
compiled pass (generation/native) takes the blocks themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.gguf.quantization import dequantize
from textmill.models.transformer import Transformer


@dataclass(frozen=True)
class Stored:
    """A matrix in blocks.

    Attributes:
        type: of its numbers, as GGUF names it.
        shape: rows and columns.
        data: uint8 [rows, bytes of a row], perhaps in the mapped file itself.
    """

    type: str
    shape: tuple[int, int]
    data: np.ndarray

    def floats(self, rows: Any = slice(None)) -> Tensor:
        """These rows, float32 [n, columns]."""
        data = np.ascontiguousarray(self.data[rows])
        return torch.from_numpy(dequantize(data.reshape(-1), self.type).reshape(len(data), self.shape[1]))


class StoredLinear(nn.Module):
    """A matrix product with a stored matrix, as `torch.nn.Linear`."""

    def __init__(self, stored: Stored, bias: Tensor | None = None) -> None:
        super().__init__()
        self.stored = stored
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The matrix in floats, made anew at each use."""
        return self.stored.floats()

    def forward(self, x: Tensor) -> Tensor:
        """x [..., columns] to [..., rows]."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class StoredEmbedding(nn.Module):
    """A table of vectors as stored, as `torch.nn.Embedding`."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.stored = stored

    @property
    def weight(self) -> Tensor:
        """The table in floats, made anew at each use."""
        return self.stored.floats()

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] to vectors [..., columns]."""
        rows, places = torch.unique(ids.cpu(), return_inverse=True)
        return self.stored.floats(rows.numpy())[places]


class StoredTransformer(Transformer):
    """A Transformer of matrices that are no parameters."""

    values = 0

    @property
    def size(self) -> int:
        """Number of values, those of the matrices too."""
        return self.values


def stored_of(module: Any) -> Stored | None:
    """The stored matrix of a linear layer or an embedding; None if it is in floats."""
    return module.stored if isinstance(module, StoredLinear | StoredEmbedding) else None
