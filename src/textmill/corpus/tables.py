"""Tables over code points that Python builds slowly, kept as files beside numba's compiled code. Writes there."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from textmill.corpus.fetch import cache_folder

FOLDER = Path(__file__).parent
Build = Callable[[], np.ndarray]


def stored(*sources: str) -> Callable[[Build], Build]:
    """A decorator: the function's array is built once a machine, and once a process read.

    The file's name holds a hash of the source code that the array is made from and of the versions of Python and of
    its Unicode tables, so that another code never meets an old array. Where nothing can be written, or what is there
    cannot be read, the array is built in each process.

    Args:
        sources: files of this room that the array depends on, beside the one that defines it.
    """

    def decorate(build: Build) -> Build:
        @functools.lru_cache(maxsize=1)
        @functools.wraps(build)
        def load() -> np.ndarray:
            own = Path(sys.modules[build.__module__].__file__ or "")
            digest = blake2b(f"{sys.version_info[:3]} {unicodedata.unidata_version}".encode(), digest_size=8)
            try:
                for source in (own, *(FOLDER / name for name in sources)):
                    digest.update(source.read_bytes())
            except OSError:  # the code lies in an archive
                return build()
            name = f"{build.__module__.removeprefix('textmill.')}.{build.__name__}.{sys.implementation.cache_tag}"
            return _read_or_build(f"{name}-{digest.hexdigest()}.npy", build)

        return load

    return decorate


def _read_or_build(name: str, build: Build) -> np.ndarray:
    folders = (FOLDER / "__pycache__", cache_folder() / "tables")
    for folder in folders:
        with suppress(OSError, ValueError, EOFError):
            return np.load(folder / name, allow_pickle=False)  # type: ignore[no-any-return]
    table = build()
    for folder in folders:
        with suppress(OSError):
            _write(folder, name, table)
            break
    return table


def _write(folder: Path, name: str, table: np.ndarray) -> None:
    """Write a table under its name at once, and remove what older code left."""
    folder.mkdir(parents=True, exist_ok=True)
    number, beside = tempfile.mkstemp(prefix=f"{name}.", dir=folder)
    try:
        with os.fdopen(number, "wb") as file:
            np.save(file, table, allow_pickle=False)
        Path(beside).replace(folder / name)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise
    for older in folder.glob(f"{name.rpartition('-')[0]}-*.npy"):
        if older.name != name:
            older.unlink(missing_ok=True)
