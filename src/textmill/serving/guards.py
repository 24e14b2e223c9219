"""What stands before every route: names of this server, sizes of bodies, clocks. ASGI middleware; touches nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any

from starlette.exceptions import HTTPException

from textmill.serving.errors import ApiError
from textmill.serving.metrics import Metrics

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
)


class Guard:
    """Refuses what must not come in, and times what does.

    Args:
        app: what it guards.
        hosts: names by which the server may be called, lower case; None for any (a server with keys may be called by
            whatever name leads to it: a page under another name has no key).
        most: bytes of the largest body.
        metrics: told of each request's seconds.
    """

    def __init__(self, app: Any, hosts: Collection[str] | None, most: int, metrics: Metrics) -> None:
        self.app, self.hosts, self.most, self.metrics = app, hosts, most, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        headers = dict(scope["headers"])
        read = 0

        async def guarded_receive() -> Any:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self.most:
                    raise HTTPException(413, f"The request is larger than {self.most} bytes.")
            return message

        async def guarded_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                known = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((n, v) for n, v in SECURITY if n not in known)]
            await send(message)

        try:
            error = self._refuse(headers)
            if error is not None:
                await _answer(guarded_send, error)
                return
            await self.app(scope, guarded_receive, guarded_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.overhead.labels(route, str(status)).observe(time.perf_counter() - began)

    def _refuse(self, headers: dict[bytes, bytes]) -> ApiError | None:
        if self.hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host[: host.index("]") + 1].strip("[]") if host.startswith("[") else host.partition(":")[0]
            if name not in self.hosts:
                return ApiError(
                    403, f"This server is not called {host[:100]!r}; add --allowed-hosts NAME if it is.", code="host"
                )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return ApiError(400, "The length of the request is no number.", code="content_length")
        if int(length) > self.most:
            return ApiError(413, f"The request is larger than {self.most} bytes.", code="request_too_large")
        return None


async def _answer(send: Any, error: ApiError) -> None:
    body = json.dumps(error.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
