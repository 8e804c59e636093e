"""
The steps of the demo: each makes something happen and shows what the servers say to it.

What a step promises stands in its title; its evidence either holds or does not.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Final

from .daemon_process import Daemon
from .demo_evidence import Standing, Witness, describe, milliseconds
from .demo_ledger import task_stories, verify_ledger
from .demo_report import Step
from .demo_workload import Workload, attempt
from .registration import Entry
from .stack import STRANGER, WORKLOAD, Stack

OPENBAO: Final = "OpenBao"
AUDIT: Final = "OpenBao's audit device"
POSTGRES: Final = "PostgreSQL"
POSTGRES_LOG: Final = "PostgreSQL's log"
CALLER: Final = "the caller"
LEDGER: Final = "the ledger"

_NOT_OURS: Final = 125  # `taskmint run` itself failed; no command was started
_INVALID_PASSWORD: Final = "28P01"
_INVALID_AUTHORIZATION: Final = "28000"
_REFUSALS: Final = {_INVALID_PASSWORD, _INVALID_AUTHORIZATION}
_INSUFFICIENT_PRIVILEGE: Final = "42501"
_SECRET: Final = "database/creds/orders-ro-eu"
_DAEMON_POLICY: Final = "taskmint-daemon"
_TASK_POLICY: Final = "taskmint-task-orders-report.eu"
_STRANGER_ID: Final = "spiffe://example.org/ns/web/sa/frontend"
_ENDED_SECONDS: Final = 5.0
_TASKS_TOLD: Final = 4  # one denied, three granted
_RECOVERED_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2
_SHORT_OF_THE_PROMISE: Final = 5.0  # P6: `VALID UNTIL` is the lease's life and this much


class Story:
    """The stage: a stack with a running daemon, and a witness who asks the servers."""

    def __init__(self, stack: Stack, daemon: Daemon, witness: Witness, dead_man: float) -> None:
        self._stack = stack
        self._daemon = daemon
        self._witness = witness
        self._dead_man = dead_man

    async def nothing_stands(self) -> tuple[Step, Standing]:
        """Before any task: no account, no lease, no task token; the daemon reads no secret."""
        step = Step("before", "Before: nothing stands")
        found = await self._witness.standing()
        _show_standing(step, found)
        status = await self._witness.reads(_DAEMON_POLICY, _SECRET)
        step.show(
            OPENBAO,
            f"read {_SECRET} with all the rights of the daemon",
            f"{status} {HTTPStatus(status).phrase}",
            holds=status == HTTPStatus.FORBIDDEN,
        )
        return step, found

    async def denied(self) -> Step:
        """A program without an identity, then one whose identity the policy does not name."""
        step = Step("denied", "A caller is denied, and told why")
        python = self._stack.python[STRANGER]
        mark = await self._witness.mark()
        status, words = await attempt(self._stack, python)
        step.show(
            CALLER,
            "an executable that the Workload API does not know",
            words,
            holds=status == _NOT_OURS and "no identity" in words,
        )
        await self._stack.workload_api.register(Entry(_STRANGER_ID, str(python)))
        status, words = await attempt(self._stack, python)
        step.show(
            CALLER,
            f"proven to be {_STRANGER_ID}, which the task's `who` does not match",
            words,
            holds=status == _NOT_OURS and "not_permitted" in words,
        )
        asked = await self._witness.asked_since(mark)
        step.show(AUDIT, "requests meanwhile", describe(asked) or "none", holds=not asked)
        return step

    async def granted(self) -> tuple[Step, Step]:
        """A workload is granted, works, and ends; its credential ends with it."""
        granted = Step("granted", "A caller is granted: a database account for this task alone")
        ended = Step("ended", "The task ends, and PostgreSQL refuses the credential it had")
        mark = await self._witness.mark()
        python = self._stack.python[WORKLOAD]
        async with Workload.running(self._stack, python) as workload:
            await self._show_working(granted, workload, mark)
            mark = await self._witness.mark()
            began = time.monotonic()
            await self._show_refused(ended, workload, began, _ENDED_SECONDS, workload.finish)
        asked = await self._witness.asked_since(mark)
        revoked = [each.path for each in asked]
        ended.show(
            AUDIT,
            "how it was taken back, and that it was looked up",
            describe(asked),
            holds={"sys/leases/revoke", "sys/leases/lookup"} <= set(revoked),
        )
        return granted, ended

    async def workload_killed(self) -> Step:
        """SIGKILL tells nobody; the kernel does."""
        step = Step("workload-killed", "A workload is killed with SIGKILL, and its credential goes")
        async with Workload.running(self._stack, self._stack.python[WORKLOAD]) as workload:
            began = time.monotonic()
            await self._show_refused(step, workload, began, _ENDED_SECONDS, workload.kill)
        return step

    async def daemon_killed(self) -> Step:
        """Nobody is left to renew or to revoke: the servers' own clocks take it back."""
        step = Step(
            "daemon-killed",
            f"The daemon is killed with SIGKILL; the dead-man interval is {self._dead_man:g} s",
        )
        patience = self._dead_man + _SHORT_OF_THE_PROMISE
        async with Workload.running(self._stack, self._stack.python[WORKLOAD]) as workload:
            began = time.monotonic()
            await self._show_refused(step, workload, began, patience, self._daemon.kill)
            found = await self._settled()
            step.show(
                POSTGRES,
                "accounts that can log in",
                ", ".join(found.logins),
                holds=workload.credential.user not in found.logins,
            )
            step.show(
                OPENBAO,
                "leases",
                "\n".join(found.leases) or "none",
                holds=not found.leases,
            )
        return step

    async def ledger_verified(self) -> Step:
        """The daemon comes back; what it wrote before it was killed is whole."""
        step = Step("ledger", "The daemon comes back, and its ledger is verified")
        await self._daemon.start()
        ledger = self._stack.paths.ledger
        told = await self._told(ledger)
        step.show(
            LEDGER,
            "what it says of each task",
            "\n".join(told),
            holds=len(told) >= _TASKS_TOLD,
        )
        status, words = await verify_ledger(ledger)
        step.show(LEDGER, "taskmint audit verify", words, holds=status == 0)
        return step

    async def _settled(self) -> Standing:
        """Look until no lease is left: OpenBao strikes it off a moment after the account."""
        give_up = time.monotonic() + _ENDED_SECONDS
        while True:
            found = await self._witness.standing()
            if not found.leases or time.monotonic() > give_up:
                return found
            await asyncio.sleep(_POLL_SECONDS)

    async def _told(self, ledger: Path) -> list[str]:
        """Wait until the daemon has written the end of every task, those it found included."""
        give_up = time.monotonic() + _RECOVERED_SECONDS
        while True:
            told = await task_stories(ledger)
            if len(told) >= _TASKS_TOLD or time.monotonic() > give_up:
                return told
            await asyncio.sleep(_POLL_SECONDS)

    async def nothing_stands_again(self, before: Standing) -> Step:
        """What stood before stands now; the killed daemon's own token ends by itself."""
        step = Step("after", "After: nothing stands")
        found = await self._witness.standing()
        _show_standing(step, found)
        same = (found.logins, found.leases) == (before.logins, before.leases)
        step.show(
            f"{OPENBAO} and {POSTGRES}",
            "the same accounts and leases as before the first task",
            "yes" if same else f"no: {before} became {found}",
            holds=same,
        )
        return step

    async def _show_working(self, step: Step, workload: Workload, mark: int) -> None:
        user = workload.credential.user
        asked = await self._witness.asked_since(mark)
        by_task = [each for each in asked if each.path == _SECRET]
        step.show(
            AUDIT,
            "what the daemon asked, and what the task's own token asked",
            describe(asked),
            holds=len(by_task) == 1 and by_task[0].policies == (_TASK_POLICY,),
        )
        account = await self._witness.account(user)
        step.show(POSTGRES, f"the account {user}", account, holds=account.startswith("login true"))
        step.show(
            "psql",
            "inside the task, with its credential",
            workload.said,
            holds=workload.said.endswith("regions: eu"),
        )
        words = await self._witness.says(workload.credential, "DELETE FROM orders")
        step.show(
            "psql",
            "the same credential, asking for more: DELETE FROM orders",
            words,
            holds=_INSUFFICIENT_PRIVILEGE in words,
        )

    async def _show_refused(
        self,
        step: Step,
        workload: Workload,
        began: float,
        patience: float,
        end: Callable[[], Coroutine[None, None, object]],
    ) -> None:
        """Bring about an end while somebody logs in again and again, until it is refused."""
        ending = asyncio.create_task(end())
        try:
            first = await self._witness.refused(workload.credential, patience)
        finally:
            await ending
        if first is None:
            step.show(POSTGRES_LOG, "logins", f"not refused within {patience:g} s", holds=False)
            return
        passed = step.figures["refused_after_ms"] = milliseconds(began, first.at)
        step.show(
            POSTGRES_LOG,
            f"the first login that it refused, {passed:g} ms later",
            str(first),
            holds=first.sqlstate in _REFUSALS,
        )
        # The first refusal may have met the revocation half-way; this one finds nothing.
        again = await self._witness.refused(workload.credential, 0.0)
        step.show(
            POSTGRES_LOG,
            "one more login",
            str(again),
            holds=again is not None and again.sqlstate == _INVALID_PASSWORD,
        )


def _show_standing(step: Step, found: Standing) -> None:
    step.show(
        POSTGRES,
        "accounts that can log in",
        ", ".join(found.logins),
        holds=set(found.logins) == {"postgres", "vault"},
    )
    leases = "\n".join(found.leases)
    step.show(OPENBAO, "leases", leases or "none", holds=not found.leases)
    step.show(
        OPENBAO,
        "tokens: the administrator's, and the daemon's own, which read no secret",
        "\n".join(f"{token.policies}, ends {token.ends}" for token in found.tokens),
        holds={token.policies for token in found.tokens} == {"root", _DAEMON_POLICY},
    )
