"""Token ids on disk: flat memory-mapped shards with document bounds. Reads and writes a tokens folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
        state: what `commit` returned, to go on from there; what was written after it is cut off.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        dtype: str,
        document_end: int,
        shard_tokens: int = 100_000_000,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.split, self.dtype = folder, split, np.dtype(dtype).newbyteorder("<")
        self.document_end, self.shard_tokens = document_end, shard_tokens
        self.bytes: int = state["bytes"] if state else 0
        self._shards: list[dict[str, Any]] = list(state["shards"]) if state else []
        self._filled: int = state["filled"] if state else 0
        self._documents: int = state["documents"] if state else 0
        self._ids: BinaryIO | None = None
        self._ends: BinaryIO | None = None
        if self._documents:
            self._ids = self._reopen(".bin", self._filled * self.dtype.itemsize)
            self._ends = self._reopen(".ends", self._documents * 8)

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int) -> None:
        """Append one document (without its end token), `text_bytes` UTF-8 bytes long."""
        self.add_many(np.asarray(ids, dtype=np.int64), np.array([0, len(ids)]), text_bytes)

    def add_many(self, ids: np.ndarray, offsets: np.ndarray, text_bytes: int) -> None:
        """Append documents whose ids (without end tokens) begin at `offsets` [n + 1], `text_bytes` long in all."""
        if len(ids) and int(ids.max()) > np.iinfo(self.dtype).max:
            raise OverflowError(f"an id of {int(ids.max())} does not fit into {self.dtype}")
        flat = np.insert(ids, offsets[1:], self.document_end).astype(self.dtype, copy=False)
        ends = np.cumsum(np.diff(offsets) + 1)
        first = begin = 0
        while first < len(ends):
            last = int(np.searchsorted(ends, begin + self.shard_tokens - self._filled, side="right"))
            if last <= first:
                if self._filled:
                    self._finish_shard()
                    continue
                last = first + 1
            if self._ids is None or self._ends is None:
                self._ids = self._path(".bin").open("wb", buffering=1 << 20)
                self._ends = self._path(".ends").open("wb", buffering=1 << 16)
            stop = int(ends[last - 1])
            self._ids.write(flat[begin:stop].tobytes())
            self._ends.write((ends[first:last] - begin + self._filled).astype("<i8").tobytes())
            self._filled += stop - begin
            self._documents += last - first
            first, begin = last, stop
        self.bytes += text_bytes

    def commit(self) -> dict[str, Any]:
        """Bring everything to disk; what comes back is all that is needed to go on after it."""
        for stream in (self._ids, self._ends):
            if stream is not None:
                _sync(stream)
        return {
            "shards": list(self._shards),
            "filled": self._filled,
            "documents": self._documents,
            "bytes": self.bytes,
        }

    def close(self) -> dict[str, Any]:
        """Finish the last shard and return this split's entry of `index.json`."""
        self._finish_shard()
        return {
            "shards": self._shards,
            "tokens": sum(shard["tokens"] for shard in self._shards),
            "documents": sum(shard["documents"] for shard in self._shards),
            "bytes": self.bytes,
        }

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.split}-{len(self._shards):05d}{suffix}"

    def _reopen(self, suffix: str, size: int) -> BinaryIO:
        stream = self._path(suffix).open("r+b")
        stream.truncate(size)
        stream.seek(size)
        return stream

    def _finish_shard(self) -> None:
        if self._ids is None or self._ends is None:
            return
        for stream in (self._ids, self._ends):
            _sync(stream)
            stream.close()
        self._ids = self._ends = None
        with self._path(".ends.npy").open("wb") as stream:
            np.save(stream, np.fromfile(self._path(".ends"), dtype="<i8"))
            _sync(stream)
        self._shards.append({"file": self._path(".bin").name, "tokens": self._filled, "documents": self._documents})
        self._filled = self._documents = 0


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


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
        in_order: whether the documents are in the order of a curriculum.
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
        self.in_order: bool = index.get("order", "mixed") != "mixed"
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
