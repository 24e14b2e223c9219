"""One JSON line for each request: who asked what of which model, and how it ended. Appends to the audit file."""

from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path
from typing import Any

from textmill.base.errors import UsageError


class Audit:
    """The audit file.

    Args:
        path: where; "" keeps none.
        texts: whether prompts and answers are written as well.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: str, texts: bool) -> None:
        self.texts, self._lock, self._file = texts, threading.Lock(), None
        if not path:
            return
        try:
            Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is one write, so lines of several replicas do not mix.
            self._file = Path(path).expanduser().open("ab", buffering=0)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written.", str(error.strerror), "Choose another --audit FILE."
            ) from None

    def write(self, **facts: Any) -> None:
        """Add a line; `prompt` and `answers` only where texts are wanted."""
        if self._file is None:
            return
        if not self.texts:
            facts.pop("prompt", None)
            facts.pop("answers", None)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **facts}, ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(line.encode("utf-8", "replace"))

    def close(self) -> None:
        """No more lines."""
        if self._file is not None:
            self._file.close()
