"""
`python -m bench.keeper POLICY TASKS ROUNDS`: renew and take back by taskmint, and by bare calls.

Prints one JSON object. Each round renews the same tokens and leases by our own code and twice by
an aiohttp session that makes the same calls and reads the answers, and takes tasks back both ways;
the arms stand next to each other in time, in another order each round. CPU is this process's own,
all threads.
"""

import asyncio
import contextlib
import json
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import structlog
import uvloop

from bench.stub import plan_at
from taskmint.clock import SystemClock
from taskmint.model.caller import IdentityMethod
from taskmint.model.scope import CallerFacts, DecisionInput, Ends, RequestFacts, Scope
from taskmint.model.spiffe import SpiffeId
from taskmint.model.state import RevisionState, TaskState
from taskmint.ports import Revocable, RevocableKind
from taskmint.tasks.deciding import fresh_id
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.renewal import PARALLEL_RENEWALS, Outcome, Renewer
from taskmint.tasks.revision import Held, Revision
from taskmint.tasks.revocation import Revoker
from taskmint.tasks.task import Owner, Task
from taskmint.vault.client import VaultClient
from taskmint.vault.settings import VaultSettings
from vault.ground import Signer, token_request
from vault.test_faults import WAREHOUSE

from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses

DEAD_MAN: Final = timedelta(hours=1)
_WHO: Final = SpiffeId("example.org", "/ns/orders/sa/nightly")
_ARMS: Final = ("taskmint", "bare", "bare again")


@dataclass
class Ground:
    """Our client and a bare session, of one stub."""

    vault: VaultClient
    bare: aiohttp.ClientSession
    outside: Outside

    @classmethod
    @contextlib.asynccontextmanager
    async def standing(cls, policy: str) -> AsyncIterator["Ground"]:
        """Start a stub and connect both."""
        stub = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.stub", policy),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert stub.stdin is not None
        assert stub.stdout is not None
        log = structlog.stdlib.get_logger()
        try:
            address = (await stub.stdout.readline()).decode().strip()
            client = VaultClient(VaultSettings(address), plan_at(policy), Signer().fetch, log)
            connector = aiohttp.TCPConnector(limit=2 * PARALLEL_RENEWALS)
            async with client, aiohttp.ClientSession(address, connector=connector) as bare:
                clock = SystemClock()
                outside = Outside(client, MemoryLedger(), FakeProcesses(), clock, Seen(), log)
                yield cls(client, bare, outside)
        finally:
            stub.stdin.close()
            await stub.wait()

    async def task(self) -> Task:
        """Make a task that holds a token and a lease."""
        request = token_request()
        token = await self.vault.create_task_token(request)
        minted = await self.vault.mint(token, WAREHOUSE)
        now = self.outside.clock.boottime()
        asked = RequestFacts(task="report")
        given = DecisionInput(
            CallerFacts(_WHO, 0, IdentityMethod.JWT_SVID), asked, self.outside.clock.utcnow()
        )
        scope = Scope(
            "report", "d", request.role, request.policy, (WAREHOUSE,), DEAD_MAN, DEAD_MAN, Ends()
        )
        revision = Revision(
            number=1,
            given=given,
            scope=scope,
            deadline=now + DEAD_MAN.total_seconds(),
            expires_at=given.now + DEAD_MAN,
            name="",
            state=RevisionState.CURRENT,
            token=token.revocable,
            held=(Held(WAREHOUSE, minted.revocable, renewable=True),),
        )
        return Task(fresh_id(), Owner(_WHO, 0), revision, now, given.now, state=TaskState.ACTIVE)


async def renewed_by_taskmint(ground: Ground, tasks: Sequence[Task]) -> None:
    """Renew as the daemon does."""
    renewer = Renewer(ground.outside)
    outcomes = await asyncio.gather(*(renewer.renew(task, task.current) for task in tasks))
    if not all(task.current.works() for task in tasks) or set(outcomes) != {Outcome.OK}:
        raise AssertionError("not everything was renewed")


async def renewed_barely(ground: Ground, tasks: Sequence[Task]) -> None:
    """Make the same calls, as many at once."""
    handles = iter([one for task in tasks for one in task.current.renewed_together()])

    async def worker() -> None:
        for handle in handles:
            await _call(ground.bare, "renew", handle, {"increment": int(DEAD_MAN.total_seconds())})

    await asyncio.gather(*(worker() for _ in range(2 * PARALLEL_RENEWALS)))


async def ended_by_taskmint(ground: Ground, tasks: Sequence[Task]) -> None:
    """Take back and prove, one task after another."""
    settings = Settings("node-1", "boot")
    revoker = Revoker(ground.outside, settings, Counter())
    for task in tasks:
        await revoker.take_back(task, task.current)


async def ended_barely(ground: Ground, tasks: Sequence[Task]) -> None:
    """Make the same calls in the same order."""
    for task in tasks:
        for held in task.current.held:
            assert held.revocable is not None
            await _call(ground.bare, "revoke", held.revocable, {"sync": True})
            await _call(ground.bare, "lookup", held.revocable, {})
        assert task.current.token is not None
        await _call(ground.bare, "revoke", task.current.token, {})
        await _call(ground.bare, "lookup", task.current.token, {})


async def _call(
    session: aiohttp.ClientSession, what: str, handle: Revocable, more: dict[str, object]
) -> None:
    token = {"X-Vault-Token": "token-0", "X-Vault-Request": "true"}
    if handle.kind is RevocableKind.LEASE:
        method, path, body = "PUT", f"/v1/sys/leases/{what}", {"lease_id": handle.id, **more}
    else:
        method, path, body = "POST", f"/v1/auth/token/{what}-accessor", {"accessor": handle.id}
        body |= more
    async with session.request(method, path, json=body, headers=token) as answer:
        said = await answer.read()
        if said:
            json.loads(said)  # how long a renewal holds, why something is not there
        if answer.status not in {200, 204, 400}:
            raise AssertionError(f"{method} {path}: {answer.status}")


def _used() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


async def _cost(work: Awaitable[None]) -> dict[str, float]:
    began, used = time.perf_counter(), _used()
    await work
    return {"seconds": time.perf_counter() - began, "cpu": _used() - used}


async def measured(policy: str, count: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return what each arm used, a round each."""
    found: dict[str, list[dict[str, float]]] = {}
    renew: dict[str, Callable[[Ground, Sequence[Task]], Awaitable[None]]] = {
        "taskmint": renewed_by_taskmint,
        "bare": renewed_barely,
        "bare again": renewed_barely,
    }
    end = {"taskmint": ended_by_taskmint, "bare": ended_barely, "bare again": ended_barely}
    async with Ground.standing(policy) as ground:
        tasks = [await ground.task() for _ in range(count)]
        await renewed_by_taskmint(ground, tasks[:50])  # every connection is open
        await renewed_barely(ground, tasks[:50])
        for number in range(rounds):
            shift = number % len(_ARMS)
            for arm in _ARMS[shift:] + _ARMS[:shift]:
                cost = await _cost(renew[arm](ground, tasks))
                found.setdefault(f"renew, {arm}", []).append(cost)
                ending = [await ground.task() for _ in range(max(5, count // 10))]
                cost = await _cost(end[arm](ground, ending))
                found.setdefault(f"end, {arm}", []).append(cost)
    return found


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    answer = uvloop.run(measured(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write(json.dumps(answer) + "\n")
