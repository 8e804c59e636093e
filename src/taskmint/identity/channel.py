"""How we speak gRPC with an agent on this node: where, how patiently, and how large."""

from typing import Any, Final
from urllib.parse import urlsplit

from taskmint.errors import Code, TaskmintError

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
