"""A shadow is decided beside what is enforced, recorded and counted, and changes nothing (P11)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskmint.errors import Denied, LimitExceeded, Unprocessable
from taskmint.model.scope import RequestFacts
from taskmint.model.state import TaskState
from taskmint.ports import Entry, Event
from taskmint.tasks.limits import TaskLimits

from tasks.world import REPORT, World, ask, caller, policy

SHADOW = REPORT.split("tasks:\n")[1].replace("report:", "report.shadow:\n    shadow: true")
REFUSING = REPORT + SHADOW.replace("enum: [eu, us]", "enum: [us]")
GRANTING = REPORT.replace("enum: [eu, us]", "enum: [us]") + SHADOW
ALONE = REPORT.replace("report:", "report.shadow:\n    shadow: true")


def shadow_of(entry: Entry) -> Any:
    """What a row says of the shadow; None when it says nothing."""
    return entry.facts.get("shadow")


def to_us(before: RequestFacts) -> RequestFacts:
    """The other region."""
    return replace(before, parameters={"region": "us"})


async def test_a_shadow_that_would_refuse_is_recorded_with_the_grant() -> None:
    """The task starts; its intent says what the shadow would have answered, and why."""
    world = World()
    async with world.running(REFUSING) as service:
        view = await service.start(caller(), ask(), None)
        shadow = shadow_of(world.ledger.entries[0])

        assert view.state is TaskState.ACTIVE
        assert world.ledger.events() == ["intent", "accessor", "active"]
        assert (shadow["verdict"], shadow["code"]) == ("would_refuse", "parameter_invalid")
        assert shadow["trace"][-1].startswith("parameters: ")
        assert world.seen.events == ["shadowed report would_refuse", "started report"]


async def test_a_shadow_that_would_grant_grants_nothing() -> None:
    """P12: refused all the same, nothing is asked of Vault; the row holds the shadow's scope."""
    world = World()
    async with world.running(GRANTING) as service:
        with pytest.raises(Unprocessable):
            await service.start(caller(), ask(), None)
        shadow = shadow_of(world.ledger.entries[0])

        assert world.vault.calls == []
        assert world.ledger.events() == ["denied"]
        assert shadow["verdict"] == "would_grant"
        assert shadow["scope"]["entitlements"]["warehouse"]["path"] == "creds/orders-ro-eu"


async def test_a_shadow_without_what_it_shadows_is_recorded_and_grants_nothing() -> None:
    """The first step of adoption: nobody may run it, and the ledger fills with what would be."""
    world = World()
    async with world.running(ALONE) as service:
        with pytest.raises(Denied):
            await service.start(caller(), ask(), None)

        assert shadow_of(world.ledger.entries[0])["verdict"] == "would_grant"
        assert world.vault.calls == []


async def test_a_change_is_shadowed_as_a_start_is() -> None:
    """Granted and refused changes say what the shadow would have answered."""
    world = World()
    async with world.running(REFUSING) as service:
        view = await service.start(caller(), ask(), None)
        await service.change(caller(), view.id, to_us, None)
        with pytest.raises(Unprocessable):
            await service.change(
                caller(), view.id, lambda before: replace(before, ttl=timedelta(days=1)), None
            )
        rows = {entry.event: entry for entry in world.ledger.entries}

        assert shadow_of(rows[Event.REVISION_INTENT])["verdict"] == "same"
        assert shadow_of(rows[Event.REVISION_DENIED])["verdict"] == "same"


async def test_a_refusal_by_a_limit_still_tells_of_the_shadow() -> None:
    """What the policy grants and a limit refuses was decided by both."""
    world = World()
    async with world.running(REFUSING, limits=TaskLimits(tasks=1)) as service:
        await service.start(caller(), ask(), None)
        with pytest.raises(LimitExceeded):
            await service.start(caller(), ask(), None)

        assert world.ledger.entries[-1].event is Event.DENIED
        assert shadow_of(world.ledger.entries[-1])["verdict"] == "would_refuse"


async def test_without_a_shadow_no_row_tells_of_one() -> None:
    """The key is absent, not null: most definitions have none."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)

        assert "shadow" not in world.ledger.entries[0].facts
        assert world.seen.events == ["started report"]


async def test_a_reload_that_changes_only_the_shadow_ends_nothing() -> None:
    """A shadow narrows nobody, not even when it replaces one that granted."""
    world = World()
    async with world.running(REPORT + SHADOW) as service:
        await service.start(caller(), ask(), None)

        assert service.adopt_policy(policy(REFUSING)) == 0
