"""Opens files: decompresses them in bounded memory, and refuses what unpacks to far more than it is. Reads files,
writes nothing but temporary copies."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import zstandard

from textmill.corpus.inputs import Input

BLOCK = 1 << 20
SPOOL_BYTES = 32 << 20
"""Up to this size a copy of a member or of an unpacked file stays in memory."""

BOMB_BYTES = 256 << 20
BOMB_RATIO = 200
"""What unpacks to more than BOMB_BYTES and to more than BOMB_RATIO times its size is refused. Text packs 3 to 20
times smaller, logs up to 100 times; deflate's limit, which bombs come close to, is 1,032."""

_XZ_MEMORY = 256 << 20

BROKEN = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
"""A damaged compressed file or archive shows itself in one of these."""


class Bomb(Exception):
    """A file that unpacks to far more than it is."""


class Unpacked(io.RawIOBase):
    """Decompressed bytes of a .zst, .bz2 or .xz stream, one after the other; a missing end is an error.

    Unlike the library's own readers it holds no more than a few blocks, and it notices a bomb.
    """

    def __init__(self, raw: BinaryIO, compression: str) -> None:
        super().__init__()
        self._raw, self._compression = raw, compression
        self._rest = b""
        self._ready = bytearray()
        self._began = self._ended = False
        self._frame: Any
        self._new()

    def _new(self) -> None:
        if self._compression == ".zst":
            self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        elif self._compression == ".bz2":
            self._frame = bz2.BZ2Decompressor()
        else:
            self._frame = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while (size < 0 or len(self._ready) < size) and not self._ended:
            self._more()
        taken = len(self._ready) if size < 0 else size
        data = bytes(self._ready[:taken])
        del self._ready[:taken]
        return data

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _more(self) -> None:
        if self._compression == ".zst":
            data = self._rest or self._raw.read(1 << 14)  # a little at a time: it may unpack to a thousand times it
            self._rest = b""
            if data:
                self._began = True
                self._ready += self._frame.decompress(data)
        else:
            data = self._rest
            if not data and getattr(self._frame, "needs_input", True):
                data = self._raw.read(1 << 16)
            self._rest = b""
            if data or not getattr(self._frame, "needs_input", True):
                if not self._began and self._compression == ".xz":
                    data = data.lstrip(b"\0") if len(data) % 4 == 0 else data  # padding between streams
                    if not data:
                        return
                self._began = True
                self._ready += self._frame.decompress(data, BLOCK)
                data = data or b"more"
        if not data:
            self._ended = True
            if self._began:
                raise EOFError("the compressed file ends early")
            return
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._began = False
            self._new()


class Guarded(io.RawIOBase):
    """A decompressed stream that raises `Bomb` when far more comes out than went in."""

    def __init__(self, stream: BinaryIO, packed: int) -> None:
        super().__init__()
        self._stream = stream
        self._limit = max(BOMB_BYTES, BOMB_RATIO * packed)
        self._given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size if size >= 0 else self._limit + 1)
        self._given += len(data)
        if self._given > self._limit:
            raise Bomb(f"it unpacks to more than {BOMB_RATIO} times its size")
        return data

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def unpacked(raw: BinaryIO, compression: str, packed: int) -> BinaryIO:
    """The decompressed bytes of a stream of `packed` bytes; the stream itself when it is not compressed."""
    if not compression:
        return raw
    inner = gzip.GzipFile(fileobj=raw) if compression == ".gz" else Unpacked(raw, compression)
    return cast(BinaryIO, Guarded(cast(BinaryIO, inner), packed))


@contextmanager
def opened(item: Input) -> Iterator[BinaryIO]:
    """The stream of a file's decompressed bytes."""
    with item.path.open("rb") as raw:
        yield unpacked(raw, item.compression, item.size)


def blocks(stream: BinaryIO, size: int = BLOCK, limit: int | None = None) -> Iterator[bytes]:
    """A stream in blocks, up to `limit` bytes of it."""
    left = limit
    while block := stream.read(size if left is None else min(size, left)):
        yield block
        if left is not None:
            left -= len(block)


@contextmanager
def seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The same bytes in a file in which one can go back: the stream itself, or a temporary copy."""
    if not isinstance(stream, Guarded) and stream.seekable():
        yield stream
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as copy:
        for block in blocks(stream):
            copy.write(block)
        copy.seek(0)
        yield cast(BinaryIO, copy)
