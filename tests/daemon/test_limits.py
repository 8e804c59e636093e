"""P10: every limit that the config knows reaches what it limits."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from taskmint.config import Config, LimitSettings, load_config
from taskmint.daemon.from_config import listener_limits, task_settings

LEAST = "identity: {workload_api: unix:///run/spire/api.sock}\nvault: {address: https://vault}\n"
UNUSUAL: Mapping[str, str] = {
    "connections": "1777",
    "connections_per_uid": "1777",
    "tasks": "1777",
    "tasks_per_identity": "1777",
    "starts_per_minute": "1777",
    "starts_per_minute_per_identity": "1777",
    "mints_in_flight": "1777",
    "unproven_revocations": "1777",
    "pending": "1777",
    "pending_per_identity": "1777",
    "body_bytes": "1777",
    "header_timeout": "1777s",
    "request_timeout": "1777s",
    "idle_timeout": "1777s",
}


def config(limits: str) -> Config:
    """Load the least config with one limit."""
    return load_config("c.yaml", f"{LEAST}limits: {{{limits}}}\n".encode(), {})


def numbers(config: Config) -> list[object]:
    """Every number that the parts of the daemon are given."""
    listener, tasks = listener_limits(config, "task"), task_settings(config, "n", "b").limits
    return [
        listener.connections,
        listener.connections_per_uid,
        listener.timeouts.header,
        listener.timeouts.request,
        listener.timeouts.idle,
        tasks.tasks,
        tasks.tasks_per_identity,
        tasks.starts_per_minute,
        tasks.starts_per_minute_per_identity,
        tasks.mints_in_flight,
        tasks.unproven_revocations,
        tasks.pending,
        tasks.pending_per_identity,
        config.limits.body_bytes,  # the daemon hands it to the task socket's application
    ]


def test_p10_each_limit_is_tried_here() -> None:
    """A limit that is added to the config is added above."""
    assert set(UNUSUAL) == set(LimitSettings.model_fields)


@pytest.mark.parametrize("name", UNUSUAL)
def test_p10_a_configured_limit_is_the_one_in_force(name: str) -> None:
    """One key changes one number, to what was written."""
    before, after = numbers(config("")), numbers(config(f"{name}: {UNUSUAL[name]}"))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]

    assert changed in ([1777], [timedelta(seconds=1777)])
