"""
Nodes: daemons with configuration, sockets and ledger of their own, all before one OpenBao.

Each is started, killed and started again by its own process id. What a node remembers beside its
ledger is what callers were told: the only truth that they have.
"""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from taskmint.client.workload_api import WorkloadApi
from taskmint.devstack.daemon_process import daemon_environment
from taskmint.devstack.stack import DAEMON, Stack
from taskmint.devstack.stack_files import Paths, config_text

from e2e.ground import Reply

READY_SECONDS = 40.0
HEADER = {"X-Taskmint-Request": "true"}
SECRETS = ("password", "client_token", "token")
GENEROUS = {
    "starts_per_minute": 60_000,
    "starts_per_minute_per_identity": 60_000,
    "unproven_revocations": 10_000,  # after an outage so many are; starts go on all the same
}


class Zygote:
    """The process that daemons are forked from (zygote.py)."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def running(cls, python: Path) -> AsyncIterator[Self]:
        """Import the program once."""
        process = await asyncio.create_subprocess_exec(
            *(str(python), str(Path(__file__).parent / "zygote.py")),
            stdin=PIPE,
            stdout=PIPE,
            env=daemon_environment(),
            start_new_session=True,  # Ctrl-C is for us, who end it in order
        )
        zygote = cls(process)
        listening = asyncio.create_task(zygote._listen())
        try:
            yield zygote
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
            await listening

    async def start(self, config: Path, log: Path, **environment: str) -> int:
        """Fork a daemon; its pid."""
        order = {"config": str(config), "log": str(log), "environment": environment}
        assert self._process.stdin is not None
        async with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return await self._started.get()

    def end_of(self, pid: int) -> "asyncio.Future[int]":
        """When it has ended: its status, -9 for SIGKILL."""
        return self._ends[pid]

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            what, pid, *status = line.decode().split()
            if what == "started":
                self._ends[int(pid)] = asyncio.get_running_loop().create_future()
                self._started.put_nowait(int(pid))
            else:
                self._ends[int(pid)].set_result(int(status[0]))


@dataclass
class Told:
    """What the caller of one task knows."""

    id: str
    database: bool
    credentials: dict[int, dict[str, Any]]  # by revision: what was delivered

    @property
    def ulid(self) -> str:
        """As it stands in the names of accounts."""
        return self.id.removeprefix("tm_")


@dataclass
class Node:
    """One node; `told` are its tasks that were handed out and not seen to be over."""

    name: str
    paths: Paths
    zygote: Zygote
    svids: WorkloadApi
    told: dict[str, Told] = field(default_factory=dict)
    handed_out: list[tuple[str, int]] = field(default_factory=list)  # (task, revision), all ever
    pid: int | None = None
    ready: bool = False  # it listens to signals, and to callers
    lacking: dict[str, Any] = field(default_factory=dict)  # what /v1/ready said last
    killed_at: list[float] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)  # by ULID: when an end was first asked for
    session: aiohttp.ClientSession | None = None
    admin: aiohttp.ClientSession | None = None

    # --- the daemon ------------------------------------------------------------------------

    async def start(self, **environment: str) -> bool:
        """Start it; False when it died before it was ready, or does not become so."""
        log = self.paths.directory / "daemon.log"
        self.ready = False
        self.pid = await self.zygote.start(self.paths.config, log, **environment)
        end = self.zygote.end_of(self.pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                while not end.done():
                    with suppress(OSError, aiohttp.ClientError):
                        reply = await self._send("GET", "/v1/ready", HEADER)
                        self.lacking = reply.body
                        if reply.status == 200:
                            self.ready = True
                            return True
                    await asyncio.sleep(0.02)
        return False

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self.pid is not None and not self.zygote.end_of(self.pid).done()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def ended(self) -> int:
        """Wait for its end; its status."""
        assert self.pid is not None
        status = await self.zygote.end_of(self.pid)
        if status == -signal.SIGKILL:
            self.killed_at.append(time.monotonic())
        return status

    # --- its callers -----------------------------------------------------------------------

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Reply:
        """Send one request as the workload. Raises OSError, aiohttp.ClientError, TimeoutError."""
        headers = {**HEADER, "Authorization": f"Bearer {await self.svids.token()}"}
        return await self._send(method, path, headers, body)

    async def _send(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> Reply:
        assert self.session is not None
        return await _exchange(self.session, method, path, headers, body)

    async def begin(self, definition: str, region: str) -> int:
        """Start a task; the status."""
        body: dict[str, Any] = {"task": definition}
        if definition.endswith("database"):
            body["parameters"] = {"region": region}
        reply = await self.ask("POST", "/v1/tasks", body)
        if reply.status == 201:
            told = Told(reply.body["id"], definition.endswith("database"), {})
            self.told[told.id] = told
            self._note(told, reply)
        return reply.status

    @asynccontextmanager
    async def workload(self, definition: str) -> AsyncIterator[Told | None]:
        """
        Run a process that starts a task bound to itself; SIGKILL ends it with the context.

        None when the daemon refuses it. The process says that it is us: its token is ours.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", str(Path(__file__).parent / "workload.py")),
            *(str(self.paths.task_socket), definition),
            stdin=PIPE,
            stdout=PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{await self.svids.token()}\n".encode())
            reply = json.loads(await process.stdout.readline())
            assert reply["status"] in {201, 502, 503}, reply
            yield Told(reply["body"]["id"], False, {}) if reply["status"] == 201 else None
        finally:
            process.kill()
            await process.communicate()

    async def change(self, told: Told, region: str) -> int:
        """Change a task, or issue it anew; the status."""
        body = {"parameters": {"region": region}} if told.database else {}
        reply = await self.ask("PATCH", f"/v1/tasks/{told.id}", body)
        if reply.status == 200:
            self._note(told, reply)
        return reply.status

    async def acknowledge(self, told: Told) -> int:
        """Say that the newest credentials have arrived; the status."""
        newest = max(told.credentials, default=1)
        reply = await self.ask("POST", f"/v1/tasks/{told.id}/heartbeat?revision={newest}")
        return reply.status

    async def end(self, told: Told) -> int:
        """End a task; it is over when that is proven."""
        self.ends.setdefault(told.ulid, time.monotonic())
        reply = await self.ask("DELETE", f"/v1/tasks/{told.id}")
        if reply.status in {200, 404}:
            self.told.pop(told.id, None)
        return reply.status

    async def state(self, told: Told) -> str:
        """What the daemon says of a task; `unknown` when it says that there is none."""
        reply = await self.ask("GET", f"/v1/tasks/{told.id}")
        return str(reply.body["state"]) if reply.status == 200 else "unknown"

    async def pull_kill_switch(self, patience: float) -> str:
        """
        End everything there is, as an operator; what of it is not proven in so many seconds.

        Tasks are among them whose callers were never told: they were handed out, as their ledger
        says, in the moment in which their daemon was killed.
        """
        assert self.admin is not None
        reply = await _exchange(self.admin, "POST", "/v1/admin/revoke", HEADER, {"all": True})
        deadline = time.monotonic() + patience
        while reply.body["proven"] < reply.body["matched"] and time.monotonic() < deadline:
            path = f"/v1/admin/revoke/{reply.body['order']}"
            reply = await _exchange(self.admin, "GET", path, HEADER, None)
        return ", ".join(
            f"{task['id']} {task['state']} {task['end_cause']}: {task['last_problem']}"
            for task in reply.body["waiting"]
        )

    def _note(self, told: Told, reply: Reply) -> None:
        number = int(reply.body.get("revision", 1))
        told.credentials[number] = reply.body["credentials"]
        self.handed_out.append((told.id, number))


async def _exchange(
    session: aiohttp.ClientSession,
    method: str,
    path: str,
    headers: dict[str, str],
    body: dict[str, Any] | None,
) -> Reply:
    async with session.request(
        method, f"http://taskmint{path}", headers=headers, json=body
    ) as reply:
        return Reply(reply.status, await reply.json(content_type=None))


@asynccontextmanager
async def nodes(stack: Stack, count: int, vault: str) -> AsyncIterator[list[Node]]:
    """Lay out that many nodes of a stack, which reach Vault at `vault`; none is started yet."""
    svids = WorkloadApi(stack.workload_api.endpoint)
    async with Zygote.running(stack.python[DAEMON]) as zygote:
        made = [_lay_out(stack, f"n{index}", vault, zygote, svids) for index in range(count)]
        async with AsyncExitStack() as sessions:
            for node in made:
                node.session = await sessions.enter_async_context(_session(node.paths.task_socket))
                node.admin = await sessions.enter_async_context(_session(node.paths.admin_socket))
            yield made


def _session(socket: Path) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(str(socket), force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=45))


def _lay_out(stack: Stack, name: str, vault: str, zygote: Zygote, svids: WorkloadApi) -> Node:
    paths = Paths(stack.paths.directory / name)
    (paths.directory / "state").mkdir(parents=True, mode=0o700)
    config = json.loads(config_text(paths, vault, os.geteuid()))
    config["node"]["id"] = name
    config["identity"]["workload_api"] = stack.workload_api.endpoint
    config["policy"]["files"] = [str(stack.paths.policy)]
    config["limits"] = GENEROUS
    config["vault"]["timeout"] = "5s"
    paths.config.write_text(json.dumps(config))
    return Node(name, paths, zygote, svids)
