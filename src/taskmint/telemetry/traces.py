"""
`tracing.endpoint` to a tracer: OpenTelemetry's where it is set and installed, else none at all.

The extra is imported only here, and only when it is asked for: without it nothing is paid.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskmint.errors import Code, TaskmintError
from taskmint.ports import UNTRACED, Tracer


@asynccontextmanager
async def tracing(endpoint: str | None, node: str) -> AsyncIterator[Tracer]:
    """
    Trace while entered; what was collected by then is sent on leaving, bounded in time.

    Raises TaskmintError(config_invalid) when the extra is missing.
    """
    if endpoint is None:
        yield UNTRACED
        return
    try:
        otel = await asyncio.to_thread(importlib.import_module, "taskmint.telemetry.otel")
    except ModuleNotFoundError as error:
        raise TaskmintError(
            Code.CONFIG_INVALID,
            f"tracing.endpoint is set, and {error.name} is not installed",
            fix="run pip install 'taskmint[otel]', or leave tracing.endpoint out",
        ) from None
    traces = await asyncio.to_thread(otel.Traces.exporting_to, endpoint, node)
    try:
        yield traces
    finally:
        await asyncio.to_thread(traces.close)
