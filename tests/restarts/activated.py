"""The daemon under socket activation: this process holds its sockets, as systemd would."""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO, Final, Self

from taskmint.devstack.daemon_process import daemon_environment
from taskmint.devstack.stack import DAEMON, Stack

STOP_SECONDS: Final = 60.0
BACKLOG: Final = 4096  # systemd.socket(5), Backlog=; the kernel caps it at net.core.somaxconn
# sd_listen_fds(3): descriptors from 3 on, and the variables name the process that is to take them.
_LAUNCHER: Final = """
import fcntl, os, sys
task, admin = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(task, 3)
os.dup2(admin, 4)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "task:admin"}
os.execv(sys.executable, [sys.executable, "-m", "taskmint", "serve", "--config", sys.argv[3]])
"""


@dataclass
class ActivatedDaemon:
    """`restart` is what `systemctl restart` does; `gaps` are the seconds that it took."""

    stack: Stack
    sockets: tuple[socket.socket, socket.socket]
    log: IO[bytes]
    gaps: list[float] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, stack: Stack) -> AsyncIterator[Self]:
        """Listen, and run a daemon for as long as the context lasts."""
        paths = stack.paths
        settings = json.loads(paths.config.read_text())
        # Whoever comes during a restart stands in the socket's queue, and all come in at once.
        settings["limits"] = {"connections": 4096, "connections_per_uid": 4096}
        paths.config.write_text(json.dumps(settings))
        with contextlib.ExitStack() as held:
            sockets = []
            for path in (paths.task_socket, paths.admin_socket):
                sock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.bind(str(path))
                sock.listen(BACKLOG)
                sockets.append(sock)
            log = held.enter_context((paths.directory / "daemon.log").open("ab"))
            daemon = cls(stack, (sockets[0], sockets[1]), log)
            await daemon.start()
            try:
                yield daemon
            finally:
                await daemon.stop()

    async def start(self) -> None:
        """Start a process with the sockets; it is not ready yet."""
        descriptors = [sock.fileno() for sock in self.sockets]
        config = str(self.stack.paths.config)
        self._process = await asyncio.create_subprocess_exec(
            *(str(self.stack.python[DAEMON]), "-c", _LAUNCHER),
            *(*map(str, descriptors), config),
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env=daemon_environment(),
        )

    async def stop(self) -> int:
        """Send SIGTERM and wait for the end; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def restart(self) -> None:
        """Stop, then start; returns when the new process runs, long before it serves."""
        began = time.monotonic()
        status = await self.stop()
        if status:
            raise AssertionError(f"the daemon ended with {status}")
        await self.start()
        self.gaps.append(time.monotonic() - began)

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None:
            raise AssertionError("the daemon is not running")
        return self._process.pid
