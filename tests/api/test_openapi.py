"""docs/openapi.json is what the models say, names every route, and what is answered fits it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import structlog

from source_tree import REPOSITORY
from taskmint.api.openapi import OPERATIONS, document
from taskmint.api.task_api import TaskApi

from api.server import Answer, Http, task_socket
from fakes.vault import away

COMMITTED = REPOSITORY / "docs" / "openapi.json"
START = {"task": "report", "parameters": {"region": "eu"}}


def described() -> dict[str, Any]:
    """The committed document."""
    read: dict[str, Any] = json.loads(COMMITTED.read_text())
    return read


def test_the_committed_document_is_generated_from_the_models() -> None:
    """Write it anew with: python -m taskmint.api.openapi > docs/openapi.json."""
    assert described() == document()


def test_every_route_is_described_and_nothing_else() -> None:
    """A call that is not in the document does not exist for its readers."""
    nothing: Any = None
    api = TaskApi(nothing, nothing, {}, nothing, structlog.stdlib.get_logger())
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in api.application(nothing, 1).router.routes()
        if route.resource is not None
    }

    assert routes == {(one.method, one.path) for one in OPERATIONS}


def assert_fits(answer: Answer, method: str, path: str) -> None:
    """The status is described, and the body satisfies its schema."""
    whole = described()
    replies = whole["paths"][path][method]["responses"]
    assert str(answer.status) in replies
    (kind, media), *_ = replies[str(answer.status)]["content"].items()
    assert answer.headers["Content-Type"].startswith(kind)
    schema = {**media["schema"], "components": whole["components"]}
    jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(answer.body)


async def asked(http: Http, method: str, path: str, described_path: str, **more: Any) -> Answer:
    """Ask, and compare the answer with the document."""
    answer = await http.ask(method.upper(), path, **more)
    assert_fits(answer, method, described_path)
    return answer


async def test_what_the_running_server_answers_fits_the_document(tmp_path: Path) -> None:
    """A task's whole life, and one problem of each kind."""
    async with task_socket(tmp_path) as http:
        started = await asked(http, "post", "/v1/tasks", "/v1/tasks", json=START)
        one, each = f"/v1/tasks/{started.body['id']}", "/v1/tasks/{id}"
        await asked(http, "get", one, each)
        await asked(http, "post", f"{one}/heartbeat", f"{each}/heartbeat")
        await asked(http, "patch", one, each, json={"parameters": {"region": "us"}})
        await asked(http, "patch", one, each, json={"ttl_seconds": 7200})
        await asked(http, "get", "/v1/tasks/x/events", f"{each}/events")
        await asked(http, "delete", one, each)
        await asked(http, "post", f"{one}/heartbeat", f"{each}/heartbeat")
        await asked(http, "get", "/v1/tasks/x", each)
        await asked(http, "get", "/v1/health", "/v1/health")
        await asked(http, "get", "/v1/ready", "/v1/ready")
        await asked(http, "get", "/v1/health", "/v1/health", headers={})
        await asked(http, "post", "/v1/tasks", "/v1/tasks", data=b"{")
        await asked(http, "post", "/v1/tasks", "/v1/tasks", data=b" " * 70_000)
        await asked(http, "post", "/v1/tasks", "/v1/tasks", json={**START, "task": "no"})
        await asked(http, "post", "/v1/tasks", "/v1/tasks", json={**START, "ttl_seconds": 7200})
        http.world.vault.faults["create_task_token"].append(away())
        await asked(http, "post", "/v1/tasks", "/v1/tasks", json=START)


@pytest.mark.parametrize("change", [{"type": "integer"}, {"required": ["surprise"]}])
def test_the_comparison_can_fail(change: dict[str, Any]) -> None:
    """A schema that the answer does not fit is noticed."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"status": "live"}, change)
