"""Token and leases are renewed together, in time, and the caller is told the truth (P6)."""

from datetime import UTC, datetime, timedelta

import pytest

from taskmint.model.state import EndCause, TaskState
from taskmint.tasks.renewal import first_renewal, retry

from fakes.vault import away
from tasks.world import SHORT, World, ask, caller

WAIT = timedelta(seconds=20)
KEPT = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")


async def test_token_and_leases_are_renewed_together_before_a_third_of_their_life() -> None:
    """A lease has its own clock: renewing the token alone would let it lapse."""
    world = World()
    world.vault.ttl = timedelta(seconds=3)
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        await world.vault.until_called("renew", times=4)
        shown = await service.show(caller(), view.id, timedelta())

        assert shown.guaranteed_until > view.guaranteed_until
        assert "renewal ok" in world.seen.events


async def test_a_failed_renewal_is_tried_again_and_the_guarantee_does_not_move() -> None:
    """Three more attempts fit at least; what Vault did not grant is not promised."""
    world = World()
    world.vault.ttl = timedelta(seconds=3)
    world.vault.faults["renew"].extend([away(), away(), away()])
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        await world.vault.until_called("renew", times=4)
        shown = await service.show(caller(), view.id, timedelta())
        assert shown.guaranteed_until <= view.guaranteed_until + timedelta(milliseconds=5)
        await world.vault.until_called("renew", times=9)

        assert world.seen.events.count("renewal failed") >= 1
        assert (await service.show(caller(), view.id, timedelta())).state is TaskState.ACTIVE


async def test_a_task_whose_renewals_all_fail_ends_when_its_credentials_lapse() -> None:
    """P6: the credentials have lapsed on the server; the task says so."""
    world = World()
    world.vault.ttl = timedelta(milliseconds=600)
    world.vault.faults["renew"].extend(away() for _ in range(100))
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.RENEWAL_LOST


async def test_a_lease_that_the_server_does_not_know_ends_the_task_at_the_next_renewal() -> None:
    """An admin revoked it: the task does not say `active` until the dead-man is over."""
    world = World()
    world.vault.ttl = timedelta(seconds=3)
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        for name, thing in world.vault.things.items():
            thing.alive = not name.startswith("database/")
        ended = await service.show(caller(), view.id, timedelta(seconds=2.5))

        assert ended.cause is EndCause.RENEWAL_LOST
        assert "renewal lost" in world.seen.events


HANDED = KEPT + "      hand: {token: {policy: reader, num_uses: 3}}\n"


@pytest.mark.parametrize("bound", ["num_uses: 3", "ttl: 1s"])
async def test_a_handed_token_that_is_used_up_ends_nothing_but_itself(bound: str) -> None:
    """Its uses and its life are the policy's bounds: the rest is renewed on, and taken back."""
    world = World()
    world.vault.ttl = timedelta(seconds=3)
    async with world.running(HANDED.replace("num_uses: 3", bound)) as service:
        view = await service.start(caller(), ask(), None)
        (spent,) = (name for name in world.vault.things if name.startswith("auth/token/"))
        world.vault.things[spent].alive = False
        await world.vault.until_called("renew", times=3 + 2 + 2)
        shown = await service.show(caller(), view.id, timedelta())
        assert shown.state is TaskState.ACTIVE
        assert shown.guaranteed_until > view.guaranteed_until
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert "renewal lost" not in world.seen.events


async def test_a_handed_token_does_not_shorten_what_the_others_are_guaranteed() -> None:
    """As its end comes nearer its renewals grant less and less; nothing else lapses with it."""
    world = World()
    world.vault.ttl = timedelta(seconds=60)
    world.vault.lives["hand"] = timedelta(seconds=1)
    async with world.running(HANDED) as service:
        view = await service.start(caller(), ask(), None)
        assert view.guaranteed_until - datetime.now(UTC) > timedelta(seconds=50)


async def test_a_handed_token_is_told_to_end_with_its_own_life_or_the_task() -> None:
    """Its `ttl` bounds what the caller is told of it, and of nothing else."""
    world = World()
    text = HANDED.replace("num_uses: 3", "ttl: 20s")
    async with world.running(text) as service:
        view = await service.start(caller(), ask(), None)
        assert view.credentials is not None
        hand, other = (view.credentials[name].expires_at for name in ("hand", "warehouse"))
        assert hand is not None
        assert other is not None
        assert hand - datetime.now(UTC) <= timedelta(seconds=20)
        assert other - datetime.now(UTC) > timedelta(seconds=50)
        assert other == view.guaranteed_until


async def test_no_lease_is_guaranteed_beyond_its_own_end() -> None:
    """One that cannot be renewed ends when it said at first, however often the others are."""
    world = World()
    world.vault.ttl = timedelta(seconds=3)
    world.vault.fixed["warehouse"] = datetime.now(UTC) + timedelta(seconds=2)
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        await world.vault.until_called("renew", times=2)
        shown = await service.show(caller(), view.id, timedelta())

        assert view.guaranteed_until == world.vault.fixed["warehouse"]
        assert shown.guaranteed_until == world.vault.fixed["warehouse"]
        assert shown.state is TaskState.ACTIVE


async def test_a_lease_that_outlives_its_task_is_told_to_end_with_it() -> None:
    """A one-time password's may live for a month: its task takes it back long before."""
    world = World()
    world.vault.fixed["warehouse"] = datetime.now(UTC) + timedelta(days=30)
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        assert view.credentials is not None
        told = view.credentials["warehouse"].expires_at
        assert told is not None
        assert told <= view.guaranteed_until <= view.expires_at


def test_the_first_renewal_leaves_room_for_three_more() -> None:
    """At a third of the life, then each twelfth: at least three attempts before the end."""
    life = timedelta(seconds=60)
    for _ in range(100):
        first = first_renewal(life, 0)
        assert 10 <= first <= 20
        attempts, now = 0, first
        while (now := retry(life, now)) < life.total_seconds():
            attempts += 1
        assert attempts >= 3
