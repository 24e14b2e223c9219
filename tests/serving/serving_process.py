"""`textmill serve` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


class Server:
    """A running `textmill serve`."""

    def __init__(self, words: list[str], log: Path, port: int = 0) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "textmill", "serve", *words, "--port", str(port), "--json"],
            stdout=subprocess.PIPE, stderr=log.open("w"), text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, log.read_text()
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """End it as a supervisor would; its exit code."""
        self.process.terminate()
        return self.process.wait(30)
