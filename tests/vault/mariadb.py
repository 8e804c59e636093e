"""A real MariaDB in a directory, where the distribution has one: for the statements' tests."""

import asyncio
import contextlib
import os
import secrets
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from taskmint.devstack.loopback import HOST, reserved_port
from taskmint.devstack.process import Program, StackError, leashed
from taskmint.model.secret import Secret

BINARIES = ("mariadbd", "mariadb", "mariadb-install-db")
_PATHS = "/usr/sbin:/usr/bin:/usr/local/bin"


def is_installed() -> bool:
    """Whether all that is needed is there."""
    return all(shutil.which(name, path=_PATHS) for name in BINARIES)


@dataclass(frozen=True)
class MariaDb:
    """A running server; its root comes through the Unix socket, everybody else by TCP."""

    directory: Path
    port: int
    vault_password: Secret[str]

    async def sql(self, statements: str) -> list[str]:
        """Run statements as root; one line per row."""
        status, said = await self._client(statements, "-uroot", f"--socket={self.socket}")
        if status:
            raise StackError(said)
        return said.splitlines()

    async def login(self, user: str, password: Secret[str], statements: str) -> tuple[int, str]:
        """Run statements with a login; its status, and what it says."""
        options = (f"-u{user}", f"-h{HOST}", f"-P{self.port}", "--connect-timeout=5")
        return await self._client(statements, *options, password=password)

    @contextlib.asynccontextmanager
    async def session(self, user: str, password: Secret[str]) -> AsyncIterator[Process]:
        """Hold a session open that has answered once."""
        process = await self._start(
            "-n", f"-u{user}", f"-h{HOST}", f"-P{self.port}", password=password
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"SELECT 'ready';\n")
            async with asyncio.timeout(10):
                assert b"ready" in await process.stdout.readline()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            process.stdin.close()

    async def sessions(self, user: str) -> int:
        """Count a user's open sessions."""
        (count,) = await self.sql(
            f"SELECT count(*) FROM information_schema.processlist WHERE user = '{user}'"
        )
        return int(count)

    @property
    def socket(self) -> Path:
        """For root."""
        return self.directory / "s"

    async def _client(
        self, statements: str, *options: str, password: Secret[str] | None = None
    ) -> tuple[int, str]:
        process = await self._start(*options, password=password)
        said, _ = await process.communicate(statements.encode())
        return process.returncode or 0, said.decode()

    async def _start(self, *options: str, password: Secret[str] | None = None) -> Process:
        known = {} if password is None else {"MYSQL_PWD": password.reveal()}
        return await asyncio.create_subprocess_exec(
            *(_binary("mariadb"), "--no-defaults", "-N", "-B", *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"LC_ALL": "C", **known},
        )


@contextlib.asynccontextmanager
async def mariadb_running(directory: Path, preparation: str) -> AsyncIterator[MariaDb]:
    """Make a data directory and serve it, with the orders database; then run the preparation."""
    log, data = directory / "server.log", directory / "data"
    who = ("--user=root",) if os.geteuid() == 0 else ()
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": _PATHS, "HOME": str(directory)}
    install = (
        *(_binary("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db"),
        *("--auth-root-authentication-method=normal", *who),
    )
    async with leashed(Program("install", install, log, environment), directory) as installing:
        if await installing.wait():
            raise StackError(log.read_text()[-2000:])
    with reserved_port() as port:
        made = MariaDb(directory, port, Secret(secrets.token_urlsafe(24)))
        serve = (
            *(_binary("mariadbd"), "--no-defaults", f"--datadir={data}", *who),
            *(f"--socket={made.socket}", f"--port={port}", f"--bind-address={HOST}"),
            *("--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0"),
            *("--innodb-buffer-pool-size=16M", f"--pid-file={directory / 'pid'}"),
        )
        async with leashed(Program("mariadbd", serve, log, environment, grace=10), directory):
            await _until_ready(made, log)
            await made.sql(
                "CREATE DATABASE orders; CREATE TABLE orders.eu (id int);"
                "INSERT INTO orders.eu VALUES (1), (2);"
            )
            await made.sql(preparation.replace("change-me", made.vault_password.reveal()))
            yield made


async def _until_ready(server: MariaDb, log: Path) -> None:
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(StackError):
                    await server.sql("SELECT 1")
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise StackError(log.read_text()[-2000:]) from None


def _binary(name: str) -> str:
    return shutil.which(name, path=_PATHS) or name
