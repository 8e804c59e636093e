"""What may have been made without our hearing of it is `revoked` by a clock, or not at all (P5)."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from policy.keys import ssh_key
from taskmint.errors import Unavailable
from taskmint.model.state import TaskState
from taskmint.policy.database import (
    POSTGRESQL_CREATION,
    POSTGRESQL_REVOCATION,
    expires_by_itself,
)
from taskmint.policy.mysql import MARIADB_CREATION
from taskmint.ports import Event
from taskmint.tasks.service import TaskService

from fakes.vault import away
from tasks.world import World, ask, caller

WAIT = timedelta(seconds=20)
DEAD_MAN = timedelta(seconds=66)  # of the class, with what is added to it
TASK = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      it:
        ENTITLEMENT
"""
ROLE = """database:
          mount: database
          connection: tasks
          creation: [CREATION]
          revocation: [REVOCATION]
          proof: login
"""
OTP = "ssh: {mount: ssh, role: otp, operation: otp, ip: 10.1.2.3, username: ubuntu}"
SECRET = 'secret: {mount: database, path: "creds/orders-ro-{region}"}'
CERTIFICATE = "pki: {mount: pki, role: web, common_name: a.example.org, ttl: 10m, proof: crl}"
SIGNED = "ssh: {mount: ssh, role: ops, operation: sign, principals: [deploy], ttl: 10m}"
HANDED = "token: {policy: reader, ttl: 2h}"


def role(creation: str) -> str:
    """A role that exists for one task."""
    return ROLE.replace("CREATION", json.dumps(creation)).replace(
        "REVOCATION", json.dumps(POSTGRESQL_REVOCATION)
    )


def policy_with(entitlement: str) -> str:
    """A policy of one definition with one entitlement."""
    return TASK.replace("ENTITLEMENT", entitlement)


async def lost(world: World, service: TaskService, entitlement: str) -> None:
    """Start a task whose one mint is carried out, and its answer lost."""
    world.vault.lost["mint"] = 1
    keys = {"it": ssh_key()} if entitlement is SIGNED else {}
    with pytest.raises(Unavailable):
        await service.start(caller(), replace(ask(), public_keys=keys), None)


async def revoked(world: World, service: TaskService) -> bool:
    """Stop, which waits for nothing but clocks; whether the end was recorded as proven."""
    await service.stop(revoke=False, grace=WAIT)
    return world.ledger.entries[-1].event is Event.REVOKED


@pytest.mark.parametrize(
    ("entitlement", "life"),
    [
        (HANDED, DEAD_MAN),
        (SIGNED, DEAD_MAN),
        (role(POSTGRESQL_CREATION), DEAD_MAN),
        (SECRET, timedelta(hours=1)),
        (CERTIFICATE, timedelta(minutes=10)),
    ],
    ids=["token", "signed", "database", "secret", "certificate"],
)
async def test_p5_it_is_outwaited_for_as_long_as_its_kind_can_live(
    entitlement: str, life: timedelta
) -> None:
    """A token its period, an account its VALID UNTIL, a certificate its own end; not less."""
    for early, proven in ((timedelta(seconds=10), False), (-timedelta(seconds=6), True)):
        world = World()
        world.vault.clocks["it"] = timedelta(hours=1)
        async with world.running(policy_with(entitlement)) as service:
            await lost(world, service, entitlement)
            world.clock.pass_time(life - early)
            assert await revoked(world, service) is proven


@pytest.mark.parametrize(
    "entitlement", [OTP, SECRET, role(MARIADB_CREATION)], ids=["otp", "secret", "database"]
)
async def test_p5_what_no_clock_ends_is_never_called_revoked(entitlement: str) -> None:
    """An engine's own revocation is all there is, and it may fail: `revoking`, with the reason."""
    world = World()
    world.vault.clocks["it"] = None
    async with world.running(policy_with(entitlement)) as service:
        await lost(world, service, entitlement)
        world.clock.pass_time(timedelta(days=400))
        await world.seen_problem(service, "no answer came for it (")
        (view,) = service.operators.overview()
        assert view.state is TaskState.REVOKING
        assert view.attempts_failed
        mount = view.last_problem.partition("(")[2].partition("/")[0]
        assert service.operators.figures().unproven_at[mount] == 1
        assert not await revoked(world, service)

    async with world.running(policy_with(entitlement)) as service:
        await world.seen_problem(service, "no answer came for it (")
        assert not await revoked(world, service)


async def test_p5_a_clock_that_could_not_be_read_is_asked_for_again() -> None:
    """Vault is away in that moment: no answer is no clock, and none that never ends either."""
    world = World()
    world.vault.faults["own_clock"].append(away())
    async with world.running(policy_with(SECRET)) as service:
        await lost(world, service, SECRET)
        await world.seen_problem(service, "vault_unavailable")
        await world.vault.until_called("own_clock", times=2)
        world.clock.pass_time(DEAD_MAN)
        assert await revoked(world, service)


async def test_p5_a_token_that_never_minted_has_no_leases_to_wait_for() -> None:
    """Its accessor is in the ledger before the first mint, so that a crash before it is clear."""
    world = World()
    world.vault.clocks["it"] = None
    async with world.running(policy_with(OTP)) as service:
        await service.start(caller(), ask(), None)
    del world.ledger.entries[1:]  # the intent is left
    async with world.running(policy_with(OTP)) as service:
        async with asyncio.timeout(10):
            while service.operators.figures().unproven_at != {"auth/token": 1}:
                await asyncio.sleep(0.01)
        world.clock.pass_time(DEAD_MAN)
        assert await revoked(world, service)


async def test_p5_after_a_crash_in_mid_mint_every_entitlement_is_unheard_of() -> None:
    """The accessor is known, what it minted is not: as if each answer had been lost."""
    world = World()
    async with world.running(policy_with(OTP)) as service:
        await service.start(caller(), ask(), None)
    del world.ledger.entries[2:]
    async with world.running(policy_with(OTP)) as service:
        world.clock.pass_time(timedelta(days=400))
        await world.seen_problem(service, "no answer came for it (ssh/creds/otp)")
        assert not await revoked(world, service)


async def test_p5_of_a_ledger_in_doubt_every_entitlement_is_unheard_of() -> None:
    """A row that cannot be read may have named another lease than those that can be."""
    world = World()
    async with world.running(policy_with(OTP)) as service:
        await service.start(caller(), ask(), None)
    world.ledger.doubt = "a row does not fit its hash"
    async with world.running(policy_with(OTP)) as service:
        await world.seen_problem(service, "no answer came for it (ssh/creds/otp)")
        assert not await revoked(world, service)
    assert world.vault.alive == set()


def test_only_a_statement_that_runs_ends_an_account() -> None:
    """PostgreSQL's recommended creation does, MariaDB's cannot."""
    assert expires_by_itself([POSTGRESQL_CREATION])
    assert not expires_by_itself([MARIADB_CREATION])
    assert not expires_by_itself(["CREATE ROLE \"{{name}}\" VALID UNTIL 'infinity'"])
    assert not expires_by_itself([])


@pytest.mark.parametrize("lost_row", [True, False], ids=["lost", "kept"])
async def test_p5_in_doubt_sessions_that_cannot_be_counted_are_not_called_gone(
    lost_row: bool,
) -> None:
    """The credential was delivered; VALID UNTIL ends its logins, and no session that is open."""
    entitlement = SECRET.replace('"}', '", proof: sessions}')
    world = World()
    async with world.running(policy_with(entitlement)) as service:
        await service.start(caller(), ask(), None)
    if lost_row:
        rows = world.ledger.entries
        world.ledger.entries = [row for row in rows if row.event is not Event.ACTIVE]
    world.ledger.doubt = "a row does not fit its hash"
    world.vault.calls.clear()
    async with world.running(policy_with(entitlement)) as service:
        world.clock.pass_time(timedelta(days=400))
        if lost_row:
            await world.seen_problem(service, "no answer came for it (")
            assert "probe" not in world.vault.calls
        else:
            await world.vault.until_called("probe", times=1)
            async with asyncio.timeout(10):
                while service.operators.overview():
                    await asyncio.sleep(0.01)
