"""`audit show` of a changed task: what each revision added, and when it was proven gone."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.lives import a_task, ending, intent, revoked, written
from ledger.test_audit_cli import printed, run
from taskmint.errors import Unavailable, Unprocessable
from taskmint.model.scope import RequestFacts
from taskmint.model.state import EndCause
from taskmint.ports import Entry, Event

from fakes.vault import away
from tasks.test_change import KEPT, WAIT, again, change, to_us, until
from tasks.world import World, ask, caller, policy


def to_mars(before: RequestFacts) -> RequestFacts:
    """A region that the policy does not know."""
    return replace(before, parameters={"region": "mars"})


async def told(path: Path, task: str) -> Any:
    """Return what `audit show` prints as JSON."""
    return await asyncio.to_thread(printed, "show", task, "--ledger", path)


def values(record: dict[str, Any], *names: str) -> list[Any]:
    """Pick some."""
    return [record[name] for name in names]


async def test_show_tells_of_every_revision_of_a_changed_task(tmp_path: Path) -> None:
    """What was added, by which policy, when the old was proven gone, what was refused or failed."""
    world = World()
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        with pytest.raises(Unprocessable):
            await change(service, view, to_mars)
        await change(service, view, to_us)
        await service.heartbeat(caller(), view.id, 2)
        await until(lambda: "revision_revoked" in world.ledger.events())
        world.vault.faults["create_task_token"].append(away())
        with pytest.raises(Unavailable):
            await change(service, view, again)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
    path = await written(tmp_path / "ledger", *world.ledger.entries)
    story = await told(path, view.id)
    first, refused, second, failed = story["revisions"]
    text = (await asyncio.to_thread(run, "show", view.id, "--ledger", path)).stdout

    assert [one["revision"] for one in story["revisions"]] == [1, None, 2, 3]
    assert [one["decision"] for one in story["revisions"]] == [
        "granted", "denied: parameter_invalid", "granted",
        "granted, then failed: vault_unavailable",
    ]  # fmt: skip
    assert {one["policy_digest"] for one in (first, second, failed)} == {policy(KEPT).digest}
    eu, us = (f"warehouse database/creds/orders-ro-{region}" for region in ("eu", "us"))
    assert values(first, "added", "removed") == [[eu], []]
    assert values(second, "added", "removed", "parameters") == [[us], [eu], {"region": "us"}]
    assert values(failed, "added", "removed", "active_at", "revoked_at") == [[], [], None, None]
    assert values(refused, "added", "ended_at") == [[], None]
    assert values(first, "why", "disabled") == ["replaced", 0]
    assert first["active_at"] < second["active_at"] < first["revoked_at"] < second["revoked_at"]
    assert first["revocation_seconds"] < 1
    assert values(second, "why", "revoked_at") == ["succeeded", story["revoked_at"]]
    assert second["revocation_seconds"] == story["revocation_seconds"] is not None
    assert "-- revision 2\n" in text
    assert f'added               ["{us}"]\n' in text
    assert "-- revision refused\ndecision            denied: parameter_invalid\n" in text


async def test_a_revision_that_was_proven_gone_with_its_task_takes_its_time_from_the_rows(
    tmp_path: Path,
) -> None:
    """Its end began for itself; the task's own measurement is not its."""
    task = a_task()
    start = intent(task)
    late = timedelta(seconds=5)
    path = await written(
        tmp_path / "ledger",
        start,
        Entry(Event.ACTIVE, start.at, task),
        Entry(Event.REVISION_INTENT, start.at, task, facts={**start.facts, "revision": 2}),
        Entry(Event.REVISION_ACTIVE, start.at, task, facts={"revision": 2}),
        Entry(Event.REVISION_ENDING, start.at, task, facts={"revision": 1, "why": "lost"}),
        ending(task, start.at + late / 2),
        revoked(task, start.at + late),
    )
    first, second = (await told(path, task))["revisions"]

    assert values(first, "why", "revocation_seconds", "disabled") == ["lost", 5.0, None]
    assert values(second, "added", "removed", "why") == [[], [], "succeeded"]
    assert second["revocation_seconds"] == 0.0125
