"""Token and leases are renewed together, in time, and the caller is told the truth (P6)."""

from datetime import timedelta

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
