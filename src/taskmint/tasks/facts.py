"""
Decision inputs and scopes to JSON and back, for the ledger: what a task was decided from, and to.

Durations are `*_seconds`, times RFC 3339 with Z. What a human typed (purpose, ticket, context) is
kept apart, as free text.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.peer import Peer
from taskmint.model.scope import (
    Approval,
    BindKind,
    CallerFacts,
    DecisionInput,
    Denial,
    Ends,
    Entitlement,
    EntitlementKind,
    HistoryFacts,
    Json,
    KeyField,
    ParameterValue,
    ProofLevel,
    RequestFacts,
    Scope,
)
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.shadow import Shadowed
from taskmint.ports import BoundProcess, BoundUnit


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC with Z and microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _span(seconds: object) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=float(cast("float", seconds)))


# --- what was decided from -----------------------------------------------------------------


def input_facts(given: DecisionInput) -> dict[str, Json]:
    """Write a decision's input, without its free text."""
    caller, request = given.caller, given.request
    return {
        "spiffe_id": str(caller.spiffe_id),
        "uid": caller.uid,
        "method": caller.method.value,
        "binding": caller.binding.value,
        "definition": request.task,
        "parameters": dict(request.parameters),
        "ttl_seconds": _seconds(request.ttl),
        "bind": request.bind.value if request.bind else None,
        "public_keys": dict(request.public_keys),
        "now": instant(given.now),
        "host": dict(given.host),
        "history": {
            "grants": given.history.grants,
            "denials": given.history.denials,
            "processes": given.history.processes,
        },
        "approved": given.approved,
    }


def free_text(given: DecisionInput) -> dict[str, Json]:
    """Write what a human typed."""
    request = given.request
    return {
        "purpose": request.purpose,
        "ticket": request.ticket,
        "context": dict(request.context),
    }


def read_input(facts: Mapping[str, Any], text: Mapping[str, Any]) -> DecisionInput:
    """Read an input back. Raises KeyError, TypeError or ValueError."""
    return DecisionInput(
        CallerFacts(
            SpiffeId.parse(facts["spiffe_id"]),
            int(facts["uid"]),
            IdentityMethod(facts["method"]),
            TokenBinding(facts.get("binding", TokenBinding.UID)),
        ),
        RequestFacts(
            task=str(facts["definition"]),
            parameters=cast("Mapping[str, ParameterValue]", facts["parameters"]),
            purpose=str(text.get("purpose", "")),
            ticket=text.get("ticket"),
            context=text.get("context", {}),
            ttl=_span(facts["ttl_seconds"]),
            bind=BindKind(facts["bind"]) if facts["bind"] else None,
            public_keys=facts.get("public_keys", {}),
        ),
        now=datetime.fromisoformat(facts["now"]),
        host=facts["host"],
        history=HistoryFacts(**facts["history"]),
        approved=bool(facts.get("approved", False)),
    )


def asked_facts(peer: Peer, boottime: float, boot_id: str) -> dict[str, Json]:
    """Write which process asked, and when by the boot clock: what the last hour is counted by."""
    return {
        "pid": peer.pid,
        "start_time": peer.start_time,
        "boottime": boottime,
        "boot_id": boot_id,
    }


# --- what was decided ----------------------------------------------------------------------


def scope_facts(scope: Scope) -> dict[str, Json]:
    """Write a scope."""
    ends = scope.ends
    return {
        "policy_digest": scope.policy_digest,
        "break_glass": scope.break_glass,
        "token_role": scope.token_role,
        "token_policy": scope.token_policy,
        "dead_man_seconds": scope.dead_man.total_seconds(),
        "lifetime_seconds": scope.lifetime.total_seconds(),
        "ends": {
            "bind": [kind.value for kind in ends.bind],
            "connection": ends.connection,
            "heartbeat_seconds": _seconds(ends.heartbeat),
            "reprove_seconds": _seconds(ends.reprove),
            "daemon_stop": ends.daemon_stop,
        },
        "entitlements": {item.name: _entitlement_facts(item) for item in scope.entitlements},
        "trace": list(scope.trace),
    }


def _entitlement_facts(item: Entitlement) -> dict[str, Json]:
    acl: dict[str, Json] = {} if item.acl is None else {"acl": item.acl}
    return {
        **acl,
        "kind": item.kind.value,
        "mount": item.mount,
        "path": item.path,
        "method": item.method,
        "body": dict(item.body),
        "proof": item.proof.value,
        "revocable": item.revocable,
        "ceiling_seconds": _seconds(item.ceiling),
        "key_field": item.key_field.value if item.key_field else None,
    }


def read_scope(definition: str, facts: Mapping[str, Any]) -> Scope:
    """Read a scope back, without its trace. Raises KeyError, TypeError or ValueError."""
    ends = facts["ends"]
    stop: Literal["keep", "revoke"] = "revoke" if ends["daemon_stop"] == "revoke" else "keep"
    return Scope(
        definition=definition,
        policy_digest=facts["policy_digest"],
        token_role=facts["token_role"],
        token_policy=facts["token_policy"],
        entitlements=tuple(
            _read_entitlement(name, item) for name, item in facts["entitlements"].items()
        ),
        dead_man=timedelta(seconds=facts["dead_man_seconds"]),
        lifetime=timedelta(seconds=facts["lifetime_seconds"]),
        ends=Ends(
            bind=tuple(BindKind(kind) for kind in ends["bind"]),
            connection=bool(ends["connection"]),
            heartbeat=_span(ends["heartbeat_seconds"]),
            reprove=_span(ends["reprove_seconds"]),
            daemon_stop=stop,
        ),
        break_glass=bool(facts.get("break_glass", False)),
    )


def _read_entitlement(name: str, facts: Mapping[str, Any]) -> Entitlement:
    return Entitlement(
        name=name,
        kind=EntitlementKind(facts["kind"]),
        mount=facts["mount"],
        path=facts["path"],
        method="POST" if facts["method"] == "POST" else "GET",
        body=facts["body"],
        proof=ProofLevel(facts["proof"]),
        revocable=facts["revocable"],
        ceiling=_span(facts["ceiling_seconds"]),
        key_field=KeyField(field) if (field := facts.get("key_field")) else None,
        acl=facts.get("acl"),
    )


def approval_facts(needed: Approval) -> dict[str, Json]:
    """Write whose yes is waited for."""
    return {
        "from": list(needed.approvers),
        "quorum": needed.quorum,
        "within_seconds": needed.within.total_seconds(),
    }


def read_approval(facts: Mapping[str, Any]) -> Approval:
    """Read it back. Raises KeyError, TypeError or ValueError."""
    within = timedelta(seconds=facts["within_seconds"])
    return Approval(tuple(facts["from"]), int(facts["quorum"]), within)


# --- what the shadow says to it ------------------------------------------------------------


def shadow_facts(shadow: Shadowed | None) -> dict[str, Json]:
    """Write what a shadow would have decided beside, under `shadow`; nothing without one."""
    if shadow is None:
        return {}
    decision = shadow.decision
    told: dict[str, Json] = {"verdict": shadow.verdict.value, "trace": list(decision.trace)}
    if isinstance(decision, Denial):
        return {"shadow": {**told, "code": decision.code}}
    return {"shadow": {**told, "scope": scope_facts(decision)}}


# --- what a task is bound to ---------------------------------------------------------------


def bound_facts(bound: BoundProcess | BoundUnit) -> dict[str, Json]:
    """Write what makes a bound process or unit the same one again."""
    if isinstance(bound, BoundUnit):
        kind = BindKind.UNIT.value
        return {"kind": kind, "path": bound.path, "id": str(bound.id), "boot_id": bound.boot_id}
    return {
        "kind": bound.kind.value,
        "pid": bound.pid,
        "start_time": bound.start_time,
        "pid_namespace": bound.pid_namespace,
        "boot_id": bound.boot_id,
    }


def read_bound(facts: Mapping[str, Any]) -> BoundProcess | BoundUnit:
    """Read it back. Raises KeyError, TypeError or ValueError."""
    kind = BindKind(facts["kind"])
    if kind is BindKind.UNIT:
        return BoundUnit(str(facts["path"]), int(facts["id"]), str(facts["boot_id"]))
    return BoundProcess(
        kind,
        int(facts["pid"]),
        int(facts["start_time"]),
        int(facts["pid_namespace"]),
        str(facts["boot_id"]),
    )
