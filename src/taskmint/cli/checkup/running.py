"""The daemon: does one run, may we ask it, and what does it say of itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from taskmint.client import calls
from taskmint.client.blocking_transport import exchange
from taskmint.client.errors import ClientError, Refused

from .places import lock_holder
from .report import Diagnosis, failure, fine, warning
from .server import against_plan

_AREA: Final = "daemon"
_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What came back from the admin socket: a status, or why there is none."""

    status: Mapping[str, Any] | None
    problem: ClientError | None


def ask_daemon(socket: str) -> Asked:
    """Ask for the status."""
    try:
        request = calls.request("GET", "/v1/admin/status", {})
        return Asked(exchange(socket, request, _SECONDS), None)
    except ClientError as error:
        return Asked(None, error)


def check_daemon(asked: Asked, socket: str, ledger: Path, digest: str) -> Iterator[Diagnosis]:
    """What its absence or its answer means. `digest` is of the policy files as they are now."""
    holder = lock_holder(ledger)
    if asked.status is not None:
        yield fine(_AREA, f"one answers on {socket}, version {asked.status['version']}")
        yield from _of_status(asked.status, digest)
    elif isinstance(asked.problem, Refused):
        yield warning(_AREA, f"it answers, but: {asked.problem.detail}", asked.problem.fix)
    elif holder is not None:
        yield failure(
            _AREA,
            f"another daemon (pid {holder}) holds the ledger, and none answers on {socket}",
            "stop it, or give the two different ledger.path and sockets",
        )
    else:
        detail = asked.problem.detail if asked.problem else ""
        fix = "run systemctl start taskmint; if it does not stay up, the other findings say why"
        yield failure(_AREA, f"no daemon answers: {detail}", fix)


def _of_status(status: Mapping[str, Any], digest: str) -> Iterator[Diagnosis]:
    for name, part in sorted(status["ready"]["components"].items()):
        if part["reason"]:
            yield failure(_AREA, f"{name}: {part['reason']}", _COMPONENT_FIXES.get(name, _JOURNAL))
    backlog = status["backlog"]
    if backlog["revocations_unproven"]:
        yield failure(
            _AREA,
            f"{backlog['revocations_unproven']} revocations are not proven, the oldest for "
            f"{backlog['oldest_unproven_seconds']:.0f} s",
            "see taskmint tasks --state revoking for the problem of each, and docs/runbook.md",
        )
    if digest and status["policy_digest"] != digest:
        what = "the policy files were changed since the daemon read them"
        yield warning(_AREA, what, "run taskmint policy check, then taskmint reload")
    yield from (
        one
        for one in against_plan(
            tuple(status["rights_wider"]), frozenset(status["definitions_unapplied"])
        )
    )


_JOURNAL: Final = "see journalctl -u taskmint"
_COMPONENT_FIXES: Final[Mapping[str, str]] = {
    "identity": "see that the SPIFFE agent runs, and that the daemon is registered there",
    "mutual_tls": "see which X.509-SVID and bundles the SPIFFE agent gives the daemon",
    "vault": "see that Vault runs, is unsealed, and lets the daemon log in",
    "ledger": "see the ledger's disk and docs/ledger.md",
}
