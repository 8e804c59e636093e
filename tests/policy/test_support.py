"""What is written and not built yet is said, not broken in silence."""

from pathlib import Path

import pytest

from policy.asking import REPORT, load
from taskmint.config import DEFAULT_CLASSES
from taskmint.daemon.policy_source import PolicySource
from taskmint.errors import Code, ConfigError
from taskmint.policy.plan_objects import PlanSettings
from taskmint.policy.support import unsupported

SECRET = 'secret: {mount: database, path: "creds/ro-{region}", proof: login}'


def lacking(text: str) -> list[str]:
    """Key and problem of what this version lacks."""
    return [f"{finding.key}: {finding.problem}" for finding in unsupported(load(text))]


@pytest.mark.parametrize(
    "text",
    [
        REPORT,
        REPORT.replace("[peer, parent]", "[session]"),
        REPORT.replace("[peer, parent]", "[peer, unit]"),
        REPORT.replace("heartbeat: 60s", "connection: true"),
        REPORT.replace(SECRET, "token: {policy: p}"),
        REPORT.replace(
            SECRET, "database: {mount: d, connection: c, creation: [a], revocation: [b]}"
        ),
        REPORT.replace("report:", "report.shadow:\n    shadow: true").replace(
            SECRET, "pki: {mount: p, role: r, common_name: x, ttl: 1m}"
        ),
    ],
)
def test_what_is_built_is_not_mentioned(text: str) -> None:
    """Secrets, roles and tokens, every bind, connections; and shadows, which grant nothing."""
    assert lacking(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REPORT.replace(
                "    deadline:", "    approval: {from: ['group:a'], within: 1h}\n    deadline:"
            ),
            "tasks.report.approval: an approval is not built yet",
        ),
    ],
)
def test_what_is_not_built_is_named(text: str, expected: str) -> None:
    """With its key, so that the daemon can refuse it and say why."""
    assert lacking(text) == [expected]


def test_the_daemon_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    """At start and at each reload, like any other bad policy; a good one stays in force."""
    file = tmp_path / "policy.yaml"
    source = PolicySource((str(file),), DEFAULT_CLASSES, PlanSettings())
    file.write_text(REPORT)
    assert source.load().policy.digest == load(REPORT).digest

    approval = "    approval: {from: ['group:a'], within: 1h}\n    deadline:"
    file.write_text(REPORT.replace("    deadline:", approval))
    with pytest.raises(ConfigError, match="an approval is not built yet") as caught:
        source.load()
    assert caught.value.code is Code.POLICY_INVALID
