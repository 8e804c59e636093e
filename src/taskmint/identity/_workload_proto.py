"""
The Workload API's generated stubs, imported here and nowhere else in the daemon.

py-spiffe carries them; a second copy of workload.proto in one process is refused by protobuf.
gRPC reads GRPC_VERBOSITY when it is first imported, and without it writes to standard error when
a process that holds a channel forks.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from typing import Any

import grpc
import grpc.aio
from spiffe._proto import workload_pb2 as messages
from spiffe._proto.workload_pb2_grpc import SpiffeWorkloadAPIStub

__all__ = ("grpc", "messages", "open_stub")


def open_stub(channel: grpc.aio.Channel) -> Any:
    """Return the Workload API's methods on a channel; the generated class has no types."""
    return SpiffeWorkloadAPIStub(channel)  # type: ignore[no-untyped-call] # generated code
