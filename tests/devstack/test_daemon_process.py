"""The stack's daemon can be started, stopped, killed and brought back."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.process import StackError
from taskmint.devstack.stack import DAEMON, Stack
from taskmint.devstack.stack_files import Paths

pytestmark = pytest.mark.real


async def test_it_is_ready_when_started_and_comes_back(stack: Stack) -> None:
    """Its executable is its own; SIGTERM ends it with 0; after SIGKILL it starts again."""
    async with stack.daemon() as daemon:
        executable = await asyncio.to_thread(Path(f"/proc/{daemon.pid}/exe").readlink)
        assert executable == stack.python[DAEMON]

        await daemon.kill()
        with pytest.raises(StackError, match="not running"):
            daemon.signal(signal.SIGHUP)
        await daemon.start()

        first = daemon.pid
        assert await daemon.stop() == 0
        assert await daemon.stop() == 0
        await daemon.start()
        assert daemon.pid != first


async def test_its_environment_holds_no_token(stack: Stack) -> None:
    """Nothing that Vault's own tools would take a token or an address from reaches the daemon."""
    async with stack.daemon(TASKMINT_FAILPOINT="") as daemon:
        raw = await asyncio.to_thread(Path(f"/proc/{daemon.pid}/environ").read_bytes)
        names = {entry.partition(b"=")[0].decode() for entry in raw.split(b"\0") if entry}

    assert "TASKMINT_FAILPOINT" in names
    assert not {name for name in names if name.startswith(("VAULT_", "BAO_", "SPIFFE_"))}
    assert stack.bao.root_token.reveal().encode() not in raw


async def test_a_daemon_that_does_not_start_is_an_error_with_its_log(
    stack: Stack, tmp_path: Path
) -> None:
    """A configuration that is none is reported in the daemon's own words, at once."""
    paths = Paths(tmp_path)
    (tmp_path / "taskmint.yaml").write_text(json.dumps({"sockets": {"tusk": "/x"}}))

    with pytest.raises(StackError, match="tusk"):
        async with Daemon.running(stack.python[DAEMON], paths):
            pass
