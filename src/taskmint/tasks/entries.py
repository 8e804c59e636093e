"""
Tasks to ledger entries and back: the whole decision input, the scope, and what stands in Vault.

Durations are `*_seconds`, times RFC 3339 with Z. Whatever a human typed (purpose, ticket,
context) goes to `free_text`, what works as a capability (accessor, lease ids) to `handles`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from taskmint.model.caller import IdentityMethod
from taskmint.model.scope import (
    BindKind,
    CallerFacts,
    DecisionInput,
    Denial,
    Ends,
    Entitlement,
    EntitlementKind,
    HistoryFacts,
    Json,
    ParameterValue,
    ProofLevel,
    RequestFacts,
    Scope,
)
from taskmint.model.spiffe import SpiffeId
from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import TaskId
from taskmint.ports import BoundProcess, Entry, Event, Revocable, RevocableKind

from .task import Held, IdempotencyKey, Owner, Task


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC with Z and microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _span(seconds: object) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=float(cast("float", seconds)))


# --- writing -------------------------------------------------------------------------------


def denied(given: DecisionInput, denial: Denial, task: TaskId, evidence: str) -> Entry:
    """Record a refusal, with everything it was decided from."""
    facts: dict[str, Json] = {
        **_input_facts(given),
        "evidence": evidence,
        "code": denial.code,
        "detail": denial.detail,
        "trace": list(denial.trace),
        "policy_digest": denial.policy_digest,
    }
    return Entry(
        Event.DENIED, given.now, task, TaskState.DENIED, facts, free_text=_free_text(given)
    )


def intent(task: Task, at: datetime, boot_id: str) -> Entry:
    """Record what is about to be minted, before the first call to Vault."""
    watched = task.watch.process if task.watch else None
    facts: dict[str, Json] = {
        **_input_facts(task.given),
        "evidence": task.evidence,
        "proven_until": instant(task.proven_until),
        "authority": task.authority,
        "scope": _scope_facts(task.scope),
        "deadline_boottime": task.deadline,
        "started_boottime": task.started,
        "expires_at": instant(task.expires_at),
        "boot_id": boot_id,
        "process": _process_facts(watched) if watched else None,
        "idempotency": [key.key, key.body] if (key := task.idempotency) else None,
    }
    return Entry(Event.INTENT, at, task.id, task.state, facts, free_text=_free_text(task.given))


def accessor(task: Task, at: datetime) -> Entry:
    """Record the task token's accessor, before the first mint with it."""
    handle = task.token.id if task.token else None
    return Entry(Event.ACCESSOR, at, task.id, task.state, handles={"accessor": handle})


def active(task: Task, at: datetime) -> Entry:
    """Record what was minted, before the reply that carries it (P7)."""
    facts: dict[str, Json] = {
        "entitlements": {
            held.entitlement.name: {
                "kind": held.revocable.kind.value if held.revocable else None,
                "renewable": held.renewable,
                "user_name": held.user_name,
            }
            for held in task.held
        },
    }
    handles: dict[str, Json] = {
        held.entitlement.name: held.revocable.id for held in task.held if held.revocable
    }
    return Entry(Event.ACTIVE, at, task.id, task.state, facts, handles)


def ending(task: Task, at: datetime) -> Entry:
    """Record that a task's end began, and why."""
    cause = task.cause.value if task.cause else None
    return Entry(Event.ENDING, at, task.id, task.state, {"cause": cause})


def revoked(task: Task, at: datetime) -> Entry:
    """Record that revocation is proven, how long it took, and to which level."""
    facts: dict[str, Json] = {
        "cause": task.cause.value if task.cause else None,
        "revocation_seconds": task.revocation_seconds,
        "lifetime_seconds": task.ended - task.started,
        "disabled": task.disabled,
        "proof": {held.entitlement.name: held.entitlement.proof.value for held in task.held},
    }
    return Entry(Event.REVOKED, at, task.id, task.state, facts)


def failed(task: Task, at: datetime, code: str) -> Entry:
    """Record a start of which provably nothing remains."""
    return Entry(Event.FAILED, at, task.id, TaskState.FAILED, {"code": code})


def adopted(task: Task, at: datetime) -> Entry:
    """Record that a task outlived a restart of the daemon."""
    return Entry(Event.ADOPTED, at, task.id, task.state)


def _input_facts(given: DecisionInput) -> dict[str, Json]:
    request = given.request
    return {
        "spiffe_id": str(given.caller.spiffe_id),
        "uid": given.caller.uid,
        "method": given.caller.method.value,
        "definition": request.task,
        "parameters": dict(request.parameters),
        "ttl_seconds": _seconds(request.ttl),
        "bind": request.bind.value if request.bind else None,
        "now": instant(given.now),
        "host": dict(given.host),
        "history": {
            "grants": given.history.grants,
            "denials": given.history.denials,
            "processes": given.history.processes,
        },
    }


def _free_text(given: DecisionInput) -> dict[str, Json]:
    request = given.request
    return {
        "purpose": request.purpose,
        "ticket": request.ticket,
        "context": dict(request.context),
    }


def _scope_facts(scope: Scope) -> dict[str, Json]:
    ends = scope.ends
    return {
        "policy_digest": scope.policy_digest,
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
    return {
        "kind": item.kind.value,
        "mount": item.mount,
        "path": item.path,
        "method": item.method,
        "body": dict(item.body),
        "proof": item.proof.value,
        "revocable": item.revocable,
        "ceiling_seconds": _seconds(item.ceiling),
    }


def _process_facts(process: BoundProcess) -> dict[str, Json]:
    return {
        "kind": process.kind.value,
        "pid": process.pid,
        "start_time": process.start_time,
        "pid_namespace": process.pid_namespace,
        "boot_id": process.boot_id,
    }


# --- reading back --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """A task as the ledger remembers it after a restart."""

    task: Task
    boot_id: str
    process: BoundProcess | None
    ended: bool
    complete: bool  # the row ACTIVE is there: everything minted is known


def read_back(history: Sequence[Entry]) -> Recorded:
    """
    Rebuild an unfinished task from its entries, the intent first.

    Raises KeyError, TypeError or ValueError when the entries are not ones this module wrote.
    """
    first = history[0]
    if first.event is not Event.INTENT or first.task is None:
        raise ValueError("a task's history begins with its intent")
    facts = cast("Mapping[str, Any]", first.facts)
    given = _read_input(first)
    scope = _read_scope(given.request.task, facts["scope"])
    task = Task(
        id=first.task,
        owner=Owner(given.caller.spiffe_id, given.caller.uid),
        given=given,
        scope=scope,
        started=float(facts["started_boottime"]),
        deadline=float(facts["deadline_boottime"]),
        expires_at=datetime.fromisoformat(facts["expires_at"]),
        evidence=str(facts["evidence"]),
        proven_until=datetime.fromisoformat(facts["proven_until"]),
        authority=str(facts.get("authority", "")),
        idempotency=IdempotencyKey(*key) if (key := facts["idempotency"]) else None,
    )
    ended = complete = False
    for entry in history[1:]:
        match entry.event:
            case Event.ACCESSOR:
                task.token = Revocable(RevocableKind.TOKEN, str(entry.handles["accessor"]))
            case Event.ACTIVE:
                task.held = tuple(_read_held(scope, entry))
                task.state = TaskState.ACTIVE
                complete = True
            case Event.ENDING:
                task.cause = EndCause(str(entry.facts["cause"]))
                ended = True
            case _:
                continue
    process = facts["process"]
    return Recorded(
        task, str(facts["boot_id"]), _read_process(process) if process else None, ended, complete
    )


def _read_input(entry: Entry) -> DecisionInput:
    facts = cast("Mapping[str, Any]", entry.facts)
    text = cast("Mapping[str, Any]", entry.free_text)
    return DecisionInput(
        CallerFacts(
            SpiffeId.parse(facts["spiffe_id"]), int(facts["uid"]), IdentityMethod(facts["method"])
        ),
        RequestFacts(
            task=str(facts["definition"]),
            parameters=cast("Mapping[str, ParameterValue]", facts["parameters"]),
            purpose=str(text.get("purpose", "")),
            ticket=text.get("ticket"),
            context=text.get("context", {}),
            ttl=_span(facts["ttl_seconds"]),
            bind=BindKind(facts["bind"]) if facts["bind"] else None,
        ),
        now=datetime.fromisoformat(facts["now"]),
        host=facts["host"],
        history=HistoryFacts(**facts["history"]),
    )


def _read_scope(definition: str, facts: Mapping[str, Any]) -> Scope:
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
    )


def _read_held(scope: Scope, entry: Entry) -> list[Held]:
    minted = cast("Mapping[str, Mapping[str, Any]]", entry.facts["entitlements"])
    held = []
    for item in scope.entitlements:
        facts = minted[item.name]
        kind = facts["kind"]
        revocable = Revocable(RevocableKind(kind), str(entry.handles[item.name])) if kind else None
        held.append(Held(item, revocable, bool(facts["renewable"]), facts["user_name"]))
    return held


def _read_process(facts: Mapping[str, Any]) -> BoundProcess:
    return BoundProcess(
        BindKind(facts["kind"]),
        int(facts["pid"]),
        int(facts["start_time"]),
        int(facts["pid_namespace"]),
        str(facts["boot_id"]),
    )
