"""`taskmint run`: what a command wrapped by it can rely on, and what its caller can."""

import asyncio
import contextlib
import json
import os
import pty
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from fakes.spiffe_agent import FakeAgent
from fakes.task_socket import FakeDaemon

RUN = ("-m", "taskmint", "run", "--task", "orders")
SAY_READY = "import sys, time; print('ready', flush=True); "


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Runner:
    """Starts `taskmint run` against the two fakes."""

    environment: dict[str, str]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start `taskmint run --task orders ARGUMENTS`."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *RUN,
            *arguments,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # no terminal of the developer's
        )

    async def run(self, *arguments: str) -> Result:
        """Run to the end."""
        return await finish(await self.start(*arguments))

    async def python(self, *arguments: str, code: str) -> Result:
        """Run with a line of Python as the command."""
        return await self.run(*arguments, "--", sys.executable, "-c", code)


async def finish(process: asyncio.subprocess.Process) -> Result:
    """Close the command's input and wait for the end of a run."""
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def ready(process: asyncio.subprocess.Process) -> None:
    """Wait for the command's first line."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"ready\n"


def handled(process: asyncio.subprocess.Process) -> None:
    """Wait until no signal is pending for the process."""
    status = Path(f"/proc/{process.pid}/status")
    give_up = time.monotonic() + 10
    while "ShdPnd:\t0000000000000000" not in status.read_text():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def runner(daemon: FakeDaemon, agent: FakeAgent) -> Runner:
    """An environment that names both fakes and holds no credential."""
    sockets = {"TASKMINT_SOCKET": str(daemon.socket), "SPIFFE_ENDPOINT_SOCKET": agent.endpoint}
    return Runner({**os.environ, **sockets})


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on tmpfs, gone with what is in it."""
    directory = Path("/dev/shm") / f"taskmint-test-{secrets.token_hex(8)}"  # noqa: S108 - tmpfs is the point
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


async def test_the_command_has_the_credential_and_its_exit_code_comes_through(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """Variables are set, output and code are the command's own, the task ends as succeeded."""
    code = "import os; u, p = os.environ['PGUSER'], os.environ['PGPASSWORD']; print(u, len(p))"
    result = await runner.python(
        *("-p", "region=eu", "--purpose", "totals", "--ticket", "T-1", "--ttl", "5m"),
        *("--bind", "peer", "--env", "PGUSER=warehouse.username"),
        *("--env", "PGPASSWORD=warehouse.password", "--env", "PGPORT=warehouse.port"),
        code=code,
    )

    assert result == Result(0, "v-orders 32\n", "")
    start, end = daemon.asked
    assert start.body == {
        "task": "orders",
        "parameters": {"region": "eu"},
        "purpose": "totals",
        "ticket": "T-1",
        "ttl_seconds": 300,
        "bind": "peer",
    }
    assert end.outcome == "succeeded"


async def test_a_failing_command_fails_the_task(runner: Runner, daemon: FakeDaemon) -> None:
    """The code comes through and the outcome is told."""
    result = await runner.python(code="raise SystemExit(7)")

    assert result.code == 7
    assert daemon.asked[-1].outcome == "failed"


async def test_a_command_ended_by_a_signal(runner: Runner, daemon: FakeDaemon) -> None:
    """128 + the signal, as a shell says it."""
    result = await runner.python(code="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    assert result.code == 128 + signal.SIGKILL
    assert daemon.asked[-1].outcome == "failed"


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126)])
async def test_a_command_that_cannot_be_executed(
    runner: Runner, daemon: FakeDaemon, command: str, code: int
) -> None:
    """126 and 127 as env(1); the task that was started for it is ended."""
    result = await runner.run("--", command)

    assert result.code == code
    assert command in result.err
    assert [task.end_cause for task in daemon.tasks.values()] == ["failed"]


async def test_what_answers_cannot_write_to_the_callers_terminal(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """Whoever listens on that path: its words are shown escaped, in one line."""
    daemon.refuse("start", 403, "no\x1b]0;owned\x07\x1b[2J\rtaskmint: all is well\x7f\n")
    result = await runner.run("--", "true")
    (line,) = result.err.splitlines()

    assert result.code == 125
    assert line.isprintable()
    assert "refused: no\\u001b]0;owned\\u0007\\u001b[2J\\rtaskmint: all is well\\u007f\\n" in line


async def test_sigterm_reaches_the_command_and_the_task_is_ended(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """The command may finish in its own way; its code is the runner's."""
    code = "signal.signal(15, lambda *_: sys.exit(3)); " + SAY_READY + "time.sleep(60)"
    process = await runner.start("--", sys.executable, "-c", f"import signal, sys; {code}")
    await ready(process)
    process.terminate()
    result = await finish(process)

    assert result.code == 3
    assert daemon.asked[-1].outcome == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
async def test_signals_are_passed_on(runner: Runner, daemon: FakeDaemon, number: int) -> None:
    """A command that leaves a signal alone dies of it, and the runner says so."""
    code = f"import signal; signal.signal({number}, signal.SIG_DFL); {SAY_READY} time.sleep(60)"
    process = await runner.start("--", sys.executable, "-c", code)
    await ready(process)
    process.send_signal(number)
    result = await finish(process)

    assert result.code == 128 + number
    assert daemon.count("end") == 1


async def test_a_killed_runner_takes_the_command_with_it(runner: Runner) -> None:
    """The task is bound to the runner: without it the command has nothing, and is killed."""
    process = await runner.start("--", sys.executable, "-c", f"{SAY_READY} time.sleep(60)")
    await ready(process)
    process.kill()
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert await process.stdout.read() == b""  # the command's end of the pipe is closed too
    await process.wait()


async def test_a_signal_during_the_start_leaves_no_task(runner: Runner, daemon: FakeDaemon) -> None:
    """Terminated while the daemon mints: the command never runs, the task is ended."""
    daemon.minting = asyncio.Event()
    process = await runner.start("--", sys.executable, "-c", "print('ran')")
    await daemon.until(lambda: daemon.count("start") == 1)
    process.terminate()
    await asyncio.to_thread(handled, process)
    daemon.minting.set()
    result = await finish(process)

    assert result == Result(128 + signal.SIGTERM, "", "")
    assert [task.end_cause for task in daemon.tasks.values()] == ["cancelled"]


async def test_a_second_signal_during_the_start_gives_up(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """Whoever cannot wait for a daemon that hangs is let go, and told what becomes of the task."""
    daemon.minting = asyncio.Event()
    process = await runner.start("--", sys.executable, "-c", "print('ran')")
    await daemon.until(lambda: daemon.count("start") == 1)
    process.send_signal(signal.SIGINT)  # two different ones, so that both are seen
    process.send_signal(signal.SIGTERM)
    result = await finish(process)
    daemon.minting.set()

    assert result.code in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    assert result.out == ""
    assert "given up" in result.err


async def test_heartbeats_go_out_while_the_command_runs(runner: Runner, daemon: FakeDaemon) -> None:
    """A command that says nothing for long keeps its task."""
    daemon.heartbeat_seconds = 0.3
    process = await runner.start("--", sys.executable, "-c", f"{SAY_READY} sys.stdin.read()")
    await ready(process)
    await daemon.until(lambda: daemon.count("heartbeat") >= 2)
    result = await finish(process)

    assert result.code == 0


async def test_a_command_whose_task_is_over_is_terminated(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """The daemon ended the task: the command is told to stop, and why is said."""
    daemon.heartbeat_seconds = 0.3
    daemon.refuse("heartbeat", 409, "task_ended")
    result = await runner.python(code="import time; time.sleep(60)")

    assert result.code == 128 + signal.SIGTERM
    assert "the task is over" in result.err


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("warehouse.username", "v-orders"),
        ("warehouse.port", "5432"),
        ("warehouse:{{{username}}}:{port}\n", "{v-orders}:5432\n"),
    ],
)
async def test_a_file_holds_what_was_asked_for(
    runner: Runner, memory: Path, rule: str, content: str
) -> None:
    """A field or a template, readable by its owner alone, gone with the task."""
    path = memory / "credential"
    code = f"import os; s = os.stat('{path}'); print(oct(s.st_mode)); print(open('{path}').read())"
    result = await runner.python("--file", f"{path}={rule}", code=code)

    assert result == Result(0, f"{stat.S_IFREG | 0o600:#o}\n{content}\n", "")
    assert not path.exists()


async def test_a_file_without_a_field_holds_everything(
    runner: Runner, daemon: FakeDaemon, memory: Path
) -> None:
    """All of the data, as JSON."""
    path = memory / "credential"
    code = f"import json; print(sorted(json.load(open('{path}'))))"
    result = await runner.python("--file", f"{path}=warehouse", code=code)

    assert json.loads(result.out.replace("'", '"')) == sorted(daemon.credentials["warehouse"])


async def test_a_file_is_never_written_over(
    runner: Runner, daemon: FakeDaemon, memory: Path
) -> None:
    """What is there stays, a symbolic link's target included; the task is ended; 125."""
    (memory / "there").write_text("mine")
    (memory / "link").symlink_to(memory / "elsewhere")
    for name in ("there", "link"):
        result = await runner.run("--file", f"{memory / name}=warehouse.password", "--", "true")
        assert result.code == 125
        assert "not overwritten" in result.err

    assert (memory / "there").read_text() == "mine"
    assert not (memory / "elsewhere").exists()
    assert {task.end_cause for task in daemon.tasks.values()} == {"failed"}


async def test_a_file_on_a_disk_is_refused(runner: Runner, memory: Path) -> None:
    """A credential is not written to what survives a power cut; nothing is left behind."""
    path = Path(__file__).parent / f"credential-{secrets.token_hex(4)}"
    other = memory / "first"
    result = await runner.run(
        *("--file", f"{other}=warehouse.password", "--file", f"{path}=warehouse.password"),
        *("--", "true"),
    )

    assert result.code == 125
    assert "tmpfs" in result.err
    assert not path.exists()
    assert not other.exists()


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("--env=A=nothing.password", "no entitlement 'nothing' (it has: warehouse)"),
        ("--env=A=warehouse.pasword", "no field 'pasword'"),
        ("--file=/dev/shm/x=warehouse:{pasword}", "no field 'pasword'"),
        ("--file=/dev/shm/x=warehouse:{", "braces"),
        ("--file=/nowhere/x=warehouse.password", "No such file or directory"),
        ("--env=A=warehouse.nul", "NUL"),
    ],
)
async def test_what_cannot_be_delivered_runs_nothing(
    runner: Runner, daemon: FakeDaemon, rule: str, sentence: str
) -> None:
    """125, a sentence without a secret, the command not run, the task ended."""
    daemon.credentials["warehouse"]["nul"] = "a\0b"
    result = await runner.run(rule, "--", "echo", "ran")

    assert (result.code, result.out) == (125, "")
    assert sentence in result.err
    assert daemon.asked[-1].what == "end"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--env", "A"],
        ["--env", "1A=warehouse.password"],
        ["--file", "warehouse"],
        ["-p", "region"],
        ["--ttl", "soon"],
        ["--ttl", "0s"],
        ["--bind", "moon"],
        ["--unknown"],
        ["--pur", "abbreviated"],
    ],
)
async def test_wrong_use_is_125(runner: Runner, daemon: FakeDaemon, arguments: list[str]) -> None:
    """No code of ours can be taken for the command's; nothing was asked of the daemon."""
    result = await runner.run(*arguments, "--", "true")

    assert result.code == 125
    assert "taskmint run: " in result.err
    assert daemon.asked == []


async def test_a_command_is_needed(runner: Runner, daemon: FakeDaemon) -> None:
    """Without `--` and a command there is nothing to run, and no task."""
    for arguments in ([], ["--"], ["true"]):
        result = await runner.run(*arguments)
        assert result.code == 125

    assert daemon.asked == []


async def test_a_refusal_is_125_with_code_and_fix(runner: Runner, daemon: FakeDaemon) -> None:
    """The command does not run without its task."""
    daemon.refuse("start", 403, "not_permitted")
    result = await runner.run("--", "echo", "ran")

    assert (result.code, result.out) == (125, "")
    assert "(not_permitted)" in result.err
    assert "do as the fake says" in result.err


async def test_no_identity_is_125(runner: Runner, agent: FakeAgent, daemon: FakeDaemon) -> None:
    """A workload that nobody registered hears what to do."""
    agent.refusal = (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    result = await runner.run("--", "true")

    assert result.code == 125
    assert "issues no identity" in result.err
    assert daemon.asked == []


async def test_an_end_that_is_not_proven_is_said(runner: Runner, daemon: FakeDaemon) -> None:
    """The command's code stays what it is."""
    daemon.proven = False
    result = await runner.python(code="raise SystemExit(4)")

    assert result.code == 4
    assert "not proven" in result.err


async def test_a_daemon_that_refuses_the_end_is_said(runner: Runner, daemon: FakeDaemon) -> None:
    """The end could not be told: one line, and the command's own code."""
    daemon.refuse("end", 403, "not_permitted")
    result = await runner.run("--", "true")

    assert result.code == 0
    assert "could not be told" in result.err


async def test_no_secret_is_in_an_argument(runner: Runner, daemon: FakeDaemon) -> None:
    """Every process of the machine may read arguments: neither the runner's nor the command's."""
    async with _running(runner) as process:
        password = daemon.credentials["warehouse"]["password"]
        arguments, environment = everybody_may_read(process.pid), owner_may_read(process.pid)

    assert len(arguments) == 2
    assert password not in "".join(arguments)
    assert password not in environment
    assert daemon.asked[0].token not in "".join(arguments) + environment


def everybody_may_read(pid: int) -> list[str]:
    """The arguments of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{each}/cmdline").read_text() for each in (pid, *children)]


def owner_may_read(pid: int) -> str:
    """The environment a process was started with."""
    return Path(f"/proc/{pid}/environ").read_text()


@contextlib.asynccontextmanager
async def _running(runner: Runner) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await runner.start(
        *("--env", "PGPASSWORD=warehouse.password"),
        *("--", sys.executable, "-c", f"{SAY_READY} time.sleep(60)"),
    )
    await ready(process)
    try:
        yield process
    finally:
        process.terminate()
        await finish(process)


async def test_what_run_does_not_need_it_does_not_import() -> None:
    """It wraps other people's programs: heavy libraries stay out, or every start pays for them."""
    heavy = "aiohttp", "asyncio", "click", "cryptography", "grpc", "hpack", "inspect", "pydantic"
    code = (
        "import sys, taskmint.cli.entry, taskmint.cli.run_command; "
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    unmeasured = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE, env=unmeasured
    )
    out, _ = await process.communicate()

    assert out == b"[]\n"


async def test_broken_connections_and_an_old_token_are_made_good(
    runner: Runner, daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """The answers to the start and the end are lost, a token is refused: one task, proven gone."""
    daemon.breaks.extend(["start", "end"])
    daemon.refuse("start", 401, "credential_expired")
    result = await runner.run("--", "true")

    assert result == Result(0, "", "")
    assert [task.end_cause for task in daemon.tasks.values()] == ["succeeded"]
    assert len(agent.tokens) == 2


async def test_reproof_and_failing_heartbeats_do_not_disturb_the_command(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """A heartbeat that fails is repeated; a fresh token is shown when re-proof is due."""
    daemon.reprove_seconds = 0.3
    daemon.breaks.append("heartbeat")
    process = await runner.start("--", sys.executable, "-c", f"{SAY_READY} sys.stdin.read()")
    await ready(process)
    await daemon.until(lambda: len({asked.token for asked in daemon.asked}) >= 3)
    result = await finish(process)

    assert result.code == 0


async def test_a_task_that_the_daemon_has_forgotten_is_over(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """404 at the end is no failure of the command's."""
    daemon.refuse("end", 404, "task_not_found")

    assert await runner.run("--", "true") == Result(0, "", "")


async def test_no_daemon_is_125(runner: Runner, tmp_path: Path) -> None:
    """Said at once, with what to look at."""
    missing = {**runner.environment, "TASKMINT_SOCKET": str(tmp_path / "nobody.sock")}
    result = await Runner(missing).run("--", "true")

    assert result.code == 125
    assert "is the daemon running" in result.err


async def test_help_is_for_people(runner: Runner) -> None:
    """Every option and exit code on one page, by both ways into the program."""
    result = await runner.run("--help")
    tree = "from taskmint.cli.main import main; main(['run', '--help'])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", tree), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    assert result.code == 0
    for word in ("--env", "--file", "--ttl", "125", "SPIFFE_ENDPOINT_SOCKET"):
        assert word in result.out
    assert (process.returncode, out.decode()) == (0, result.out)


def on_terminal(runner: Runner, code: str, keys: bytes) -> tuple[int, str]:
    """Run Python code on a terminal of its own and, once it has said `ready`, type `keys`."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, *RUN, "--", sys.executable, "-c", code],
        env=runner.environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the last process on the terminal has gone
        while data := os.read(master, 1024):
            shown += data
            if b"ready" in data:
                os.write(master, keys)
    os.close(master)
    return process.wait(timeout=10), shown.decode()


async def test_ctrl_c_reaches_the_command_once(runner: Runner, daemon: FakeDaemon) -> None:
    """The terminal sends it to the whole group: passing it on as well would make it two."""
    code = """if True:
        import signal, sys, time
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        print("ready", flush=True)
        while not seen:
            time.sleep(0.01)
        time.sleep(0.3)
        print(f"seen {len(seen)}")
    """
    exit_code, shown = await asyncio.to_thread(on_terminal, runner, code, b"\x03")

    assert exit_code == 0
    assert "seen 1" in shown
    assert daemon.asked[-1].outcome == "cancelled"
