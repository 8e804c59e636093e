"""Traces of a running daemon, as a collector receives them."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from e2e.conftest import Ground
from e2e.ground import Workload

pytestmark = pytest.mark.real

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Collector:
    """Keeps what OTLP over HTTP brings: a name, a trace and a parent for each span."""

    port: int = 0
    spans: list[tuple[str, str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Receive a batch."""
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.bodies.append(body)
        batch: Any = ExportTraceServiceRequest.FromString(body)
        for resource in batch.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [
                    (span.name, span.trace_id.hex(), span.parent_span_id.hex())
                    for span in scope.spans
                ]
        return web.Response(content_type="application/x-protobuf")


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector on loopback."""
    one = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", one.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    try:
        yield one
    finally:
        await runner.cleanup()


async def test_a_task_is_one_trace_from_its_caller_to_vault(
    ground: Ground, workload: Workload, collector: Collector
) -> None:
    """The caller's trace holds the start, its calls to Vault and its rows; no secret is in any."""
    paths = ground.stack.paths
    config = await asyncio.to_thread(paths.config.read_text)
    endpoint = f"http://127.0.0.1:{collector.port}/v1/traces"
    traced = {**json.loads(config), "tracing": {"endpoint": endpoint}}
    await asyncio.to_thread(paths.config.write_text, json.dumps(traced))
    try:
        async with ground.stack.daemon():
            asked = {"task": "e2e-report", "parameters": {"region": "eu"}}
            caller = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            started = await workload.ask("POST", "/v1/tasks", json=asked, headers=caller)
            assert started.status == 201, started.body
            await workload.end(started.body)
    finally:
        await asyncio.to_thread(paths.config.write_text, config)
    of_start = [name for name, trace, _ in collector.spans if trace == TRACE]
    (end,) = {trace for name, trace, _ in collector.spans if name == "DELETE /v1/tasks/{id}"}
    of_end = [name for name, trace, _ in collector.spans if trace == end]
    password = str(started.body["credentials"]["warehouse"]["data"]["password"]).encode()

    assert {"POST /v1/tasks", "vault create_token", "vault mint"} <= set(of_start)
    assert of_start.count("ledger append") == 3
    assert {"vault revoke", "vault look_up", "vault probe"} <= set(of_end)
    assert all(password not in body and b"hvs." not in body for body in collector.bodies)
