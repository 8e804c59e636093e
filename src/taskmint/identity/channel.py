"""How we speak gRPC with an agent on this node: where, how patiently, how large, and until when."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import urlsplit

from taskmint.errors import Code, TaskmintError

from ._workload_proto import grpc

_MAX_MESSAGE: Final = 4 << 20  # bytes; gRPC's own default, written down

CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel does not inherit an old one's backoff
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


# Nobody has this method. SPIRE answers so without attesting us, and without a line in its log.
_NO_METHOD: Final = "/taskmint.Presence/Ask"


async def answers(channel: Any, deadline: float) -> bool:
    """
    Whether the agent at the other end of a channel does anything, within `deadline` seconds.

    A frozen one keeps its connections, and streams on them look like streams without news. HTTP/2
    pings are no remedy: SPIRE allows one in five minutes (grpc-go's default) and else hangs up. So
    a call is made that any gRPC server answers, be it that there is no such method. An agent that
    is away is not silent: that is told by the streams themselves.
    """
    try:
        await channel.unary_unary(_NO_METHOD)(b"", timeout=deadline)
    except grpc.aio.AioRpcError as error:
        return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    return True


class StreamLost(Exception):
    """
    Nobody stands behind a stream's last message any more; `reason` is one word of it.

    The name of a gRPC status; ENDED, when the agent ended it in good order; CLOSED, when its
    channel was closed; UNDECODABLE, when what came is not a message at all.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def heard(call: Any) -> AsyncGenerator[Any, None]:
    """
    Yield the messages of a stream. It never just ends: raises StreamLost, whatever ends it.

    A message that cannot be decoded ends it too. grpc.aio yields None for it and goes on, but the
    agent has said something and we do not know what; opened again, it says it again.
    """
    try:
        async for message in call:
            if message is None:
                raise StreamLost("UNDECODABLE")
            yield message
    except grpc.aio.AioRpcError as error:
        raise StreamLost(code_of(error)) from None
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        raise StreamLost("CLOSED") from None
    finally:
        call.cancel()
    raise StreamLost("ENDED")


def being_cancelled() -> bool:
    """Whether we are cancelled, rather than a call whose channel was closed under it."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def socket_path(endpoint: str) -> str:
    """
    Return the path of `unix:///path` (SPIFFE Workload Endpoint, section 4).

    Raises TaskmintError(config_invalid).
    """
    parts = urlsplit(endpoint)
    if parts.scheme != "unix" or parts.netloc or not parts.path.startswith("/"):
        raise TaskmintError(
            Code.CONFIG_INVALID,
            f"{endpoint} is not an absolute Unix socket",
            fix="write unix:///run/spire/agent/public/api.sock",
        )
    return parts.path


def code_of(error: Any) -> str:
    """Return the name of a gRPC status code."""
    return str(error.code().name)
