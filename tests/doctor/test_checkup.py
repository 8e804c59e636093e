"""What doctor looks at, part by part: what it says of a running daemon's own words."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from taskmint.cli.checkup.machine import check_journal, check_machine
from taskmint.cli.checkup.record import check_ledger
from taskmint.cli.checkup.report import Severity
from taskmint.cli.checkup.running import Asked, check_daemon
from taskmint.cli.checkup.server import check_server
from taskmint.client.errors import Refused, Unreachable
from taskmint.vault.settings import JwtLogin, VaultSettings

STATUS: dict[str, Any] = {
    "ready": {"status": "ready", "components": {"vault": {"status": "ok", "reason": None}}},
    "version": "1",
    "policy_digest": "d",
    "backlog": {"revocations_unproven": 0, "oldest_unproven_seconds": 0.0},
    "rights_wider": [],
    "definitions_unapplied": [],
}


def said(status: dict[str, Any], digest: str = "d") -> list[tuple[Severity, str]]:
    """What is found in a status."""
    asked = Asked(STATUS | status, None)
    found = check_daemon(asked, "/a.sock", Path("/nowhere"), digest)
    return [(one.severity, one.what) for one in found]


def test_a_daemon_that_is_well_gives_nothing_to_do() -> None:
    """Only what is fine."""
    assert {severity for severity, _ in said({})} == {Severity.OK}


@pytest.mark.parametrize(
    ("status", "severity", "what"),
    [
        (
            {"ready": {"components": {"vault": {"reason": "sealed"}}}},
            Severity.ERROR,
            "vault: sealed",
        ),
        (
            {"backlog": {"revocations_unproven": 2, "oldest_unproven_seconds": 61.4}},
            Severity.ERROR,
            "2 revocations are not proven, the oldest for 61 s",
        ),
        (
            {"rights_wider": ["policy x reads a secret"]},
            Severity.ERROR,
            "wider than the plan: policy x reads a secret",
        ),
        (
            {"definitions_unapplied": ["report"]},
            Severity.ERROR,
            "Vault lacks what these definitions need: report",
        ),
        (
            {"policy_digest": "older"},
            Severity.WARNING,
            "the policy files were changed since the daemon read them",
        ),
    ],
)
def test_each_trouble_of_a_daemon_is_named(
    status: dict[str, Any], severity: Severity, what: str
) -> None:
    """What `status` carries is said once, with its severity."""
    assert (severity, what) in said(status)


def test_a_daemon_that_refuses_us_says_which_role_is_missing() -> None:
    """A warning, not an error: the daemon may be well."""
    words = "uid 7 holds none of the roles"
    refusal = Refused(403, "role_missing", words, fix="add it", retry_after=None)
    (one,) = check_daemon(Asked(None, refusal), "/a.sock", Path("/nowhere"), "")

    assert one.severity is Severity.WARNING
    assert "uid 7 holds none of the roles" in one.what
    assert one.fix == "add it"


def test_no_daemon_is_an_error_with_the_way_to_start_it() -> None:
    """And not taken for a second one when nobody holds the ledger."""
    absent = Unreachable("/a.sock: No such file or directory", fix="start it")
    (one,) = check_daemon(Asked(None, absent), "/a.sock", Path("/nowhere"), "")

    assert one.severity is Severity.ERROR
    assert "systemctl start taskmint" in one.fix


def test_the_machine_is_looked_at_without_a_configuration() -> None:
    """Kernel and clocks; nothing that fails here may fail on a machine where the suite runs."""
    found = list(check_machine())

    assert {"kernel", "clocks"} <= {one.area for one in found}
    assert all(one.severity is not Severity.ERROR for one in found)


def test_a_journal_that_takes_no_messages_is_named(tmp_path: Path) -> None:
    """Only where systemd runs; a listening one is fine."""
    journal = tmp_path / "journal.sock"
    assert list(check_journal(journal, booted=False)) == []
    (missing,) = check_journal(journal, booted=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(journal))
        (present,) = check_journal(journal, booted=True)

    assert missing.severity is Severity.WARNING
    assert "takes no messages" in missing.what
    assert present.severity is Severity.OK


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    """With the page that says what to do."""
    path = tmp_path / "ledger.db"
    path.write_bytes(os.urandom(8192))
    (one,) = check_ledger(path)

    assert one.severity is Severity.ERROR
    assert "docs/ledger.md" in one.fix


async def test_a_vault_that_is_not_there_is_named() -> None:
    """With where to look."""
    settings = VaultSettings("http://127.0.0.1:9", JwtLogin("jwt", "taskmint"))
    (one,) = [each async for each in check_server(settings)]

    assert one.severity is Severity.ERROR
    assert "vault.address" in one.fix
