"""Settings of the server. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from textmill.base.errors import UsageError

DEFAULT_KEYS = "~/.local/share/textmill/keys.sqlite"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class ServeConfig:
    """Where the server listens, whom it serves, and how much of it."""

    host: str = "127.0.0.1"
    """Address to listen at. Anything but this machine alone needs a key (textmill keys create NAME)."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    keys: str = DEFAULT_KEYS
    """File or database URL of keys, usage and limits: a SQLite file, or postgresql+psycopg://user@host/name."""
    require_key: bool = False
    """Ask for a key on this machine as well. Once the store holds a key, one is always asked for."""
    cors: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Web origins whose pages may use the server, such as https://example.org; none by default."""
    allowed_hosts: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Further names by which the server may be called. A web page must not reach it under a name of its own."""
    max_request_bytes: int = 4 << 20
    """Largest body of a request."""
    max_seconds: float = 600.0
    """Longest time for one request; what was written until then is given, with finish_reason "length"."""
    max_tokens: int = 4096
    """Most tokens that one request may ask for, for each sample."""
    max_samples: int = 16
    """Most samples that one request may ask for."""
    drain_seconds: float = 30.0
    """How long open streams may go on when the server is told to end."""
    audit: str = ""
    """File for one JSON line a request: when, who, which model, how many tokens, how it ended; no text."""
    log_prompts: bool = False
    """Write prompts and answers into the audit file, too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cors", tuple(self.cors))
        object.__setattr__(self, "allowed_hosts", tuple(self.allowed_hosts))
        if not 0 <= self.port <= 65535:
            raise UsageError(
                f"There is no port {self.port}.", fix="Choose one from 1024 to 65535, or 0 for a free one."
            )
        for name in ("max_request_bytes", "max_seconds", "max_tokens", "max_samples"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0.")
        if self.log_prompts and not self.audit:
            raise UsageError(
                "log_prompts would have no effect.", "There is no audit file.", "Add --audit FILE, or leave it out."
            )
        if "*" in self.cors:
            raise UsageError(
                'The origin "*" is refused.',
                "Every web page that you visit could then use your server.",
                "Name the origins: --cors https://example.org",
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK
