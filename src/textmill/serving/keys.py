"""API keys, what they have used, and what they may use: in SQLite, or any database that SQLAlchemy reaches.

A key is 256 random bits, shown once. Only its SHA-256 is kept: a slow hash guards passwords, which can be guessed;
nobody guesses 256 bits, and a slow hash would be paid at every request.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textmill.base.errors import Failure, UsageError

PREFIX = "tm-"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
CACHE_SECONDS = 2.0
"""A revoked key works at most so long in a server that has seen it."""


@dataclass(frozen=True)
class Key:
    """A key's owner and limits; never the key itself."""

    id: int
    name: str
    admin: bool
    requests_per_minute: int | None
    tokens_per_day: int | None
    created: float
    revoked: float | None

    @property
    def salt(self) -> str:
        """Keeps cached prompts of this key apart from others'."""
        return f"key-{self.id}"


ANYONE = Key(0, "", True, None, None, 0.0, None)
"""Whoever calls a server on this machine that asks for no key."""


class KeyStore:
    """The store of keys and usage.

    Args:
        place: a file (SQLite; made if missing), or a database URL.

    Raises:
        UsageError: SQLAlchemy or the database's driver is not installed.
        Failure: the database cannot be reached.
    """

    def __init__(self, place: str) -> None:
        try:
            import sqlalchemy as sql
        except ImportError as error:
            raise UsageError(
                "Keys need SQLAlchemy.",
                f"It is not installed here ({error}).",
                'Type: pip install "textmill[serve]"',
            ) from None
        self._sql = sql
        url = place
        if "://" not in place:
            path = Path(place).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{path}"
            if not path.exists():
                path.touch(mode=0o600)
        try:
            self._engine = sql.create_engine(url, pool_pre_ping=True)
            meta = sql.MetaData()
            self._keys = sql.Table(
                "textmill_keys",
                meta,
                sql.Column("id", sql.Integer, primary_key=True),
                sql.Column("name", sql.String(64), unique=True, nullable=False),
                sql.Column("hash", sql.String(64), unique=True, nullable=False),
                sql.Column("admin", sql.Boolean, nullable=False),
                sql.Column("requests_per_minute", sql.Integer),
                sql.Column("tokens_per_day", sql.BigInteger),
                sql.Column("created", sql.Float, nullable=False),
                sql.Column("revoked", sql.Float),
            )
            self._usage = sql.Table(
                "textmill_usage",
                meta,
                sql.Column("key_id", sql.Integer, primary_key=True, autoincrement=False),
                sql.Column("day", sql.String(10), primary_key=True),
                sql.Column("requests", sql.BigInteger, nullable=False),
                sql.Column("prompt_tokens", sql.BigInteger, nullable=False),
                sql.Column("completion_tokens", sql.BigInteger, nullable=False),
            )
            self._requests = sql.Table(
                "textmill_requests",
                meta,
                sql.Column("id", sql.Integer, primary_key=True),
                sql.Column("key_id", sql.Integer, nullable=False, index=True),
                sql.Column("made", sql.Float, nullable=False),
            )
            meta.create_all(self._engine)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"There is no driver for {url.partition(':')[0]}.", str(error), 'Type: pip install "textmill[postgres]"'
            ) from None
        except sql.exc.ArgumentError as error:
            raise UsageError("The store of keys has no proper address.", str(error), "Name a file, or a URL.") from None
        except sql.exc.SQLAlchemyError as error:
            raise Failure(
                "The store of keys cannot be opened.", str(error.__cause__ or error), "Check --keys."
            ) from None
        self._known: dict[str, tuple[float, Key | None]] = {}
        self._lock = threading.Lock()

    def create(
        self,
        name: str,
        *,
        admin: bool = False,
        requests_per_minute: int | None = None,
        tokens_per_day: int | None = None,
    ) -> str:
        """Make a key; it is returned this once, and nowhere kept.

        Raises:
            UsageError: the name is taken or unfit, or a limit makes no sense.
        """
        if not NAME.fullmatch(name):
            raise UsageError(
                f'"{name}" is no name for a key.',
                "Up to 64 letters, digits and . _ @ -",
                "Try: textmill keys create me",
            )
        for limit in (requests_per_minute, tokens_per_day):
            if limit is not None and limit < 1:
                raise UsageError(f"A limit of {limit} lets nothing through.", fix="Give at least 1, or leave it out.")
        key = PREFIX + secrets.token_urlsafe(32)
        row = {
            "name": name,
            "hash": _hash(key),
            "admin": admin,
            "requests_per_minute": requests_per_minute,
            "tokens_per_day": tokens_per_day,
            "created": time.time(),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(self._keys.insert().values(**row))
        except self._sql.exc.IntegrityError:
            raise UsageError(
                f'There is a key named "{name}" already.',
                "Names stay taken after a key is revoked, so that usage stays clear.",
                "Choose another name.",
            ) from None
        return key

    def revoke(self, name: str) -> None:
        """Make a key void.

        Raises:
            UsageError: there is no such key, or it is void already.
        """
        table = self._keys
        with self._engine.begin() as connection:
            changed = connection.execute(
                table.update().where(table.c.name == name, table.c.revoked.is_(None)).values(revoked=time.time())
            ).rowcount
        if not changed:
            raise UsageError(f'There is no valid key named "{name}".', fix="See: textmill keys list")
        with self._lock:
            self._known.clear()

    def all(self) -> list[Key]:
        """All keys, void ones included."""
        with self._engine.connect() as connection:
            return [self._key(row) for row in connection.execute(self._keys.select().order_by(self._keys.c.id))]

    def usage(self) -> list[dict[str, Any]]:
        """Per key and day (UTC): requests, prompt_tokens, completion_tokens."""
        keys, usage = self._keys, self._usage
        query = (
            self._sql.select(
                keys.c.name, usage.c.day, usage.c.requests, usage.c.prompt_tokens, usage.c.completion_tokens
            )
            .join(keys, keys.c.id == usage.c.key_id)
            .order_by(usage.c.day, keys.c.name)
        )
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def empty(self) -> bool:
        """Whether there is no valid key."""
        return all(key.revoked is not None for key in self.all())

    def find(self, key: str) -> Key | None:
        """The valid key of this text."""
        digest = _hash(key)
        with self._lock:
            known = self._known.get(digest)
        if known is not None and time.monotonic() - known[0] < CACHE_SECONDS:
            return known[1]
        with self._engine.connect() as connection:
            row = connection.execute(self._keys.select().where(self._keys.c.hash == digest)).first()
        found = None
        if row is not None and hmac.compare_digest(row.hash, digest) and row.revoked is None:
            found = self._key(row)
        with self._lock:
            if len(self._known) > 10_000:  # wrong keys must not fill memory
                self._known.clear()
            self._known[digest] = time.monotonic(), found
        return found

    def take(self, key: Key) -> float:
        """Count a request against its key's rate. Seconds to wait before it may be made; 0 when it may be now.

        Counted in the store: replicas, and servers side by side, keep one limit together.
        """
        if key.requests_per_minute is None:
            return 0.0
        sql, made, now = self._sql, self._requests, time.time()
        with self._engine.begin() as connection:
            # Changing the key's row, if only to what it is, keeps others who count for this key waiting.
            mine = self._keys.c.id == key.id
            connection.execute(self._keys.update().where(mine).values(name=self._keys.c.name))
            connection.execute(made.delete().where(made.c.key_id == key.id, made.c.made <= now - 60))
            look = sql.select(sql.func.count(), sql.func.min(made.c.made)).where(made.c.key_id == key.id)
            count, first = connection.execute(look).one()
            if count >= key.requests_per_minute:
                return max(0.001, first + 60 - now)
            connection.execute(made.insert().values(key_id=key.id, made=now))
        return 0.0

    def tokens_left(self, key: Key) -> int | None:
        """Tokens that the key may still use today (UTC); None without a limit."""
        if key.tokens_per_day is None:
            return None
        table = self._usage
        with self._engine.connect() as connection:
            row = connection.execute(table.select().where(table.c.key_id == key.id, table.c.day == _today())).first()
        return key.tokens_per_day - (row.prompt_tokens + row.completion_tokens if row else 0)

    def record(self, key: Key, prompt_tokens: int, completion_tokens: int) -> None:
        """Add a finished request to the key's usage."""
        if key.id == ANYONE.id:
            return
        table, here = self._usage, {"key_id": key.id, "day": _today()}
        added = {
            "requests": table.c.requests + 1,
            "prompt_tokens": table.c.prompt_tokens + prompt_tokens,
            "completion_tokens": table.c.completion_tokens + completion_tokens,
        }
        fresh = {"requests": 1, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        update = table.update().where(table.c.key_id == key.id, table.c.day == here["day"]).values(**added)
        with self._engine.begin() as connection:
            if connection.execute(update).rowcount:
                return
        try:
            with self._engine.begin() as connection:
                connection.execute(table.insert().values(**here, **fresh))
        except self._sql.exc.IntegrityError:  # another process was faster
            with self._engine.begin() as connection:
                connection.execute(update)

    @staticmethod
    def _key(row: Any) -> Key:
        return Key(
            row.id,
            row.name,
            bool(row.admin),
            row.requests_per_minute,
            row.tokens_per_day,
            row.created,
            row.revoked,
        )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
