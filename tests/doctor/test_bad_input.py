"""
What an admin gets wrong, one row each: the daemon says it in one line, and doctor names it.

Issue 8, bad input. Each row breaks one thing on a ground that is otherwise right.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from source_tree import REPOSITORY
from taskmint.errors import Code

from tasks.test_break_glass import DOOR

POLICY = (REPOSITORY / "config" / "policy.d" / "orders.yaml").read_text(encoding="utf-8")


@dataclass
class Place:
    """A directory with everything a daemon needs but Vault and an agent."""

    path: Path

    def lay_out(self) -> None:
        """Write what is right."""
        (self.path / "state").mkdir(0o700)
        (self.path / "run").mkdir(0o755)
        (self.path / "policy").mkdir(0o755)
        self.policy.write_text(POLICY)
        self.policy.chmod(0o644)
        self.write()

    @property
    def policy(self) -> Path:
        """The one policy file."""
        return self.path / "policy" / "orders.yaml"

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.path / "taskmint.yaml"

    @property
    def ledger(self) -> Path:
        """Where the ledger would be."""
        return self.path / "state" / "ledger.db"

    @property
    def task(self) -> Path:
        """The task socket."""
        return self.path / "run" / "task.sock"

    def damage_the_node_id(self) -> None:
        """Something else overwrote what was made at the first start."""
        (self.ledger.parent / "node-id").write_bytes(b"\xff\n")
        (self.ledger.parent / "node-id").chmod(0o600)
        self.write(node={})

    def become_an_emergency_door(self, hook: str) -> None:
        """Serve emergencies alone, of up to three hours, with a ticket that `hook` knows."""
        self.policy.write_text(DOOR.replace("max: 1h", "max: 3h"))
        self.write(break_glass={"ticket_hook": [hook], "max": "3h"})

    def write(self, **more: object) -> None:
        """Write the configuration, some sections replaced."""
        settings = {
            "node": {"id": "n1"},
            "sockets": {
                "task": str(self.task),
                "task_group": "",
                "admin": str(self.path / "run" / "admin.sock"),
            },
            "identity": {"workload_api": f"unix://{self.path}/no-agent.sock"},
            "vault": {"address": "http://127.0.0.1:9", "timeout": "1s"},
            "policy": {"files": [str(self.policy.parent)]},
            "ledger": {"path": str(self.ledger)},
            **more,
        }
        self.config.write_text(json.dumps(settings))
        self.config.chmod(0o644)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place of this test alone."""
    made = Place(tmp_path)
    made.lay_out()
    return made


Break = Callable[[Place], contextlib.AbstractContextManager[None]]


def breaking(change: Callable[[Place], object]) -> Break:
    """A change that needs no undoing."""

    @contextlib.contextmanager
    def broken(place: Place) -> Iterator[None]:
        change(place)
        yield

    return broken


@contextlib.contextmanager
def taken_port(place: Place) -> Iterator[None]:
    """Somebody else listens where the metrics should be."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.write(metrics={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        yield


@contextlib.contextmanager
def another_daemon(place: Place) -> Iterator[None]:
    """A process holds the ledger's lock, as a daemon does."""
    with Path(f"{place.ledger}.lock").open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextlib.contextmanager
def listening(place: Place) -> Iterator[None]:
    """Another process listens on our socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.task))
        sock.listen()
        yield


def leave_stale(place: Place) -> None:
    """A daemon was killed and left its socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.task))
    place.task.chmod(0o666)


@dataclass(frozen=True)
class Row:
    """What is broken; what the daemon says, exiting so; what doctor says."""

    name: str
    broken: Break
    exits: int
    says: str
    doctor: str


ROWS = [
    Row(
        "an unknown config key",
        breaking(lambda place: place.write(ledgre={})),
        4,
        "ledgre: is not a known key; did you mean ledger?",
        "config: ",
    ),
    Row(
        "a config that others may write",
        breaking(lambda place: place.config.chmod(0o666)),
        4,
        "taskmint.yaml:1:1: is writable by group or others; run chmod go-w",
        "is writable by group or others",
    ),
    Row(
        "no config at all",
        breaking(lambda place: place.config.unlink()),
        4,
        "taskmint.yaml:1:1: cannot be opened: No such file or directory",
        "cannot be opened",
    ),
    Row(
        "a role for a group that does not exist",
        breaking(
            lambda place: place.write(admin={"roles": {"operator": {"groups": ["nobody-here"]}}})
        ),
        4,
        "config_invalid: admin.roles.operator.groups: there is no group nobody-here",
        "there is no group nobody-here",
    ),
    Row(
        "a policy that others may write",
        breaking(lambda place: place.policy.chmod(0o666)),
        4,
        "orders.yaml:1:1: is writable by group or others",
        "policy: ",
    ),
    Row(
        "a policy with a mistake",
        breaking(lambda place: place.policy.write_text(POLICY.replace("owner", "ovner"))),
        4,
        "ovner: is not a known key; did you mean owner?",
        "ovner: is not a known key",
    ),
    Row(
        "a ledger directory that is not there",
        breaking(lambda place: place.write(ledger={"path": str(place.path / "no" / "l.db")})),
        1,
        "ledger_unavailable: the ledger's directory",
        "No such file or directory",
    ),
    Row(
        "a ledger directory that is not there and a node without a name",
        breaking(
            lambda place: place.write(node={}, ledger={"path": str(place.path / "no" / "l.db")})
        ),
        1,
        "ledger_unavailable: the ledger's directory",
        "No such file or directory",
    ),
    Row(
        "a node id that is damaged",
        breaking(lambda place: place.damage_the_node_id()),
        4,
        "node-id:1:1: does not hold a node id; write the ID",
        "ledger: ",
    ),
    Row(
        "a policy directory that others may write",
        breaking(lambda place: place.policy.parent.chmod(0o777)),
        4,
        "policy:1:1: is writable by group or others; run chmod go-w",
        "policy: ",
    ),
    Row(
        "an approver's keys that are not there",
        breaking(
            lambda place: place.write(approvals={"approvers": {"ann": {"keys": "/no/keys.json"}}})
        ),
        4,
        "/no/keys.json:1:1: cannot be opened",
        "approvals: /no/keys.json:1:1: cannot be opened",
    ),
    Row(
        "a webhook's key that is not there",
        breaking(
            lambda place: place.write(
                notices={"webhook": "https://x.example/h", "webhook_key_file": "/no/key"}
            )
        ),
        4,
        "/no/key:1:1: cannot be opened",
        "notices: /no/key:1:1: cannot be opened",
    ),
    Row(
        "an emergency door whose hook is not there",
        breaking(lambda place: place.become_an_emergency_door("/no/hook")),
        4,
        "/no/hook:1:1: break_glass.ticket_hook: cannot be run",
        "break-glass: /no/hook:1:1: break_glass.ticket_hook: cannot be run",
    ),
    Row(
        "a CA file that holds no certificate",
        breaking(
            lambda place: place.write(
                vault={"address": "https://127.0.0.1:9", "ca_file": str(place.config)}
            )
        ),
        4,
        "taskmint.yaml:1:1: vault.ca_file: holds no certificate that can be read",
        "vault.ca_file: holds no certificate",
    ),
    Row(
        "a ledger directory that others may write",
        breaking(lambda place: place.ledger.parent.chmod(0o777)),
        1,
        "ledger_unavailable: the ledger's directory",
        "can be written by others",
    ),
    Row(
        "a ledger that is open to others",
        breaking(lambda place: place.ledger.touch(0o644)),
        1,
        "ledger_unavailable: the ledger",
        "is open to others",
    ),
    Row(
        "a second daemon",
        another_daemon,
        1,
        f"ledger_unavailable: another process (pid {os.getpid()}) writes the ledger",
        f"another daemon (pid {os.getpid()}) holds the ledger",
    ),
    Row(
        "a socket that somebody listens on",
        listening,
        1,
        "socket_in_use: another process listens on",
        "somebody listens on",
    ),
    Row(
        "a file where the socket should be",
        breaking(lambda place: place.task.write_text("mine")),
        4,
        "exists and is not a socket of this user",
        "task.sock is not a socket",
    ),
    Row(
        "a socket directory that everybody may write",
        breaking(lambda place: place.task.parent.chmod(0o777)),
        4,
        "is writable by everybody, so anybody could replace the socket",
        "is writable by everybody",
    ),
    Row(
        "a port for metrics that is taken",
        taken_port,
        1,
        "socket_in_use: metrics.listen 127.0.0.1:",
        "metrics.listen 127.0.0.1:",
    ),
]


async def taskmint(place: Place, *arguments: str) -> tuple[int, str]:
    """Run a command on the place; its exit code and everything it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", *arguments, "--config", str(place.config)),
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(50):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
async def test_it_is_refused_in_a_line_and_doctor_names_it(place: Place, row: Row) -> None:
    """The daemon exits with the documented code and no traceback; doctor exits 1, with a fix."""
    with row.broken(place):
        refused, diagnosed = await asyncio.gather(
            taskmint(place, "serve", "--log-level", "error"),
            taskmint(place, "doctor", "--all", "--output", "json"),
        )
    lines = [line for line in refused[1].splitlines() if line[:1] != "{"]
    found = json.loads(diagnosed[1])

    assert refused[0] == row.exits, refused[1]
    assert len(lines) == 1 or all(str(place.policy) in line for line in lines), lines
    assert row.says in "\n".join(lines)
    assert diagnosed[0] == 1
    named = [one for one in found if row.doctor in f"{one['area']}: {one['what']}"]
    assert named, found
    assert all(one["fix"] or one["severity"] == "ok" for one in named)
    assert all(one["fix"] for one in found if one["severity"] in {"warning", "error"})


@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
async def test_doctor_believes_what_is_the_daemons_when_root_runs_it(place: Place) -> None:
    """Whoever owns the ledger's directory is the daemon's user; a third one's files are named."""
    place.write(node={})
    (place.ledger.parent / "node-id").write_text("n-1\n")
    for path in (place.ledger.parent, place.ledger.parent / "node-id", place.policy):
        os.chown(path, 12345, 12345)
    _, out = await taskmint(place, "doctor")
    os.chown(place.policy, 12346, 12346)
    _, other = await taskmint(place, "doctor")

    assert "belongs to uid" not in out
    assert "orders.yaml:1:1: belongs to uid 12346" in other


async def test_doctor_takes_an_emergency_door_for_what_it_is(place: Place) -> None:
    """Its definitions are fine, as long as they may last no longer than `break_glass.max`."""
    place.become_an_emergency_door("/bin/sh")
    _, fine = await taskmint(place, "doctor", "--all")
    place.write(break_glass={"ticket_hook": ["/bin/sh"]})
    _, too_long = await taskmint(place, "doctor")

    assert "policy: 1 definitions are fine" in fine
    assert "may last longer than break_glass.max, 1h" in too_long


async def test_an_agent_that_anybody_could_be_is_named(place: Place) -> None:
    """Row 23: which directory on the way is open to others, and what to do about it."""
    (place.path / "open").mkdir()
    (place.path / "open").chmod(0o777)
    place.write(identity={"workload_api": f"unix://{place.path}/open/agent.sock"})
    code, out = await taskmint(place, "doctor")

    assert code == 1
    assert f"others may write to the directory {place.path}/open" in out
    assert "identity.agent_uid" in out


async def test_a_stale_socket_is_named_with_its_width(place: Place) -> None:
    """Nobody listens; and it is wider than the configuration allows."""
    leave_stale(place)
    code, out = await taskmint(place, "doctor")

    assert code == 1
    assert f"{place.task} is stale: nobody listens on it" in out
    assert f"{place.task} has mode 0666, wider than 0660" in out
    assert f"run chmod 0660 {place.task}" in out


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("size=64k", "MiB are free in"),
        ("size=64k,ro", "is on a read-only disk: nothing starts"),
    ],
)
async def test_a_full_and_a_read_only_disk_are_named(
    place: Place, mount: str, expected: str
) -> None:
    """In a mount namespace of its own; the finding says that nothing starts without a record."""
    state = place.ledger.parent
    script = f'mount -t tmpfs -o {mount},mode=700 none "{state}" && exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--map-root-user", "--mount", "sh", "-euc", script, "sh"),
        *(sys.executable, "-m", "taskmint", "doctor", "--config", str(place.config)),
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    if b"unshare" in err or b"mount" in err:
        pytest.skip(f"no mount namespace here: {err.decode().strip()}")

    assert process.returncode == 1
    (line,) = [line for line in out.decode().splitlines() if expected in line]
    assert line.startswith("error    ledger: ")
    assert "nothing starts" in line


def test_every_code_of_a_start_is_among_the_rows() -> None:
    """What `taskmint serve` can refuse by is reached here."""
    reached = " ".join(row.says for row in ROWS)

    for code in (Code.CONFIG_INVALID, Code.SOCKET_IN_USE, Code.LEDGER_UNAVAILABLE):
        assert code in reached
