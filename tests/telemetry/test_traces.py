"""Traces: spans within each other across the daemon, the caller's above, Vault's below."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from taskmint.errors import Code
from taskmint.ports import UNTRACED, Answered, VaultCall
from taskmint.telemetry.otel import Traces
from taskmint.telemetry.traces import tracing
from taskmint.vault.responses import Reply
from taskmint.vault.stopwatch import Stopwatch

from api.server import HEADERS, task_socket

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


def finished(traces: Traces, exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Every span by name, once the queue is flushed."""
    traces.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    """A span's trace, as on the wire."""
    return f"{context_of(span).trace_id:032x}"


def context_of(span: ReadableSpan) -> SpanContext:
    """A span's ids."""
    found = span.get_span_context()
    assert found is not None
    return found


async def test_a_callers_trace_goes_on_through_the_daemon_to_vault() -> None:
    """W3C Trace Context: taken from the request; its span below it, Vault's below that."""
    exporter = InMemorySpanExporter()
    traces = await asyncio.to_thread(Traces, exporter, "n1")
    sent: list[dict[str, str]] = []

    async def call() -> Reply:
        sent.append(dict(watch.outgoing()))
        return Reply(200, {}, {"data": {}})

    counted: list[tuple[str, VaultCall, Answered]] = []
    watch = Stopwatch(
        lambda mount, what, answered, _: counted.append((mount, what, answered)), traces
    )
    with traces.serving("POST /v1/tasks", CALLER):
        await watch.timed("database", VaultCall.MINT, call)
    spans = await asyncio.to_thread(finished, traces, exporter)
    request, mint = spans["POST /v1/tasks"], spans["vault mint"]

    assert counted == [("database", VaultCall.MINT, Answered.OK)]
    assert trace_of(request) == trace_of(mint) == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert mint.parent is not None
    assert mint.parent.span_id == context_of(request).span_id
    assert sent[0]["traceparent"] == f"00-{TRACE}-{context_of(mint).span_id:016x}-01"
    assert sent[0]["tracestate"] == "vendor=1"
    assert mint.attributes == {"taskmint.mount": "database"}
    assert request.resource.attributes["service.instance.id"] == "n1"


@pytest.mark.parametrize("header", ["", "rubbish", "00-0-0-01", f"ff-{TRACE}-{PARENT}-01"])
def test_what_is_no_trace_context_begins_a_trace_of_its_own(header: str) -> None:
    """A caller cannot break anything by it."""
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, "n1")
    with traces.serving("GET /v1/health", {"traceparent": header}):
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", traces.outgoing()["traceparent"])
    (span,) = finished(traces, exporter).values()

    assert span.parent is None
    assert trace_of(span) != TRACE


def test_a_span_of_a_failure_names_the_type_and_nothing_of_the_text() -> None:
    """P9: an exception's text may quote what was sent."""
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, "n1")
    with pytest.raises(ValueError, match="canary"), traces.span("vault renew", {}):
        raise ValueError("hvs.canary-in-a-trace")
    (span,) = finished(traces, exporter).values()

    assert span.status.description == "ValueError"
    assert "canary" not in span.to_json()


async def test_requests_are_traced_by_their_pattern(tmp_path: Path) -> None:
    """Over real HTTP: no task id in a span's name, also for a path that is none."""
    exporter = InMemorySpanExporter()
    traces = await asyncio.to_thread(Traces, exporter, "n1")
    async with task_socket(tmp_path, tracer=traces) as http:
        await http.ask("GET", "/v1/tasks/tm_secret", headers={**HEADERS, **CALLER})
        await http.ask("GET", "/v1/nothing")
    spans = await asyncio.to_thread(finished, traces, exporter)

    assert set(spans) == {"GET /v1/tasks/{id}", "GET unknown"}
    assert trace_of(spans["GET /v1/tasks/{id}"]) == TRACE
    assert trace_of(spans["GET unknown"]) != TRACE


def said_by(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout


async def test_without_an_endpoint_the_same_object_does_nothing_for_everybody() -> None:
    """No span, no header, nothing to close."""
    async with tracing(None, "n1") as tracer:
        assert tracer is UNTRACED
        with tracer.serving("x", CALLER), tracer.span("y", {}):
            assert tracer.outgoing() == {}


def test_the_daemon_imports_no_tracing_unless_it_is_asked_for() -> None:
    """Who does not install the extra, or does not switch it on, pays nothing."""
    code = "import sys, taskmint.daemon.run; print([m for m in sys.modules if 'opentel' in m])"

    assert said_by(code) == "[]\n"


def test_a_missing_extra_is_said_in_a_sentence() -> None:
    """With what to install; the daemon does not start half."""
    said = said_by(
        "import asyncio, sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from taskmint.telemetry.traces import tracing\n"
        "from taskmint.errors import TaskmintError\n"
        "async def main():\n"
        "    try:\n"
        "        async with tracing('http://127.0.0.1:9/v1/traces', 'n'): pass\n"
        "    except TaskmintError as error: print(error.code, error.detail, error.fix)\n"
        "asyncio.run(main())\n"
    )

    assert Code.CONFIG_INVALID in said
    assert "pip install 'taskmint[otel]'" in said


async def test_a_collector_that_is_away_delays_nothing() -> None:
    """Spans are lost; leaving takes a few seconds at most."""
    async with tracing("http://127.0.0.1:9/v1/traces", "n1") as tracer:
        with tracer.serving("GET /v1/health", {}):
            pass
