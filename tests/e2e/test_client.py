"""taskmint.client and `taskmint run` against the real daemon."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from taskmint.client.client import TaskmintClient
from taskmint.client.errors import Refused
from taskmint.client.workload_api import MutualTls, WorkloadApi
from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.psql import libpq_environment, postgres_binaries
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import DAEMON_ID

from e2e.ground import Workload, admin
from plugins.canaries import Canaries

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("daemon")]


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack: Stack) -> AsyncIterator[TaskmintClient]:
    """A client of the daemon, with this process's identity."""
    svid = WorkloadApi(stack.workload_api.endpoint)
    async with TaskmintClient(str(stack.paths.task_socket), svid) as connected:
        yield connected


async def test_heartbeats_keep_a_task_beyond_its_interval(
    client: TaskmintClient, workload: Workload, canaries: Canaries
) -> None:
    """The definition asks for one every two seconds; after three the task is still active."""
    async with client.task("e2e-beating", purpose="to live") as task:
        canaries.plant(task.credentials["reader"].data["token"], "a handed token")
        shown = await workload.ask("GET", f"/v1/tasks/{task.id}?wait=3s")
        assert shown.body["state"] == "active"

    assert task.ended is not None
    assert (task.ended.state, task.ended.cause) == ("revoked", "succeeded")


async def test_an_operators_end_is_noticed_at_the_next_heartbeat(
    client: TaskmintClient, stack: Stack
) -> None:
    """The block learns that its credentials are gone; its own end finds the operator's."""
    async with client.task("e2e-beating") as task:
        assert (await admin(stack, "end", task.id))[0] == 0
        async with asyncio.timeout(10):
            await task.over.wait()

    assert task.ended is not None
    assert task.ended.cause == "operator"


async def test_a_refusal_has_the_daemons_code(client: TaskmintClient) -> None:
    """An unknown definition and a forbidden one look the same."""
    with pytest.raises(Refused) as raised:
        await client.start("no-such-task")

    assert (raised.value.status, raised.value.code) == (403, "not_permitted")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on tmpfs, which must be empty when the run is over."""
    directory = Path("/dev/shm") / f"taskmint-test-{secrets.token_hex(8)}"  # noqa: S108 - tmpfs is the point
    directory.mkdir(mode=0o700)
    yield directory
    directory.rmdir()


async def run(
    stack: Stack, memory: Path, command: str, **environment: str
) -> asyncio.subprocess.Process:
    """Start `taskmint run` as the registered workload; psql finds its password in a file."""
    libpq = libpq_environment(stack.postgres.superuser_dsn())
    del libpq["PGPASSWORD"], libpq["PGUSER"]
    return await asyncio.create_subprocess_exec(
        *(str(stack.python["orders-report"]), "-m", "taskmint", "run", "--task", "orders-report"),
        *("-p", "region=eu", "--env", "PGUSER=warehouse.username"),
        *("--file", f"{memory}/pgpass=warehouse:*:*:*:{{username}}:{{password}}\n"),
        *("--", "sh", "-euc", command),
        env={
            **libpq,
            "PATH": f"{postgres_binaries()}:{os.environ['PATH']}",
            "PGPASSFILE": f"{memory}/pgpass",
            **stack.environment(),
            **environment,
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_psql_works_inside_a_run_and_the_file_is_gone_after_it(
    stack: Stack, workload: Workload, memory: Path, canaries: Canaries
) -> None:
    """The command uses the credential from its file; afterwards the database refuses it."""
    command = "psql -XAtc 'SELECT DISTINCT region FROM orders'; cut -d: -f4,5 \"$PGPASSFILE\""
    process = await run(stack, memory, command)
    out, err = await process.communicate()
    region, login = out.decode().split()
    user, _, password = login.partition(":")
    canaries.plant(password, "the password of a wrapped command")
    task = {"credentials": {"warehouse": {"data": {"username": user, "password": password}}}}

    assert (process.returncode, err, region) == (0, b"", "eu")
    assert (await workload.query(task)).status == 2


async def test_a_run_by_mutual_tls(stack: Stack, memory: Path) -> None:
    """Named, the daemon proves who it is, and the certificate proves the workload: no token."""
    query = "psql -XAtc 'SELECT DISTINCT region FROM orders'"
    process = await run(stack, memory, query, TASKMINT_DAEMON_ID=DAEMON_ID)
    out, err = await process.communicate()

    assert (process.returncode, out, err) == (0, b"eu\n", b"")
    code, said = await admin(stack, "tasks")
    assert (code, said) == (0, "no live tasks\n")


async def test_a_run_that_expects_another_daemon(stack: Stack, memory: Path) -> None:
    """The real daemon is not the one that was named: nothing is started, nothing runs."""
    other = f"{DAEMON_ID}-of-another-node"
    process = await run(stack, memory, "echo ran", TASKMINT_DAEMON_ID=other)
    out, err = await process.communicate()

    assert (process.returncode, out) == (125, b"")
    assert DAEMON_ID.encode() in err


async def test_p12_a_program_by_mutual_tls(stack: Stack, canaries: Canaries) -> None:
    """The asyncio client: a whole task with the certificate alone, proven in the answer's end."""
    svid = MutualTls(DAEMON_ID, stack.workload_api.endpoint)
    async with (
        TaskmintClient(str(stack.paths.task_socket), svid) as connected,
        connected.task("e2e-beating", purpose="to live") as task,
    ):
        canaries.plant(task.credentials["reader"].data["token"], "a handed token")

    assert task.ended is not None
    assert task.ended.state == "revoked"


async def test_a_container_can_ask_for_health_without_an_identity(
    stack: Stack, tmp_path: Path
) -> None:
    """What the Dockerfile's HEALTHCHECK runs: 0 while the daemon answers, 1 where none is."""
    codes = []
    for path in (stack.paths.task_socket, tmp_path / "nobody.sock"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taskmint.client.health"),
            env={"TASKMINT_SOCKET": str(path)},
            stderr=asyncio.subprocess.DEVNULL,
        )
        codes.append(await process.wait())

    assert codes == [0, 1]


async def test_a_run_lives_through_a_restart_of_the_daemon(
    stack: Stack, daemon: Daemon, memory: Path
) -> None:
    """The daemon goes and comes back while the command works; then the end is proven."""
    query = "psql -XAtc 'SELECT DISTINCT region FROM orders'"
    process = await run(stack, memory, f"{query}; read _; {query}")
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"eu\n"
    await daemon.stop()
    await daemon.start()
    process.stdin.write(b"go on\n")
    out, err = await process.communicate()

    assert (process.returncode, out, err) == (0, b"eu\n", b"")
    assert (await admin(stack, "tasks"))[1] == "no live tasks\n"


async def test_a_run_that_ends_while_the_daemon_is_away_waits_for_it(
    stack: Stack, daemon: Daemon, memory: Path
) -> None:
    """The end is told as soon as the daemon is back; the command's code comes through."""
    process = await run(stack, memory, "echo ready; read _; exit 3")
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await daemon.stop()
    process.stdin.write(b"finish\n")
    await daemon.start()
    _, err = await process.communicate()

    assert (process.returncode, err) == (3, b"")
    assert (await admin(stack, "tasks"))[1] == "no live tasks\n"
