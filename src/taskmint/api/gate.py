"""What every request passes: the header, no encodings, and errors turned into problems."""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from structlog.contextvars import bound_contextvars

from taskmint.errors import BadRequest, Code, LimitExceeded, NotFound, TaskmintError
from taskmint.model.peer import Peer
from taskmint.ports import UNTRACED, Observer, Tracer

from .problems import internal_problem, problem

Serving = Callable[[web.Request], AbstractContextManager[Peer]]

PEER: Final = web.RequestKey("peer", Peer)
REQUEST_HEADER: Final = "X-Taskmint-Request"
REQUEST_ID: Final = "X-Request-Id"  # of the answer; `request` in every line that it set in motion
_REQUEST_BYTES: Final = 8


def gate(
    serving: Serving,
    observer: Observer,
    log: structlog.stdlib.BoundLogger,
    tracer: Tracer = UNTRACED,
) -> Middleware:
    """
    Build the outermost middleware; `serving` (api/listener.py) yields the connection's peer.

    The header is the guard against forged requests from a browser or a proxy that Vault
    (X-Vault-Request) and the SPIFFE Workload API use.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        number = request_number()
        with bound_contextvars(request=number), tracer.serving(_route(request), request.headers):
            response = await answer(request, handler)
        response.headers[REQUEST_ID] = number
        return response

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            with serving(request) as peer:
                request[PEER] = peer
                _check(request)
                return await handler(request)
        except TaskmintError as error:
            observer.refused(error.code)
            if isinstance(error, LimitExceeded):
                observer.limited(error.limit)
            return problem(error)
        except web.HTTPRequestEntityTooLarge:
            return problem(_too_large())
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            answer = problem(
                NotFound(Code.METHOD_NOT_ALLOWED, "no such method here", fix=f"use {allowed}")
            )
            answer.headers["Allow"] = allowed
            return answer
        except web.HTTPNotFound:
            return problem(
                NotFound(Code.PATH_NOT_FOUND, "no such path", fix="see docs/openapi.json")
            )
        except ConnectionResetError:
            raise  # the caller hung up: nobody is left to answer
        except Exception as error:
            observer.refused(Code.INTERNAL_ERROR)
            log.exception("internal_error", error=type(error).__name__)
            return internal_problem()

    return middleware


def request_number() -> str:
    """Make what one request is known by, in its answer and in the log."""
    return secrets.token_hex(_REQUEST_BYTES)


def _route(request: web.Request) -> str:
    """Name the call by its pattern: no id stands in a span's name."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical if resource else 'unknown'}"


def _check(request: web.Request) -> None:
    if request.headers.getall(REQUEST_HEADER, ()) != ["true"]:
        raise BadRequest(
            Code.REQUEST_HEADER_MISSING,
            f"the header {REQUEST_HEADER} is missing",
            fix=f"send {REQUEST_HEADER}: true",
        )
    if "Content-Encoding" in request.headers:
        raise BadRequest(
            Code.ENCODING_NOT_SUPPORTED,
            "request bodies are not decompressed",
            fix="send the body without Content-Encoding",
        )


def _too_large() -> BadRequest:
    return BadRequest(Code.BODY_TOO_LARGE, "the body is too large", fix="send at most 64 KiB")
