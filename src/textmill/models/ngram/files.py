"""Files of n-grams: opened whatever their compression, written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from textmill.base.errors import Failure, UsageError
from textmill.base.files import open_atomic

GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
PACKED = (GZIP, BZIP2, XZ, ZSTD)
BLOCK = 1 << 23


@contextlib.contextmanager
def open_bytes(path: Path | str) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of standard input for "-"; gzip, bzip2, xz and zstd are told by their first bytes.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        Failure: it is compressed and damaged.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        stream: IO[bytes] = sys.stdin.buffer if str(path) == "-" else Path(path).open("rb")  # noqa: SIM115
    except IsADirectoryError as error:
        raise UsageError(f"{name} is a folder.", fix="Name a file in it.") from error
    except OSError as error:
        raise UsageError(
            f"{name} cannot be read.", error.strerror or str(error), "Name a file, or - for standard input."
        ) from error
    with stream:
        buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
        begin = buffered.peek(8)[:8]
        errors: tuple[type[Exception], ...] = (zlib.error, EOFError, gzip.BadGzipFile)
        unpacked: IO[bytes] = buffered
        if begin.startswith(GZIP):
            unpacked = gzip.GzipFile(fileobj=buffered)  # type: ignore[assignment]
        elif begin.startswith(BZIP2):
            import bz2

            unpacked = bz2.BZ2File(buffered)
            errors = (OSError, EOFError)
        elif begin.startswith(XZ):
            import lzma

            unpacked = lzma.LZMAFile(buffered)  # noqa: SIM115
            errors = (lzma.LZMAError, EOFError)
        elif begin.startswith(ZSTD):
            import zstandard

            unpacked = zstandard.ZstdDecompressor().stream_reader(buffered)  # type: ignore[assignment]
            errors = (zstandard.ZstdError,)
        try:
            yield unpacked
        except errors as error:
            if unpacked is buffered:
                raise
            raise Failure(f"{name} is damaged.", f"It does not unpack: {error}.", "Get it again.") from error


def line_blocks(stream: IO[bytes], size: int = BLOCK) -> Iterator[bytearray]:
    """The stream in blocks of about `size` bytes that end with a line, the last one as it ends."""
    rest = bytearray()
    while data := stream.read(size):
        cut = data.rfind(b"\n") + 1
        if not cut:
            rest += data
            continue
        rest += memoryview(data)[:cut]
        yield rest
        rest = bytearray(memoryview(data)[cut:])
    if rest:
        yield rest


def write_whole(path: Path, blocks: Iterable[bytes | memoryview]) -> None:
    """Write the blocks beside `path`, gzipped where it ends with .gz, flush, and rename into place."""
    with open_atomic(path) as stream:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=6, mtime=0, filename="") as packed:
                for block in blocks:
                    packed.write(block)
        else:
            for block in blocks:
                stream.write(block)
