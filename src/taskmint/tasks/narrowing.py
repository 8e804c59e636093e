"""Deciding again what was granted, by the policy now in force (P11)."""

from datetime import timedelta

from taskmint.model.scope import Denial, Ends, Scope
from taskmint.model.state import EndCause
from taskmint.policy.decide import decide
from taskmint.policy.load import Policy

from .ending import Ender
from .keeping import Keeper
from .register import Register
from .revision import Revision


def end_narrowed(policy: Policy, register: Register, ender: Ender, keeper: Keeper) -> int:
    """
    End every task that the policy now refuses, and every overlap; return how many tasks.

    What a change is minting meanwhile, that change looks at when it is done.
    """
    ended = 0
    for task in register:
        if task.cause is not None or task.over:
            continue
        if is_narrowed(policy, task.current):
            ender.end(task, EndCause.POLICY_NARROWED)
            ended += 1
        elif any(revision.works() and is_narrowed(policy, revision) for revision in task.revisions):
            keeper.end_overlaps(task)
    return ended


def is_narrowed(policy: Policy, revision: Revision) -> bool:
    """
    Whether the policy would not grant this revision now what it has.

    The recorded input is decided again; limits are not applied again, and nothing is widened.
    """
    if policy.digest == revision.scope.policy_digest:
        return False
    decision = decide(policy, revision.given)
    return isinstance(decision, Denial) or _narrows(decision, revision.scope)


def _narrows(new: Scope, old: Scope) -> bool:
    """Whether `new` lacks something that `old` gave, or ends sooner."""
    return (
        any(item not in new.entitlements for item in old.entitlements)
        or new.token_policy != old.token_policy
        or new.lifetime < old.lifetime
        or new.dead_man < old.dead_man
        or _ends_sooner(new.ends, old.ends)
    )


def _ends_sooner(new: Ends, old: Ends) -> bool:
    return (
        _shorter(new.heartbeat, old.heartbeat)
        or _shorter(new.reprove, old.reprove)
        or (new.connection and not old.connection)
        or (bool(new.bind) and not (old.bind and set(old.bind) <= set(new.bind)))
        or (new.daemon_stop == "revoke" and old.daemon_stop == "keep")
    )


def _shorter(new: timedelta | None, old: timedelta | None) -> bool:
    return new is not None and (old is None or new < old)
