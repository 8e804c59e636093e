"""Certificates of tasks: how long they may live, what the ledger keeps, when they are gone."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from policy.keys import request, ssh_key
from taskmint.errors import Code, Unprocessable
from taskmint.model.scope import RequestFacts
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event

from fakes.vault import away
from tasks.world import World, caller

WAIT = timedelta(seconds=20)
POLICY = """
version: 1
tasks:
  deploy:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      web: {pki: {mount: pki, role: web, operation: sign, common_name: x, ttl: 10m, proof: crl}}
      host: {ssh: {mount: ssh, role: ops, operation: sign, principals: [deploy], ttl: 2m}}
"""
KEYS = {"web": request(), "host": ssh_key()}


def ask() -> RequestFacts:
    """A request for the deployment, with both keys."""
    return RequestFacts(task="deploy", public_keys=KEYS)


async def test_a_certificate_is_asked_for_until_the_deadline_and_no_longer() -> None:
    """
    The lesser of its ceiling and what is left of the task, and that is what the answer is held to;
    the key goes as it was decided.
    """
    world = World()
    async with world.running(POLICY) as service:
        await service.start(caller(), ask(), None)
        web, host = world.vault.bodies["web"], world.vault.bodies["host"]

        assert web["csr"] == request()
        assert host["public_key"] == ssh_key()
        assert 295 <= int(str(web["ttl"]).removesuffix("s")) <= 300  # five minutes, not ten
        assert host["ttl"] == "120s"
        asked = {name: int(str(body["ttl"])[:-1]) for name, body in world.vault.bodies.items()}
        held_to = world.vault.ceilings
        assert held_to == {name: timedelta(seconds=ttl) for name, ttl in asked.items()}


async def test_it_is_labelled_by_what_can_be_done_about_it() -> None:
    """`revocable` with the revocation list, not without; when each expires by itself."""
    world = World()
    world.vault.certificates_end = datetime(2030, 1, 1, tzinfo=UTC)
    async with world.running(POLICY) as service:
        view = await service.start(caller(), ask(), None)

        assert view.credentials is not None
        assert view.credentials["web"].revocable
        assert not view.credentials["host"].revocable
        assert view.credentials["host"].expires_at == world.vault.certificates_end
        (warning,) = view.credentials["host"].minted.warnings
        assert "works until 2030-01-01T00:00:00Z, after the task" in warning
        assert view.credentials["web"].minted.warnings == ()


async def test_p5_a_certificate_is_gone_when_the_list_names_it() -> None:
    """P5: asked again until it does, also past an answer that fails."""
    world = World()
    world.vault.unlisted = 2
    world.vault.faults["is_listed"].append(away())
    async with world.running(POLICY) as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.vault.calls.count("is_listed") == 4
        assert world.ledger.entries[-1].facts["proof"] == {"web": "crl", "host": "lease"}


async def test_p5_an_expired_certificate_need_not_be_listed() -> None:
    """Nobody accepts it any more, and lists leave expired ones out."""
    world = World()
    world.vault.unlisted = 1_000_000
    world.vault.certificates_end = datetime.now(UTC)
    async with world.running(POLICY) as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.vault.calls.count("is_listed") == 0


async def test_the_ledger_keeps_the_serial_and_a_restart_reads_it() -> None:
    """P8: after a crash the certificate is still proven gone by its number."""
    world = World()
    async with world.running(POLICY) as service:
        view = await service.start(caller(), ask(), None)
    (active,) = (entry for entry in world.ledger.entries if entry.event is Event.ACTIVE)
    entitlements = active.facts["entitlements"]
    assert isinstance(entitlements, dict)
    assert '"serial": "0a-1b"' in json.dumps(entitlements["web"])

    async with world.running(POLICY) as service:
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert ended.state is TaskState.REVOKED
        assert world.vault.calls.count("is_listed") == 1


async def test_a_task_without_its_key_is_refused_before_anything_is_made() -> None:
    """And the refusal is in the ledger."""
    world = World()
    async with world.running(POLICY) as service:
        with pytest.raises(Unprocessable) as caught:
            await service.start(caller(), RequestFacts(task="deploy"), None)
    assert caught.value.code is Code.PUBLIC_KEY_INVALID
    assert world.vault.calls == []
    assert world.ledger.events() == ["denied"]


async def test_a_change_signs_the_same_key_again_or_another() -> None:
    """A longer task re-issues: with the key that it sent at first, unless it sends another."""
    world = World()
    async with world.running(POLICY) as service:
        view = await service.start(caller(), ask(), None)
        await service.change(caller(), view.id, lambda before: before, None)
        assert world.vault.bodies["web"]["csr"] == request()

        keys = {**KEYS, "web": request("p384")}
        await service.change(
            caller(), view.id, lambda before: replace(before, public_keys=keys), None
        )
        assert world.vault.bodies["web"]["csr"] == request("p384")
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert ended.state is TaskState.REVOKED
        assert world.vault.calls.count("is_listed") == 3
