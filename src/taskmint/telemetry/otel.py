"""
`ports.Tracer` on OpenTelemetry's SDK (the extra `otel`): spans out, by OTLP over HTTP.

Spans carry routes, mounts and event names; never a path, an id of Vault's or a secret. Exceptions
are noted by type alone: a message may quote what was sent.
"""

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_CARRIED: Final = ("traceparent", "tracestate")
_FLUSH_MILLISECONDS: Final = 3000
_EXPORT_SECONDS: Final = 5


class Traces:
    """Spans of this daemon; queues are the SDK's, bounded, and drop what is too much."""

    def __init__(self, exporter: SpanExporter, node: str) -> None:
        resource = Resource.create(
            {
                "service.name": "taskmint",
                "service.version": importlib.metadata.version("taskmint"),
                "service.instance.id": node,
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("taskmint")
        self._wire = TraceContextTextMapPropagator()

    @classmethod
    def exporting_to(cls, endpoint: str, node: str) -> "Traces":
        """Send to a collector's `/v1/traces`."""
        return cls(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS), node)

    @contextmanager
    def serving(self, name: str, headers: Mapping[str, str]) -> Iterator[None]:
        """Enter a request's span, below the caller's own where its headers name one."""
        # From nothing: what a connection carried before is not this request's parent.
        carried = {key: headers[key] for key in _CARRIED if key in headers}
        above = self._wire.extract(carried, context.Context())
        token = context.attach(above)
        try:
            with self._span(name, SpanKind.SERVER, {}):
                yield
        finally:
            context.detach(token)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """Enter a span below the one that is entered."""
        with self._span(name, SpanKind.CLIENT, attributes):
            yield

    def outgoing(self) -> Mapping[str, str]:
        """Headers by which what is asked now belongs to the span that is entered."""
        headers: dict[str, str] = {}
        self._wire.inject(headers)
        return headers

    def close(self) -> None:
        """Send what is left, for a few seconds, and stop; blocks."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()

    @contextmanager
    def _span(self, name: str, kind: SpanKind, attributes: Mapping[str, str]) -> Iterator[None]:
        marked = {f"taskmint.{key}": value for key, value in attributes.items()}
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=marked,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise
