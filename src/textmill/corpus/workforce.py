"""Who does the work of a corpus. Touches nothing until workers are told to load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textmill.base.errors import UsageError
from textmill.base.hardware import hardware
from textmill.corpus import foundry

if TYPE_CHECKING:
    from textmill.corpus.config import CorpusConfig

Engine = Literal["local", "ray"]

CHUNK_BYTES = 8 << 20
"""Raw bytes of a chunk: seconds of work, so that many workers stay busy and a stop wastes little."""
SMALL_BYTES = 24 << 20
"""Below this a second process would start up for longer than it works."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""A compressed file is one worker's, however large."""


@dataclass(frozen=True)
class Workforce:
    """Who does the work. It changes nothing in the result.

    Attributes:
        engine: "local" or "ray".
        workers: processes; None for as many as there are cores and work for them.
    """

    engine: Engine = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers} is too few.", fix="Give at least 1.")

    def for_size(self, size: int) -> Workforce:
        """The same, but one process of this machine for little text, where no number was asked for."""
        small = size < SMALL_BYTES and self.engine == "local" and self.workers is None
        return Workforce("local", 1) if small else self

    def load(self, files: Iterable[Path], run: Path, config: CorpusConfig) -> None:
        """Let workers of this machine load while the inputs are looked through, where these files will need any.

        Args:
            files: some of the inputs; what is no plain file counts as nothing.
            run: a run that has a corpus already may need none.
            config: the settings.
        """
        if self.engine != "local" or (run / "corpus").exists():
            return
        size = sum(path.stat().st_size for path in files if path.is_file() and path.suffix not in PACKED)
        if size >= SMALL_BYTES and min(self.workers or hardware().cores, size // CHUNK_BYTES) > 1:
            foundry.start(config)
