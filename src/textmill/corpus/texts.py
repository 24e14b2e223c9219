"""Many texts as one buffer: what every step of this room takes and gives. Touches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


class Texts:
    """UTF-8 texts, one after the other; the same memory as an Arrow `large_string` array.

    Args:
        data: uint8 [bytes], valid UTF-8.
        offsets: int64 [n + 1]; text i is `data[offsets[i] : offsets[i + 1]]`.

    Both become read-only here, wherever they came from: numba would otherwise compile and load every kernel twice.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data, self.offsets = _read_only(data), _read_only(offsets)

    @classmethod
    def from_bytes(cls, texts: Sequence[bytes]) -> Texts:
        """From UTF-8 byte strings."""
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), offsets)

    @classmethod
    def from_strings(cls, texts: Iterable[str]) -> Texts:
        """From strings without lone surrogates."""
        return cls.from_bytes([text.encode() for text in texts])

    @classmethod
    def from_arrow(cls, array: Any) -> Texts:
        """From a string, large_string, binary or chunked array without nulls; no copy of a large_string array."""
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
            if isinstance(array, pa.ChunkedArray):
                array = pa.concat_arrays([*array.chunks, pa.array([], array.type)])
        if array.type != pa.large_string() and array.type != pa.large_binary():
            array = array.cast(pa.large_binary() if pa.types.is_binary(array.type) else pa.large_string())
        _, places, values = array.buffers()
        if len(array) == 0 or places is None:
            return cls(np.zeros(0, np.uint8), np.zeros(1, np.int64))
        offsets = np.frombuffer(places, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
        data = np.frombuffer(values, dtype=np.uint8) if values is not None else np.zeros(0, np.uint8)
        first, last = int(offsets[0]), int(offsets[-1])
        return cls(data[first:last], offsets - first if first else offsets)

    def to_arrow(self) -> pa.Array:
        """A large_string array over the same memory."""
        buffers = [
            None,
            pa.py_buffer(np.ascontiguousarray(self.offsets)),
            pa.py_buffer(np.ascontiguousarray(self.data)),
        ]
        return pa.LargeStringArray.from_buffers(len(self), buffers[1], buffers[2])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def string(self, row: int) -> str:
        """Text `row` as a Python string."""
        return self[row].decode()

    def strings(self) -> list[str]:
        """Every text as a Python string."""
        return [self.string(row) for row in range(len(self))]

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each text, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Texts:
        """The texts of these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        sizes = self.sizes[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:])
        data = np.empty(int(offsets[-1]), dtype=np.uint8)
        for at, row in enumerate(rows.tolist()):
            data[offsets[at] : offsets[at + 1]] = self.data[self.offsets[row] : self.offsets[row + 1]]
        return Texts(data, offsets)

    def replace(self, texts: Mapping[int, bytes]) -> Texts:
        """The same texts with those of some rows replaced; itself when none is."""
        if not texts:
            return self
        sizes = self.sizes.copy()
        for row, text in texts.items():
            sizes[row] = len(text)
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:])
        data = np.empty(int(offsets[-1]), dtype=np.uint8)
        start = 0
        for row in [*sorted(texts), len(self)]:  # what lies between two replaced texts is copied whole
            if row > start:
                data[offsets[start] : offsets[row]] = self.data[self.offsets[start] : self.offsets[row]]
            if row < len(self):
                data[offsets[row] : offsets[row + 1]] = np.frombuffer(texts[row], dtype=np.uint8)
            start = row + 1
        return Texts(data, offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[Texts]) -> Texts:
        """All texts of several, in order."""
        if len(parts) == 1:
            return parts[0]
        shifts = np.cumsum([0, *(int(part.offsets[-1]) for part in parts)])
        offsets = [
            np.zeros(1, np.int64),
            *(part.offsets[1:] + shift for part, shift in zip(parts, shifts, strict=False)),
        ]
        return cls(np.concatenate([part.data for part in parts] or [np.zeros(0, np.uint8)]), np.concatenate(offsets))


def _read_only(array: np.ndarray) -> np.ndarray:
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
