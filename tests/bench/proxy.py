"""`bao proxy` on a Unix listener with auto-auth: the usual way to spare workloads a token."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from taskmint.devstack.openbao import bao_binary
from taskmint.devstack.process import Leashed, Program, StackError, leashed
from taskmint.model.secret import Secret

_READY_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05

# No cache: it would keep leases, and a task's credential is never asked for twice.
# `use_auto_auth_token = true` adds the proxy's token where a request brings none of its own.
_CONFIG: Final = """\
vault {{
  address = "{address}"
}}
auto_auth {{
  method "token_file" {{
    config {{
      token_file_path = "{token_file}"
    }}
  }}
}}
api_proxy {{
  use_auto_auth_token = true
}}
listener "unix" {{
  address     = "{socket}"
  socket_mode = "0600"
  tls_disable = true
}}
"""


@contextlib.asynccontextmanager
async def bao_proxy(directory: Path, address: str, token: Secret[str]) -> AsyncIterator[Leashed]:
    """Run a proxy to `address` that authenticates with `token`; its socket is `proxy.sock`."""
    config, token_file = directory / "proxy.hcl", directory / "proxy-token"
    socket = directory / "proxy.sock"
    text = _CONFIG.format(address=address, token_file=token_file, socket=socket)
    await asyncio.to_thread(_write, {config: text, token_file: token.reveal()})
    program = Program(
        name="bao proxy",
        command=(str(bao_binary()), "proxy", f"-config={config}"),
        log=directory / "proxy.log",
        environment={"HOME": str(directory)},
    )
    async with leashed(program, directory) as running:
        await _until_authenticated(program.log, running)
        yield running


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


async def _until_authenticated(log: Path, running: Leashed) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            while running.running:
                text = await asyncio.to_thread(log.read_text)
                if "authentication successful" in text:
                    return
                await asyncio.sleep(_POLL_SECONDS)
    raise StackError(f"bao proxy does not start; see {log}")
