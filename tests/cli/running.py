"""The type of the `textmill` fixture, for the tests' signatures."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Ended = subprocess.CompletedProcess[str]
Textmill = Callable[..., Ended]
