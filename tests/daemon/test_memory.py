"""The daemon's memory, and who of its own user may open it: /proc says, to real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A process and its parent, both of one ordinary user: the daemon, and whoever would like to look.
_PROGRAM = r"""
import ctypes, json, os, sys, tempfile
from pathlib import Path
from taskmint.daemon.memory import keep_private

if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65533)
    os.setuid(65533)
with tempfile.NamedTemporaryFile() as ours:
    agent = {"root's": "/", "ours": ours.name, "not there": "/nonexistent"}[sys.argv[1]]
    asked, tell = os.pipe(), os.pipe()
    daemon = os.fork()
    if daemon == 0:
        assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # what changing the user took away
        os.write(tell[1], b"r")
        os.read(asked[0], 1)
        private = keep_private(Path(agent))
        memfd = os.memfd_create("key")
        os.write(memfd, b"held")
        own = Path(f"/proc/self/fd/{memfd}").read_bytes() == b"held"
        own = own and str(memfd) in os.listdir("/proc/self/fd")
        own = own and "pos:" in Path(f"/proc/self/fdinfo/{memfd}").read_text()
        os.write(tell[1], bytes([private, own]))
        os.read(asked[0], 1)
        os._exit(0)

    def readable():
        try:
            with open(f"/proc/{daemon}/mem", "rb"):
                return True
        except PermissionError:
            return False

    os.read(tell[0], 1)
    before = readable()
    os.write(asked[1], b"g")
    private, own = os.read(tell[0], 2)
    after = readable()
    os.write(asked[1], b"g")
    os.waitpid(daemon, 0)
print(json.dumps({"before": before, "after": after, "private": bool(private), "own": bool(own)}))
"""


def look(agent: str) -> dict[str, bool]:
    """What a process of the same user may read, before and after, and what the daemon itself."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, agent],
        check=True,
        capture_output=True,
        timeout=30,
        cwd="/",
        # Its files stand where an ordinary user may write.
        env={name: value for name, value in os.environ.items() if name != "TMPDIR"},
    )
    answer: dict[str, bool] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("agent", ["root's", "not there"])
def test_p9_no_process_of_the_daemons_user_reads_its_memory(agent: str) -> None:
    """P9, row 70: not a hook, not a handler of cores; what the daemon needs of /proc goes on."""
    seen = look(agent)

    assert seen == {"before": True, "after": False, "private": True, "own": True}


def test_an_agent_of_the_same_user_may_still_see_who_the_daemon_is() -> None:
    """In development the agent reads the daemon's executable, which the kernel would forbid."""
    seen = look("ours")

    assert seen == {"before": True, "after": True, "private": False, "own": True}


def test_a_daemon_that_starts_does_it_before_it_holds_a_secret(tmp_path: Path) -> None:
    """Right after the config was read, which says where the agent is."""
    config = tmp_path / "taskmint.yaml"
    config.write_text(
        "identity: {workload_api: 'unix:///nonexistent/agent.sock'}\n"
        "vault: {address: 'http://127.0.0.1:9'}\n"
        "policy: {files: [/nonexistent]}\n"
    )
    program = (
        "import contextlib, ctypes, sys\n"
        "from pathlib import Path\n"
        "from taskmint.daemon.start import start\n"
        "from taskmint.errors import TaskmintError\n"
        "with contextlib.suppress(TaskmintError):\n"
        "    start(Path(sys.argv[1]), revoke_on_stop=False, log_level='error')\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)], check=True, capture_output=True, timeout=60
    )

    assert done.stdout == b"0\n"
