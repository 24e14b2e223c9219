"""Errors of the API, in the shape that the OpenAI clients read. Touches nothing."""

from __future__ import annotations

from typing import Any

from textmill.base.errors import TextmillError, UsageError
from textmill.generation.engine.request import Busy

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    501: "not_implemented_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """A request that is answered by an error.

    Args:
        status: HTTP status.
        message: what is wrong and what to do.
        param: the parameter at fault.
        code: a short name of the fault, for programs.
        headers: to send along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def from_exception(error: BaseException) -> ApiError:
    """What a caller is told of an error: ours as they are, others without their inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        return ApiError(503, f"{error.what} {error.fix}", code="busy", headers={"Retry-After": "1"})
    if isinstance(error, UsageError):
        return ApiError(400, " ".join(part for part in (error.what, error.why, error.fix) if part))
    if isinstance(error, TextmillError):
        return ApiError(500, " ".join(part for part in (error.what, error.why) if part), code="failed")
    return ApiError(500, "The server failed at this request; its log says more.", code="internal_error")
