"""C++ sources to a shared library, at first use. Runs the C++ compiler; writes $TEXTMILL_CACHE or ~/.cache/textmill.

The library is written under a name of its own and renamed when it is whole: a kill leaves nothing half-made, and two
processes may build at once.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from textmill.base.hardware import hardware

HERE = Path(__file__).parent
SOURCES = ("forward.cpp", "kernels.h")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC", "-shared", "-pthread")
SECONDS = 180


class NoLibraryError(Exception):
    """Why there is no library, in one sentence."""


@cache
def library(plain: bool = False) -> ctypes.CDLL:
    """The compiled library.

    Args:
        plain: without instructions of this machine's processor alone (for tests, and where they do not compile).

    Raises:
        NoLibraryError: there is no compiler, or it failed.
    """
    compiler = next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise NoLibraryError("there is no C++ compiler (sudo apt-get install g++)")
    options = ["-DTEXTMILL_PLAIN"] if plain else ["-march=native"]
    texts = [(HERE / name).read_bytes() for name in SOURCES]
    facts = [texts, options, FLAGS, compiler, hardware().cpu, sorted(hardware().flags)]
    key = hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()
    folder = Path(os.environ.get("TEXTMILL_CACHE") or Path.home() / ".cache" / "textmill") / "native"
    target = folder / f"forward-{key}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(suffix=".so", prefix="building-", dir=folder)
        os.close(descriptor)
        try:
            command = [compiler, *FLAGS, *options, str(HERE / SOURCES[0]), "-o", scratch]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
            if ended.returncode:
                raise NoLibraryError(f"{compiler} failed: {ended.stderr.strip().splitlines()[-1][:200]}")
            Path(scratch).replace(target)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoLibraryError(f"{compiler} could not be run: {error}") from None
        finally:
            Path(scratch).unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise NoLibraryError(f"the compiled library cannot be opened: {error}") from None
