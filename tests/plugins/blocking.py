"""
A blocking call of ours on the event loop fails the test that made it.

blockbuster wraps what the standard library can block on. What it misses (`os.open`, `os.fsync`,
`os.fdatasync`) is added here; CPU it cannot see. Only frames of taskmint count: tests may block.
"""

from collections.abc import Iterable, Iterator

import grpc.aio
import pytest
from blockbuster import BlockBusterFunction, blockbuster_ctx

_SCANNED = "taskmint"
_EXCLUDED = ["taskmint.devstack"]  # starts servers for people and tests; nobody waits behind it
_MISSED = ("os.open", "os.fsync", "os.fdatasync")
# /proc and control groups answer from the kernel's memory: opening them waits for nothing.
_FROM_MEMORY: list[tuple[str, Iterable[str]]] = [
    ("taskmint/identity/procfs.py", {"_read", "read_pid_namespace", "read_mountinfo"}),
    ("taskmint/identity/cgroups.py", {"open_group"}),
]


@pytest.fixture(scope="session", autouse=True)
def no_blocking_calls_on_the_loop() -> Iterator[None]:
    """Watch for the whole session; sub-processes are not watched."""
    # gRPC joins its poller when its last channel is collected, and the collector runs wherever it
    # likes, in a frame of ours too. Held once for the session, the poller is never joined there.
    grpc.aio.init_grpc_aio()
    with blockbuster_ctx(_SCANNED, excluded_modules=_EXCLUDED) as found:
        for name in _MISSED:
            found.functions[name] = BlockBusterFunction(
                None,
                name,
                can_block_functions=_FROM_MEMORY,
                scanned_modules=_SCANNED,
                excluded_modules=_EXCLUDED,
            ).activate()
        # Not ours: the lock that coverage takes when a thread runs a file for the first time.
        found.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield
