"""Notices: signed, in order, bounded; whoever hangs is cut off, and nobody waits for them."""

import asyncio
import hmac
import json
import os
import resource
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from taskmint.model.secret import Secret
from taskmint.model.task_id import TaskId
from taskmint.ports import Notice
from taskmint.telemetry.commands import put_an_end_to, run_command
from taskmint.telemetry.notices import MOST_WAITING, Channels, Notices, Webhook

KEY = b"a key that two sides share"
TASK = TaskId("tm_01jd0000000000000000000000")
SHORT = timedelta(seconds=0.3)


@dataclass
class Hook:
    """A webhook on loopback: what came, and what it answers."""

    status: int = 204
    hang: asyncio.Event | None = None
    came: list[tuple[Any, bytes]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Keep it, and answer as told."""
        self.came.append((request.headers, await request.read()))
        self.heard.set()
        if self.hang is not None:
            await self.hang.wait()
        headers = {"Location": f"{self.url}/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, headers=headers)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Hook"]:
        """Serve it."""
        app = web.Application()
        app.add_routes([web.post("/{path:.*}", self.answer)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            if self.hang is not None:
                self.hang.set()
            await runner.cleanup()


@dataclass
class Desk:
    """Where failures are told."""

    failed: list[str] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)

    async def fail(self, notice: Notice, reason: str) -> None:
        """One did not arrive."""
        self.failed.append(f"{notice.kind}: {reason}")

    def open(self, channels: Channels) -> Notices:
        """Tell by these channels."""
        log = structlog.stdlib.get_logger()
        return Notices(channels, "node-a", log, self.fail, self.counted.append)


def notice(kind: str = "approval_requested") -> Notice:
    """One notice."""
    return Notice(kind, TASK, {"definition": "report"})


async def test_a_notice_arrives_signed_and_says_what_it_is_about() -> None:
    """The receiver can check the time and the body under the shared key."""
    desk = Desk()
    async with Hook().serving() as hook:
        async with desk.open(Channels(Webhook(hook.url, Secret(KEY)))) as notices:
            notices.notify(notice())
        ((headers, body),) = hook.came

    at = headers["X-Taskmint-Timestamp"]
    expected = hmac.new(KEY, at.encode() + b"." + body, sha256).hexdigest()
    assert headers["X-Taskmint-Signature"] == f"v1={expected}"
    assert json.loads(body) == {
        "version": 1, "kind": "approval_requested", "node": "node-a", "task": TASK,
        "definition": "report",
    }  # fmt: skip
    assert desk.counted == ["told"]


async def test_a_webhook_that_hangs_is_cut_off_and_the_next_one_is_told() -> None:
    """Bounded in time, counted, reported; whoever notifies never waits."""
    desk = Desk()
    async with Hook(hang=asyncio.Event()).serving() as hook:
        channels = Channels(Webhook(hook.url, Secret(KEY)), at_most=SHORT)
        async with desk.open(channels) as notices:
            notices.notify(notice("one"))
            await hook.heard.wait()
            assert hook.hang is not None
            async with asyncio.timeout(5):
                while not desk.failed:
                    await asyncio.sleep(0.01)
            hook.hang.set()
            notices.notify(notice("two"))

    assert desk.failed == ["one: the webhook did not answer in time"]
    assert desk.counted == ["failed", "told"]


async def test_more_than_may_wait_are_dropped_and_counted() -> None:
    """A hundred wait behind the one that hangs; no memory grows beyond that."""
    desk = Desk()
    async with Hook(hang=asyncio.Event()).serving() as hook:
        channels = Channels(Webhook(hook.url, Secret(KEY)), at_most=timedelta(seconds=30))
        async with desk.open(channels) as notices:
            notices.notify(notice())
            await hook.heard.wait()
            for _ in range(MOST_WAITING + 3):
                notices.notify(notice())
            assert desk.counted == ["dropped"] * 3
            assert hook.hang is not None
            hook.hang.set()

    assert desk.counted.count("told") == MOST_WAITING + 1
    assert desk.failed == [f"approval_requested: more than {MOST_WAITING} waited"] * 3


async def test_what_waits_at_a_stop_is_reported_after_two_seconds() -> None:
    """Also the one that was being told: the receiver may not have it."""
    desk = Desk()
    async with Hook(hang=asyncio.Event()).serving() as hook:
        channels = Channels(Webhook(hook.url, Secret(KEY)), at_most=timedelta(seconds=30))
        async with desk.open(channels) as notices:
            notices.notify(notice("one"))
            notices.notify(notice("two"))

    stopped = "the daemon stopped before it was told"
    assert desk.failed == [f"one: {stopped}", f"two: {stopped}"]
    assert desk.counted == ["failed", "failed"]


async def test_a_redirect_is_not_followed_and_a_refusal_is_reported() -> None:
    """Only the address of the config is ever told."""
    for status in (302, 500):
        desk = Desk()
        async with Hook(status=status).serving() as hook:
            async with desk.open(Channels(Webhook(hook.url, Secret(KEY)))) as notices:
                notices.notify(notice())
            assert len(hook.came) == 1
        assert desk.failed == [f"approval_requested: the webhook answered {status}"]
    desk = Desk()
    async with desk.open(Channels(Webhook("http://127.0.0.1:1", Secret(KEY)))) as notices:
        notices.notify(notice())
    assert desk.failed == [
        "approval_requested: the webhook cannot be reached: ClientConnectorError"
    ]


async def test_without_a_channel_nobody_is_told() -> None:
    """And nothing is counted."""
    desk = Desk()
    async with desk.open(Channels()) as notices:
        notices.notify(notice())

    assert desk.counted == []


def script(directory: Path, text: str) -> str:
    """A program."""
    path = directory / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def test_a_command_gets_json_on_stdin_and_no_environment(tmp_path: Path) -> None:
    """No shell reads its arguments; exit 0 is yes, everything else is not."""
    os.environ["TASKMINT_TEST_LEAK"] = "leak"
    program = script(
        tmp_path, f'cat > {tmp_path}/told; env > {tmp_path}/env; test "$1" = "; exit 1"'
    )
    desk = Desk()
    async with desk.open(Channels(command=(program, "; exit 1"))) as notices:
        notices.notify(notice())
    del os.environ["TASKMINT_TEST_LEAK"]

    assert desk.counted == ["told"]
    assert json.loads((tmp_path / "told").read_text())["task"] == TASK
    assert "leak" not in (tmp_path / "env").read_text()


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Its process group ends; what cannot be run, or fails, is no yes."""
    program = script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    said = await run_command((program,), {}, SHORT)
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(5):
        while _runs(child):
            await asyncio.sleep(0.01)

    assert said == f"{program} did not end within 0.3 s"
    assert await run_command(("/nonexistent",), {}, SHORT) is not None
    failing = script(tmp_path, "exit 3")
    assert await run_command((failing,), {}, timedelta(seconds=5)) == f"{failing} exited with 3"
    assert await run_command((script(tmp_path, "exit 0"),), {}, timedelta(seconds=5)) is None


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """As when the daemon has as many open as it may."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


async def test_without_descriptors_a_command_has_not_said_yes_and_notices_go_on() -> None:
    """EMFILE is a no, not an end of who asks: the next notice is told."""
    desk = Desk()
    async with desk.open(Channels(command=("/bin/true",))) as notices:
        with no_more_descriptors():
            notices.notify(notice("one"))
            async with asyncio.timeout(5):
                while not desk.failed:
                    await asyncio.sleep(0)
        notices.notify(notice("two"))

    assert desk.failed == ["one: /bin/true cannot be run: Too many open files"]
    assert desk.counted == ["failed", "told"]


@dataclass
class Undying:
    """A program in a sleep that no signal ends: it waits for a disk that is gone."""

    pid: int

    async def wait(self) -> int:
        """Never."""
        await asyncio.Event().wait()
        return 0


async def test_a_command_that_cannot_be_killed_is_left_behind() -> None:
    """Who asked goes on after two seconds; the group that it was in is killed all the same."""
    program = await asyncio.create_subprocess_exec("/bin/sleep", "60", start_new_session=True)
    async with asyncio.timeout(5):
        await put_an_end_to(Undying(program.pid))
        assert await program.wait() < 0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
