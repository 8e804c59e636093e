"""
`taskmint explain`: what a caller would be answered now, and why, by the daemon on this node.

The policy in force, this node's labels and the caller's last hour are the daemon's; for policy
files there is `taskmint policy explain`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import click

from taskmint.model.printable import printable

from .admin_socket import EXIT_FINDING, ask, common, show
from .policy_explain import ASKING, with_options


@click.command()
@common
@with_options(ASKING)
@click.option("--task", required=True, help="The definition that is asked for.")
def explain(socket: str, output: str, **asked: Any) -> None:
    """
    Say what a caller would be answered now, clause by clause; exits 1 for a denial.

    Nothing is minted, counted or recorded. Limits are not looked at.
    """
    reply = ask(socket, "POST", "/v1/admin/explain", body=json.dumps(_body(asked)).encode())
    show(reply, output, lambda told: "\n".join(map(printable, _lines(told))))
    sys.exit(0 if reply.get("decision", {}).get("granted") else EXIT_FINDING)


def _body(asked: Mapping[str, Any]) -> dict[str, Any]:
    ttl: timedelta | None = asked["ttl"]
    if ttl is not None and ttl != timedelta(seconds=int(ttl.total_seconds())):
        raise click.BadParameter("whole seconds are asked for", param_hint="--ttl")
    return {
        "spiffe_id": str(asked["caller"]),
        "uid": asked["uid"],
        "method": asked["method"],
        "token": asked["token"],
        "task": asked["task"],
        "parameters": asked["parameters"],
        "purpose": asked["purpose"],
        "ticket": asked["ticket"],
        "context": asked["context"],
        "ttl_seconds": None if ttl is None else int(ttl.total_seconds()),
        "bind": asked["bind"],
        "public_keys": asked["public_keys"],
    }


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield from _decision(told["decision"])
    counts = ", ".join(f"{count} {what}" for what, count in told["history"].items())
    yield f"at {told['at']}, in the last hour {counts}; policy {told['policy_digest']}"
    if told["shadow"] is not None:
        yield f"shadow, which grants nothing: {told['verdict']}"
        yield from _decision(told["shadow"])


def _decision(told: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"    {line}" for line in told["trace"])
    if not told["granted"]:
        needed = " (an approval would do)" if told["approval_needed"] else ""
        yield f"denied, {told['code']}{needed}"
        return
    yield f"granted for {told['lifetime_seconds']:g}s, on a lease of {told['lease_seconds']:g}s:"
    yield from (f"    {name}: {request}" for name, request in told["scope"].items())
