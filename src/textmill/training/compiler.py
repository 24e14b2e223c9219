"""torch.compile with a cache that a kill cannot break: compiled into a private folder, published whole by a rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from textmill.base.hardware import hardware


def cache_root() -> Path:
    """Where compiled kernels are kept: $TEXTMILL_CACHE or ~/.cache/textmill."""
    return Path(os.environ.get("TEXTMILL_CACHE") or Path.home() / ".cache" / "textmill") / "kernels"


def _key() -> str:
    facts = [torch.__version__, platform.python_version(), hardware().cpu, sorted(hardware().flags)]
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()


def _copy(source: Path, target: Path) -> None:
    """Copy a folder by hard links where the disk can."""

    def link(a: str, b: str) -> str:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)
        return b

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


class KernelCache:
    """A private copy of the kernel cache for this process; `publish` makes its new kernels everybody's.

    A process killed while it compiles leaves only its private folder behind, which the next one sweeps away: the
    shared folder never holds a half-written kernel.
    """

    def __init__(self) -> None:
        self.root = cache_root()
        self.shared = self.root / _key()
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self.private = Path(tempfile.mkdtemp(prefix=f"private-{os.getpid()}-", dir=self.root))
        if self.shared.exists():
            _copy(self.shared, self.private)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self.private)

    def _sweep(self) -> None:
        for folder in self.root.glob("private-*"):
            owner = folder.name.split("-")[1]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self) -> None:
        """Put this process's kernels in the shared place, whole."""
        ready = self.root / f"{self.shared.name}.ready-{os.getpid()}"
        with contextlib.suppress(OSError):
            shutil.rmtree(ready, ignore_errors=True)
            _copy(self.private, ready)
            old = self.root / f"{self.shared.name}.old-{os.getpid()}"
            if self.shared.exists():
                self.shared.rename(old)
            ready.rename(self.shared)
            shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """Remove the private folder."""
        shutil.rmtree(self.private, ignore_errors=True)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` for fixed shapes."""
    return torch.compile(function, dynamic=False)
