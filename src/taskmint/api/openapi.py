"""
The task socket's OpenAPI 3.1 document, generated from the models in api/bodies.py.

As a script it prints the document: python -m taskmint.api.openapi > docs/openapi.json
"""

import importlib.metadata
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .bodies import (
    ChangeBody,
    HealthReply,
    ProblemReply,
    ReadyReply,
    StartBody,
    TaskEvents,
    TaskReply,
)
from .events import CONTENT_TYPE
from .explanation import ExplainReply
from .gate import REQUEST_HEADER
from .problems import TITLES

_KINDS: Final[Mapping[type[BaseModel], str]] = {
    ProblemReply: "application/problem+json",
    TaskEvents: CONTENT_TYPE,
}
_REFERENCE: Final = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: what it does, what it takes, and every status it may answer with."""

    method: str
    path: str
    summary: str
    replies: Mapping[int, type[BaseModel]]
    problems: tuple[int, ...]
    body: type[BaseModel] | None = None
    queries: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    identified: bool = True


_KEY: Final = "1 to 255 visible ASCII characters; makes repeating safe"
_EVERY: Final = (400, 401, 500, 503)

OPERATIONS: Final = (
    Operation(
        "post",
        "/v1/tasks",
        "Start a task: decide, mint, hand over; 202 while it waits for an approval",
        {201: TaskReply, 202: TaskReply},
        (*_EVERY, 403, 409, 413, 415, 422, 429, 502),
        body=StartBody,
        headers={"Idempotency-Key": _KEY},
    ),
    Operation(
        "get",
        "/v1/tasks/{id}",
        "State of a task, with its credentials within the delivery window",
        {200: TaskReply},
        (*_EVERY, 404),
        queries={"wait": "answer when it has ended or is approved, or after so long (30s, 500ms)"},
    ),
    Operation(
        "patch",
        "/v1/tasks/{id}",
        "Change a task, or issue its credentials anew: another revision, the old one retired",
        {200: TaskReply},
        (*_EVERY, 403, 404, 409, 413, 415, 422, 429, 502),
        body=ChangeBody,
        headers={"Idempotency-Key": _KEY},
    ),
    Operation(
        "get",
        "/v1/tasks/{id}/events",
        "Follow a task; the open stream is the connection it may be bound to",
        {200: TaskEvents},
        (*_EVERY, 404),
    ),
    Operation(
        "post",
        "/v1/tasks/{id}/heartbeat",
        "Still alive; the SVID on this request re-proves the identity",
        {200: TaskReply},
        (*_EVERY, 404, 409),
        queries={"revision": "the one whose credentials have arrived; older ones are retired"},
    ),
    Operation(
        "delete",
        "/v1/tasks/{id}",
        "End a task: 200 when revocation is proven, 202 while it is not",
        {200: TaskReply, 202: TaskReply},
        (*_EVERY, 404),
        queries={"outcome": "succeeded (default), failed or cancelled"},
    ),
    Operation(
        "post",
        "/v1/explain",
        "What a start would be granted by the policy: nothing is minted, counted or recorded",
        {200: ExplainReply},
        (*_EVERY, 403, 413, 415, 422),
        body=StartBody,
    ),
    Operation(
        "get", "/v1/health", "The process answers", {200: HealthReply}, (400,), identified=False
    ),
    Operation(
        "get",
        "/v1/ready",
        "Whether tasks can be started now",
        {200: ReadyReply, 503: ReadyReply},
        (400,),
        identified=False,
    ),
)


def document() -> dict[str, Any]:
    """Build the document (OpenAPI Specification 3.1.0)."""
    _, schemas = models_json_schema(
        [
            (ChangeBody, "validation"),
            (ExplainReply, "serialization"),
            (HealthReply, "serialization"),
            (ProblemReply, "serialization"),
            (ReadyReply, "serialization"),
            (StartBody, "validation"),
            (TaskEvents, "serialization"),
            (TaskReply, "serialization"),
        ],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "taskmint task socket",
            "version": importlib.metadata.version("taskmint"),
            "description": "HTTP/1.1 over a Unix socket. Errors are problem+json (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost", "description": "/run/taskmint/task.sock"}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "jwtSvid": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT-SVID",
                    "description": "a JWT-SVID whose one audience is the daemon's",
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.method}{operation.path.replace('/', '_')}".replace(
            "{", ""
        ).replace("}", ""),
        "summary": operation.summary,
        "parameters": list(_parameters(operation)),
        "responses": {
            **{str(status): _reply(model, "") for status, model in operation.replies.items()},
            **{
                str(status): _reply(ProblemReply, TITLES[status])
                for status in operation.problems
                if status not in operation.replies
            },
        },
        "security": [{"jwtSvid": []}] if operation.identified else [],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    fixed = {"name": REQUEST_HEADER, "in": "header", "required": True, "schema": {"const": "true"}}
    text = {"type": "string"}
    found: list[dict[str, Any]] = [fixed]
    if "{id}" in operation.path:
        found.append({"name": "id", "in": "path", "required": True, "schema": text})
    for place, named in (("query", operation.queries), ("header", operation.headers)):
        found.extend(
            {"name": name, "in": place, "required": False, "description": what, "schema": text}
            for name, what in named.items()
        )
    return found


def _reply(model: type[BaseModel], description: str) -> dict[str, Any]:
    kind = _KINDS.get(model, "application/json")
    return {
        "description": description or (model.__doc__ or "").strip().split("\n", maxsplit=1)[0],
        "content": {kind: {"schema": _reference(model)}},
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2)
    sys.stdout.write("\n")
