"""Live tasks hold no more than they need: what is equal once, and no trace."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from taskmint.model.scope import Ends, Scope
from taskmint.tasks.sharing import MOST_KINDS, SharedScopes

SCOPE: Final = Scope(
    definition="report",
    policy_digest="digest",
    token_role="role",
    token_policy="policy-eu",
    entitlements=(),
    dead_man=timedelta(seconds=60),
    lifetime=timedelta(minutes=5),
    ends=Ends(),
    trace=("who: somebody",),
)


def test_equal_scopes_are_one_object_without_their_trace() -> None:
    """Why each was granted stands in the ledger by then, and differs from caller to caller."""
    shared = SharedScopes()
    first = shared.same(SCOPE)
    second = shared.same(replace(SCOPE, trace=("who: somebody else",)))

    assert first is second
    assert first == replace(SCOPE, trace=())


def test_scopes_that_differ_stay_what_they_are() -> None:
    """Another lifetime, another policy, another combination of parameters: nobody's but its own."""
    shared = SharedScopes()
    for other in (
        replace(SCOPE, lifetime=timedelta(minutes=4)),
        replace(SCOPE, policy_digest="newer"),
        replace(SCOPE, token_policy="policy-us"),
        SCOPE,
    ):
        assert shared.same(other) == replace(other, trace=())


def test_p10_kinds_are_not_remembered_without_a_bound() -> None:
    """Past the bound they are forgotten, and shared from there on again."""
    shared = SharedScopes()
    first = shared.same(SCOPE)
    for number in range(MOST_KINDS):
        shared.same(replace(SCOPE, token_policy=f"policy-{number}"))

    assert shared.same(SCOPE) is not first
