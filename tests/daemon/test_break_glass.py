"""Emergencies have a door of their own: what belongs where, and who is asked for a ticket."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from taskmint.config import DEFAULT_CLASSES, load_config
from taskmint.daemon.approvers import tickets
from taskmint.daemon.from_config import door
from taskmint.daemon.policy_source import PolicySource
from taskmint.errors import Code, ConfigError
from taskmint.policy.plan_objects import PlanSettings
from taskmint.tasks.outside import NoTickets
from taskmint.telemetry.ticket_hook import TicketHook

from tasks.test_break_glass import DOOR
from tasks.world import REPORT

LEAST = "identity: {workload_api: unix:///run/spire/api.sock}\nvault: {address: https://vault}\n"


@pytest.mark.parametrize(
    ("text", "longest", "problem"),
    [
        (DOOR, None, "is for emergencies, and this daemon is not their door"),
        (REPORT, timedelta(hours=1), "is not for emergencies"),
        (DOOR, timedelta(minutes=30), "may last longer than break_glass.max, 30m"),
        (DOOR.replace("max: 1h", "max: 5h"), timedelta(hours=9), "an emergency may last 5h"),
    ],
)
def test_each_daemon_refuses_what_belongs_to_the_other(
    tmp_path: Path, text: str, longest: timedelta | None, problem: str
) -> None:
    """At start and at each reload: an emergency is served at its door and only there."""
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    source = PolicySource((str(file),), DEFAULT_CLASSES, PlanSettings(), longest)
    with pytest.raises(ConfigError, match=problem) as caught:
        source.load()
    assert caught.value.code is Code.POLICY_INVALID


def test_the_door_serves_what_is_its_own(tmp_path: Path) -> None:
    """With the longest emergency that the config allows."""
    file = tmp_path / "policy.yaml"
    file.write_text(DOOR)
    source = PolicySource((str(file),), DEFAULT_CLASSES, PlanSettings(), timedelta(hours=1))

    assert source.load().policy.definitions["repair"].break_glass


def test_the_config_makes_the_door() -> None:
    """Its socket's name for systemd, and the hook; without the section there is neither."""
    plain = load_config("c.yaml", LEAST.encode(), {})
    opened = load_config("c.yaml", f"{LEAST}break_glass: {{ticket_hook: [/bin/sh]}}\n".encode(), {})
    lacking = load_config(
        "c.yaml", f"{LEAST}break_glass: {{ticket_hook: [/no/hook]}}\n".encode(), {}
    )

    assert (door(plain), door(opened)) == ("task", "breakglass")
    assert isinstance(tickets(plain.break_glass, "n"), NoTickets)
    assert isinstance(tickets(opened.break_glass, "n"), TicketHook)
    with pytest.raises(ConfigError, match=r"/no/hook:1:1: break_glass\.ticket_hook: cannot be run"):
        tickets(lacking.break_glass, "n")
    with pytest.raises(ConfigError, match="begins with the path of a program"):
        load_config("c.yaml", f"{LEAST}break_glass: {{ticket_hook: [x]}}\n".encode(), {})


def test_the_hook_is_asked_at_least_every_five_minutes() -> None:
    """So long an emergency outlives its ticket, and no longer."""
    written = LEAST + "break_glass: {ticket_hook: [/x], ticket_interval: %s}\n"
    kept = load_config("c.yaml", (written % "5m").encode(), {}).break_glass

    assert kept is not None
    assert kept.ticket_interval == timedelta(minutes=5)
    with pytest.raises(ConfigError, match="ticket_interval is longer than 5m"):
        load_config("c.yaml", (written % "301s").encode(), {})


async def test_the_hook_is_told_the_ticket_and_fails_closed(tmp_path: Path) -> None:
    """JSON on standard input; exit 0 in time is open, everything else is not."""
    script = tmp_path / "hook"
    script.write_text('#!/bin/sh\ngrep -q \'"ticket":"INC-1"\'\n')
    script.chmod(0o755)
    assert os.access(script, os.X_OK)
    hook = TicketHook((str(script),), "node-a", timedelta(seconds=5))

    assert await hook.why_not_open("INC-1", "repair", "spiffe://example.org/job") is None
    assert await hook.why_not_open("INC-2", "repair", "spiffe://example.org/job") is not None
    gone = TicketHook((str(tmp_path / "gone"),), "node-a", timedelta(seconds=5))
    assert "cannot be run" in str(await gone.why_not_open("INC-1", "repair", "x"))
    hanging = TicketHook(("/bin/sleep", "60"), "node-a", timedelta(milliseconds=100))
    assert "did not end" in str(await hanging.why_not_open("INC-1", "repair", "x"))
