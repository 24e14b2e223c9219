"""Token ids on disk: flat memory-mapped shards with document bounds. Reads and writes a tokens folder."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from textmill.base.errors import Failure, UsageError, nearest
from textmill.base.files import read_json

INDEX_FILE = "index.json"


def shard_dtype(vocabulary: int) -> str:
    """The smallest id type on disk: uint16 up to 65,536 ids, else uint32."""
    return "uint16" if vocabulary <= 65_536 else "uint32"


class ShardWriter:
    """Writes one split's documents into `SPLIT-NNNNN.bin` and `SPLIT-NNNNN.ends.npy`.

    A document is never cut between shards; one that is larger than `shard_tokens` gets a shard of its own.

    Args:
        folder: where to write.
        split: "train", "validation" or "test".
        dtype: "uint16" or "uint32".
        document_end: the id written after every document.
        shard_tokens: tokens after which a new shard begins.
    """

    def __init__(
        self, folder: Path, split: str, dtype: str, document_end: int, shard_tokens: int = 100_000_000
    ) -> None:
        self.folder, self.split, self.dtype = folder, split, np.dtype(dtype).newbyteorder("<")
        self.document_end, self.shard_tokens = document_end, shard_tokens
        self.tokens = self.documents = self.bytes = 0
        self._shards: list[dict[str, Any]] = []
        self._stream: BinaryIO | None = None
        self._ends = array("q")
        self._filled = 0

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int) -> None:
        """Append one document (without its end token), `text_bytes` UTF-8 bytes long."""
        if self._stream is not None and self._filled + len(ids) + 1 > self.shard_tokens:
            self._finish_shard()
        if self._stream is None:
            self._stream = (self.folder / f"{self._name()}.bin").open("wb", buffering=1 << 20)
        values = np.empty(len(ids) + 1, dtype=self.dtype)
        values[:-1] = ids
        values[-1] = self.document_end
        self._stream.write(values.tobytes())
        self._filled += len(values)
        self._ends.append(self._filled)
        self.bytes += text_bytes

    def close(self) -> dict[str, Any]:
        """Finish the last shard and return this split's entry of `index.json`."""
        self._finish_shard()
        return {
            "shards": self._shards,
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
        }

    def _name(self) -> str:
        return f"{self.split}-{len(self._shards):05d}"

    def _finish_shard(self) -> None:
        if self._stream is None:
            return
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._stream = None
        name = self._name()
        with (self.folder / f"{name}.ends.npy").open("wb") as stream:
            np.save(stream, np.frombuffer(self._ends, dtype="<i8"))
            stream.flush()
            os.fsync(stream.fileno())
        self._shards.append({"file": f"{name}.bin", "tokens": self._filled, "documents": len(self._ends)})
        self.tokens += self._filled
        self.documents += len(self._ends)
        self._filled, self._ends = 0, array("q")


class Shards:
    """One split of a tokens folder, read as one long array of ids (memory-mapped, so of any size).

    Args:
        folder: the tokens folder, with its `index.json`.
        split: "train", "validation" or "test".

    Attributes:
        tokens: number of ids, document ends included.
        documents: number of documents.
        bytes: UTF-8 bytes of their text.
        vocabulary: number of token ids, V.
        document_end: the id after every document.
    """

    def __init__(self, folder: Path | str, split: str) -> None:
        self.folder, self.split = Path(folder), split
        try:
            index = read_json(self.folder / INDEX_FILE)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(
                f"{self.folder} holds no tokens.",
                f"It has no {INDEX_FILE}.",
                f"Make them with: textmill tokenize {self.folder.parent}",
            ) from error
        if split not in index["splits"]:
            raise UsageError(
                f'There is no split "{split}" in {self.folder}.{nearest(split, index["splits"])}',
                fix=f"Splits: {', '.join(index['splits'])}.",
            )
        entry = index["splits"][split]
        self.tokens: int = entry["tokens"]
        self.documents: int = entry["documents"]
        self.bytes: int = entry["bytes"]
        self.vocabulary: int = index["vocabulary"]
        self.document_end: int = index["document_end"]
        self._entries: list[dict[str, Any]] = entry["shards"]
        self._bounds = np.concatenate(
            ([0], np.cumsum([shard["tokens"] for shard in self._entries], dtype=np.int64))
        ).astype(np.int64)
        dtype = np.dtype(index["dtype"]).newbyteorder("<")
        self._maps = [self._map(shard, dtype) for shard in self._entries]

    def _map(self, shard: dict[str, Any], dtype: np.dtype) -> np.ndarray:
        path = self.folder / shard["file"]
        size = path.stat().st_size if path.exists() else -1
        if size != shard["tokens"] * dtype.itemsize:
            raise Failure(
                f"The shard {path} is damaged.",
                "It is missing."
                if size < 0
                else f"It holds {size:,} bytes; {INDEX_FILE} says {shard['tokens'] * dtype.itemsize:,}.",
                f"Delete {self.folder} and type the same command again.",
            )
        return np.memmap(path, dtype=dtype, mode="r")

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids [stop - start] (int64) at positions `start` to `stop` of the split."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"positions {start} to {stop} of {self.tokens}")
        result = np.empty(stop - start, dtype=np.int64)
        shard = int(np.searchsorted(self._bounds, start, side="right")) - 1
        filled = 0
        while filled < len(result):
            first = start + filled - int(self._bounds[shard])
            piece = self._maps[shard][first : first + len(result) - filled]
            result[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard += 1
        return result

    @cached_property
    def ends(self) -> np.ndarray:
        """Positions [documents] (int64) just after each document's end token."""
        parts = []
        for start, shard in zip(self._bounds, self._entries, strict=False):
            path = self.folder / Path(shard["file"]).with_suffix(".ends.npy")
            try:
                ends = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise Failure(
                    f"The shard index {path} is damaged.",
                    str(error),
                    f"Delete {self.folder} and type the same command again.",
                ) from error
            parts.append(ends.astype(np.int64) + start)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def document(self, i: int) -> np.ndarray:
        """Ids (int64) of document `i`, its end token included."""
        if not 0 <= i < self.documents:
            raise IndexError(f"document {i} of {self.documents}")
        return self.read(int(self.ends[i - 1]) if i else 0, int(self.ends[i]))
