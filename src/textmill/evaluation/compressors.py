"""The compressors xz -9e and zstd -19, alone and given the training text first. Runs a subprocess."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Literal

import zstandard

from textmill.base.errors import Failure

Compressor = Literal["xz", "zstd"]

XZ_PRESET = 9 | lzma.PRESET_EXTREME
XZ_DICTIONARY_BYTES = 64 << 20
"""What `xz -9e` can look back on."""
ZSTD_LEVEL = 19
ZSTD_WINDOW_LOG = 27
"""What `zstd -19 --long=27` can look back on: 128 MiB."""

_XZ_SCRIPT = "from textmill.evaluation.compressors import _xz_child; _xz_child()"


@dataclass(frozen=True)
class Compressed:
    """What a compressor made of a text.

    Attributes:
        size: compressed bytes; with priming, the bytes that the text adds to the training text.
        seconds: wall clock.
    """

    size: int
    seconds: float


def compress(compressor: Compressor, text: bytes, prime: bytes = b"", timeout: float | None = None) -> Compressed:
    """Compress `text`, alone or with `prime` seen first.

    `xz` primed is C(prime + text) - C(prime) of `xz -9e`, whose dictionary reaches back 64 MiB. Both sizes
    come from one pass: after `prime` the process forks, and the copy closes its file there. `zstd` primed is
    `zstd -19 --long=27 --patch-from=prime`: `prime` stands in the window before the first byte, and costs
    nothing. Sizes are of whole files, header and checksum included. Both release the interpreter, so two
    threads can run them side by side.

    Args:
        compressor: "xz" or "zstd".
        text: the held-out bytes.
        prime: training text; for `xz` it should stay under 64 MiB, for `zstd` under 128 MiB less the text.
        timeout: seconds after which a primed `xz` is stopped.

    Raises:
        TimeoutError: `timeout` passed.
    """
    began = time.monotonic()
    if compressor == "zstd":
        size = _zstd(text, prime)
    elif prime:
        size = _xz_primed(text, prime, timeout)
    else:
        size = len(lzma.compress(text, preset=XZ_PRESET))
    return Compressed(size, time.monotonic() - began)


def _zstd(text: bytes, prime: bytes) -> int:
    settings = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        source_size=len(prime) + len(text),
        window_log=ZSTD_WINDOW_LOG,
        enable_ldm=not prime,
        write_checksum=True,
    )
    seen = zstandard.ZstdCompressionDict(prime, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prime else None
    return len(zstandard.ZstdCompressor(compression_params=settings, dict_data=seen).compress(text))


def _xz_primed(text: bytes, prime: bytes, timeout: float | None) -> int:
    """The bytes that `text` adds to `prime` in an xz file; in a process that forks and can be stopped."""
    command = [sys.executable, "-c", _XZ_SCRIPT]
    given = len(prime).to_bytes(8, "little") + prime + text
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError("xz ran out of time") from error
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Failure("xz could not compress the text.", last, "It needs about 700 MB of memory.")
    return int(done.stdout)


def _xz_child() -> None:
    """Read the length of `prime`, `prime` and the text from stdin; print C(prime + text) - C(prime)."""
    given = memoryview(sys.stdin.buffer.read())
    length = int.from_bytes(given[:8], "little")
    stream = lzma.LZMACompressor(preset=XZ_PRESET)
    size = len(stream.compress(given[8 : 8 + length]))
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:  # this copy ends its file after the training text
        status = 1
        try:
            os.write(send, str(size + len(stream.flush())).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    size += len(stream.compress(given[8 + length :])) + len(stream.flush())
    with os.fdopen(receive, "rb") as pipe:
        alone = pipe.read()
    if os.waitpid(child, 0)[1] != 0 or not alone:
        raise SystemExit("the process that closes the training text failed")
    print(size - int(alone))
