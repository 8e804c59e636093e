"""A machine leaves nothing behind, whatever ends the test that booted it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boot.machine import why_not

pytestmark = pytest.mark.timeout(120)

SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from boot.machine import booted
with booted(Path(sys.argv[2]), {}) as machine:
    print(machine.leader, flush=True)
    time.sleep(600)
"""


def test_it_ends_with_whoever_booted_it(tmp_path: Path) -> None:
    """SIGKILL, which no clean-up survives: the machine powers itself off, its mounts go with it."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tests, str(tmp_path / "console.log")],
        stdout=subprocess.PIPE,
        text=True,
    ) as booting:
        assert booting.stdout is not None
        line = booting.stdout.readline()
        assert line, (tmp_path / "console.log").read_text()
        leader = os.pidfd_open(int(line))
        try:
            booting.send_signal(signal.SIGKILL)
            ended = select.poll()
            ended.register(leader, select.POLLIN)

            assert ended.poll(60_000)
        finally:
            os.close(leader)
    assert "/run/machine" not in Path("/proc/self/mountinfo").read_text()
