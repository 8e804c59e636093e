"""What a terminal gets: live views under a pseudo-terminal, colour, progress, completion."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from client.test_admin import FakeAdmin, ready, task_reply, taskmint

CLEAR = "\x1b[H\x1b[2J"


class Screen:
    """A command on a pseudo-terminal, and everything it has written there."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.text = ""
        self._master = master
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    @classmethod
    @asynccontextmanager
    async def of(cls, socket: Path, *arguments: str, **environment: str) -> AsyncIterator["Screen"]:
        """Run a command; it is ended when the context is left."""
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taskmint", *arguments),
            env={
                "PATH": os.environ["PATH"],
                "TERM": "xterm",
                "TASKMINT_ADMIN_SOCKET": str(socket),
                **environment,
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        screen = cls(process, master)
        try:
            yield screen
        finally:
            asyncio.get_running_loop().remove_reader(master)
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(master)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.text += data.decode()
        self._more.set()

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._master, text.encode())

    async def until(self, text: str, times: int = 1) -> None:
        """Wait until it has written this so often."""
        async with asyncio.timeout(20):
            while self.text.count(text) < times:
                self._more.clear()
                await self._more.wait()


@pytest_asyncio.fixture
async def admin(tmp_path: Path) -> AsyncIterator[FakeAdmin]:
    """A daemon with one live task."""
    async with FakeAdmin(tmp_path / "admin.sock").serving() as serving:
        serving.replies["/v1/admin/status"] = (200, ready())
        serving.replies["/v1/admin/tasks"] = (200, {"tasks": [task_reply()]})
        yield serving


async def test_top_draws_anew_until_it_is_interrupted(admin: FakeAdmin) -> None:
    """Status and tasks on one page, then again; Ctrl-C is a normal end."""
    async with Screen.of(admin.socket, "top", "--every", "0.1") as screen:
        await screen.until(CLEAR, times=3)
        while screen.process.returncode is None:  # Python may lose one in a destructor
            screen.process.send_signal(signal.SIGINT)
            with suppress(TimeoutError):
                await asyncio.wait_for(screen.process.wait(), 5)

        assert screen.process.returncode == 0
    assert "2 live, 0 revoking" in screen.text
    assert task_reply()["id"] in screen.text
    assert "Traceback" not in screen.text


async def test_top_wants_a_terminal(admin: FakeAdmin) -> None:
    """2, and what to use instead."""
    code, _, err = await taskmint(admin.socket, "top")

    assert code == 2
    assert "tasks --watch" in err


async def test_a_watched_list_is_drawn_in_place(admin: FakeAdmin) -> None:
    """`tasks --watch` clears the page, and shows what has changed since."""
    async with Screen.of(admin.socket, "tasks", "--watch", "0.1") as screen:
        await screen.until(CLEAR, times=2)
        admin.replies["/v1/admin/tasks"] = (200, {"tasks": []})
        await screen.until("no live tasks")


@pytest.mark.parametrize(("answer", "code", "asked"), [("n", 1, 0), ("y", 0, 1)])
async def test_the_kill_switch_asks_whoever_sits_at_a_terminal(
    admin: FakeAdmin, answer: str, code: int, asked: int
) -> None:
    """Nothing is sent before the answer; a script is not asked (test_admin.py)."""
    done = {"order": 7, "matched": 1, "proven": 1, "unrecorded": 0, "waiting": []}
    admin.replies["/v1/admin/revoke"] = (202, done)
    async with Screen.of(admin.socket, "revoke", "--all", "--reason", "drill") as screen:
        await screen.until("End everything and take back its credentials? [y/N]: ")
        assert admin.asked == []
        screen.type(answer + "\n")

        assert await screen.process.wait() == code
    assert len(admin.asked) == asked


async def test_the_kill_switch_can_be_told_not_to_ask(admin: FakeAdmin) -> None:
    """--yes."""
    done = {"order": 7, "matched": 0, "proven": 0, "unrecorded": 0, "waiting": []}
    admin.replies["/v1/admin/revoke"] = (202, done)
    async with Screen.of(admin.socket, "revoke", "--ticket", "INC-1", "--yes") as screen:
        await screen.until("no live task was selected")
    assert "[y/N]" not in screen.text


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
async def test_colour_is_for_terminals_that_want_it(
    admin: FakeAdmin, environment: dict[str, str], *, coloured: bool
) -> None:
    """Off under NO_COLOR (no-color.org) and on a dumb terminal; never in a pipe."""
    async with Screen.of(admin.socket, "status", **environment) as screen:
        await screen.until("rows for the disk")
        await screen.process.wait()
    _, piped, _ = await taskmint(admin.socket, "status")

    assert ("\x1b[32mready" in screen.text) == coloured
    assert "\x1b" not in piped


async def test_what_takes_longer_than_two_seconds_says_so(tmp_path: Path) -> None:
    """On a terminal, on standard error, and it is wiped away afterwards."""
    accepted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        accepted.set()
        await asyncio.sleep(3)
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "admin.sock")
    async with server, Screen.of(tmp_path / "admin.sock", "status") as screen:
        await screen.until("waiting for the daemon")
        assert accepted.is_set()
        assert await screen.process.wait() == 3
    assert "\x1b[K" in screen.text


def complete(line: str) -> list[str]:
    """What bash would offer after this line, by the script that we print."""
    script = f"""
        eval "$(taskmint completion bash)"
        COMP_WORDS=({line} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _taskmint_completion taskmint; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": path},
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    ).stdout.split()


def test_bash_completes_commands_and_what_they_take() -> None:
    """Every command, those of a group, and the words of an option."""
    assert {"status", "tasks", "doctor", "policy", "completion"} <= set(complete("taskmint"))
    assert {"verify", "show", "export", "tail"} <= set(complete("taskmint audit"))
    assert {"age", "deadline"} <= set(complete("taskmint tasks --sort"))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_theirs(shell: str) -> None:
    """The script names the command and the variable by which it asks."""
    script = subprocess.run(
        [sys.executable, "-m", "taskmint", "completion", shell],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    ).stdout

    assert "taskmint" in script
    assert f"_TASKMINT_COMPLETE={shell}_complete" in script
