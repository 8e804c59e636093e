"""The machine: kernel features, descriptors, clocks, libraries, the journal. Needs no config."""

import ctypes
import os
import platform
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from taskmint.api.serving import require_c_parser
from taskmint.errors import TaskmintError
from taskmint.identity.cgroups import MOUNTINFO, unified_mounts
from taskmint.identity.peers import PeerReader, PidfdSource
from taskmint.identity.tls import check_tls_support

from .report import Diagnosis, failure, fine, note, warning

_KERNEL: Final = "kernel"
_CLOCKS: Final = "clocks"
_LOGS: Final = "logs"
_TIMEX_BYTES: Final = 256  # struct timex of adjtimex(2) has 208
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_LEAST_DESCRIPTORS: Final = 4096
_BOOTED_BY_SYSTEMD: Final = Path("/run/systemd/system")  # sd_booted(3)
JOURNAL: Final = Path("/run/systemd/journal/socket")


def check_machine() -> Iterator[Diagnosis]:
    """Everything that can be said without a configuration."""
    yield from _kernel()
    yield from _libraries()
    yield from _clocks()
    yield from check_journal(JOURNAL, booted=_BOOTED_BY_SYSTEMD.is_dir())


def _kernel() -> Iterator[Diagnosis]:
    try:
        PeerReader(PidfdSource.REQUIRE).check()
        yield fine(_KERNEL, f"Linux {platform.release()} names peers by pidfd (SO_PEERPIDFD)")
    except TaskmintError:
        yield note(
            _KERNEL,
            f"Linux {platform.release()} has no SO_PEERPIDFD: peers are known by start time",
            "run Linux 6.5 or later where processes must be proven, and set peer.pidfd: require",
        )
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        fix = "allow pidfd_open(2): Linux 5.3 or later, and no filter that forbids it"
        yield failure(_KERNEL, f"processes cannot be watched: pidfd_open: {error.strerror}", fix)
    if any(unified_mounts(Path(MOUNTINFO).read_bytes())):
        yield fine(_KERNEL, "control groups v2 are mounted: tasks can be bound to units")
    else:
        yield note(
            _KERNEL, "no control groups v2: `bind: unit` is refused", "mount cgroup2 to use it"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < _LEAST_DESCRIPTORS:
        what = f"only {hard} descriptors are allowed here ({soft} now); a bound task costs one"
        yield warning(_KERNEL, what, "set LimitNOFILE= in the unit")


def _libraries() -> Iterator[Diagnosis]:
    for required in (require_c_parser, check_tls_support):
        try:
            required()
        except TaskmintError as error:
            yield failure("libraries", error.detail, error.fix)


def _clocks() -> Iterator[Diagnosis]:
    time.clock_gettime(time.CLOCK_BOOTTIME)  # what deadlines are counted by; every Linux has it
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only read
    if ctypes.CDLL(None).adjtimex(buffer) == _TIME_ERROR:
        yield warning(
            _CLOCKS,
            "the kernel says that the clock is not synchronised",
            "run chronyd or systemd-timesyncd: SVIDs and windows are judged by wall-clock time",
        )
    else:
        yield fine(_CLOCKS, "the clock is synchronised")


def check_journal(journal: Path, *, booted: bool) -> Iterator[Diagnosis]:
    """Whether the journal takes messages; nothing to say where systemd does not run."""
    if not booted:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(str(journal))
        except OSError as error:
            yield warning(
                _LOGS,
                f"the journal at {journal} takes no messages ({error.strerror}): fields are lost",
                "run systemctl restart systemd-journald; until then lines go to standard error",
            )
        else:
            yield fine(_LOGS, "the journal takes messages")
