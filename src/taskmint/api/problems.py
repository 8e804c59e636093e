"""Errors to problem+json (RFC 9457): the one table of statuses."""

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from aiohttp import web

from taskmint.errors import (
    BackendFailed,
    BadRequest,
    Code,
    ConfigError,
    Conflict,
    Denied,
    LimitExceeded,
    NotFound,
    TaskmintError,
    Unavailable,
    Unprocessable,
    Unproven,
)

STATUS: Final[Mapping[type[TaskmintError], int]] = {
    BadRequest: 400,
    Unproven: 401,
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    Unprocessable: 422,
    LimitExceeded: 429,
    BackendFailed: 502,
    Unavailable: 503,
    ConfigError: 422,  # a reload, asked for on the admin socket
}
# Where HTTP has a word of its own for it.
_STATUS_BY_CODE: Final[Mapping[Code, int]] = {
    Code.METHOD_NOT_ALLOWED: 405,
    Code.BODY_TOO_LARGE: 413,
    Code.ENCODING_NOT_SUPPORTED: 415,
}
TITLES: Final[Mapping[int, str]] = {
    400: "The request cannot be read",
    401: "The caller's identity is not proven",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    409: "The task is not in a state for that",
    413: "The request body is too large",
    415: "The request body is encoded",
    422: "Outside what the policy allows",
    429: "A limit is reached",
    500: "Our fault",
    502: "Vault answered with a failure",
    503: "A dependency is away",
}


def status_of(error: TaskmintError) -> int:
    """Return the HTTP status of an error."""
    return _STATUS_BY_CODE.get(error.code) or STATUS[type(error)]


def problem(error: TaskmintError) -> web.Response:
    """Build the response; `errors` is there for parsers written for Vault."""
    status = status_of(error)
    headers = {}
    if isinstance(error, LimitExceeded | Unavailable):
        headers["Retry-After"] = _whole_seconds(error.retry_after)
    if status == STATUS[Unproven]:
        headers["WWW-Authenticate"] = "Bearer"
    return _response(status, error.code, error.detail, error.fix, headers)


def internal_problem() -> web.Response:
    """Answer for a bug of ours; what it was stands in the log alone."""
    return _response(
        500,
        Code.INTERNAL_ERROR,
        "taskmint made a mistake; nothing was granted",
        "report it with the daemon's log of this moment",
        {},
    )


def _response(
    status: int, code: Code, detail: str, fix: str, headers: Mapping[str, str]
) -> web.Response:
    body = {
        "type": f"urn:taskmint:error:{code}",
        "title": TITLES[status],
        "status": status,
        "code": code.value,
        "detail": detail,
        "fix": fix,
        "errors": [detail],
    }
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
        headers=headers,
    )


def _whole_seconds(span: timedelta) -> str:
    return str(max(1, math.ceil(span.total_seconds())))
