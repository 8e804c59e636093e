"""
Approvals against a plain account of who said what, among fakes and in virtual time (P4, P8, P11).

Hypothesis asks, signs well and badly, brings things twice, withdraws, cancels, reloads policies and
approvers, steps clocks, breaks the ledger, stops and kills the daemon. Whatever it does: each row
`intent` rests on enough different others who said yes to exactly that, or on a condition that was
true; and no statement is taken that its signer, its time or its use should have kept out.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from identity.approver import Signer, claims, record
from taskmint.errors import NotFound, TaskmintError, Unavailable
from taskmint.identity.approvers import ApproverRecord, Approvers, directory_of
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.operating import everything
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.requests import Request
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import EndedBy, IdempotencyKey

from fakes.ledger import MemoryLedger
from fakes.mortal import LEG, Mortal
from fakes.notifier import Heard
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from fakes.vault import FakeVault
from fakes.virtual_time import VirtualClock, VirtualTimeLoop
from tasks.approvals import ANN, ANN_TOO, BOB, DPO, EVE, OWNER, PEOPLE, policy_text
from tasks.world import ask, caller, policy

HOUR: Final = 3600.0
WITHIN: Final = 1800.0  # as the policies say, for the approval and again for its collection
STRANGER: Final = Signer.ed25519()
SIGNERS: Final = {
    "ann": ANN, "ann's other key": ANN_TOO, "bob": BOB, "dpo": DPO,
    "eve": EVE, "owner": OWNER, "stranger": STRANGER,
}  # fmt: skip
POLICIES: Final = {
    "two": (policy_text(2), 2),
    "one": (policy_text(1), 1),
    "automatic": (policy_text(2, "history.grants == 0"), 2),
}


def people(*changed: ApproverRecord) -> tuple[ApproverRecord, ...]:
    """The people, some of them otherwise."""
    names = {one.principal for one in changed}
    return (*(one for one in PEOPLE if one.principal not in names), *changed)


LEADS: Final = ("leads",)
EVERYBODY: Final = {"ann": "Ann", "ann's other key": "Ann", "bob": "Bob", "dpo": "Dora"}
WITHOUT_BOB: Final = {name: who for name, who in EVERYBODY.items() if name != "bob"}
# Each directory, and which person may approve by which key, where it is in force.
DIRECTORIES: Final = {
    "all": (PEOPLE, EVERYBODY),
    "bob gone": (people(record("bob", groups=LEADS)), WITHOUT_BOB),
    "bob is no lead": (people(record("bob", BOB)), WITHOUT_BOB),
    "bob is the caller": (
        people(record("bob", BOB, groups=LEADS, uids=(1000,)), record("owner", OWNER)),
        WITHOUT_BOB,
    ),
    "bob is Ann": (
        people(record("bob"), record("ann", ANN, ANN_TOO, BOB, groups=LEADS, uids=(1001,))),
        EVERYBODY | {"bob": "Ann"},
    ),
}


class How(NamedTuple):
    """What is said, for how many seconds it is good, and what is wrong with it."""

    outcome: str
    life: int
    wrong: str


WRONG: Final = ("signature", "payload", "cut", "scope", "policy", "task", "jti")
HOW: Final = st.builds(
    How,
    st.sampled_from(["approve"] * 6 + ["deny", "withdraw", "withdraw"]),
    st.sampled_from([600, 600, 3600, 20, -60]),
    st.sampled_from(["nothing"] * 8 + [*WRONG]),
)
CALM: Final = ("none", 0)
HAPPENINGS: Final = (
    "withdrawal", "cancellation", "restart", "time", "jump", "approvers",
)  # fmt: skip
# What goes wrong while something is done, and after how many legs of a call the daemon dies.
TROUBLE: Final = st.tuples(
    st.sampled_from(["none"] * 6 + ["full", "unheard", "killed"]), st.integers(0, 14)
)


@dataclass
class Wish:
    """What the account knows of one request; `yes` is by key, with when that is over."""

    id: str
    key: IdempotencyKey
    scope_digest: str
    policy: str
    asked: float
    yes: dict[str, datetime] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    over: bool = False  # durably: no restart brings it back


@dataclass(frozen=True)
class Said:
    """One statement: who signed it, and whether it is what its claims say."""

    wish: Wish
    signer: str
    outcome: str
    until: datetime
    jti: str
    genuine: bool
    text: str


class LifeOfApprovals(RuleBasedStateMachine):
    """One node, one daemon at a time; everything but the account is what the daemon uses."""

    @initialize()
    def begin(self) -> None:
        """Nothing is asked for; everybody is there."""
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.vault = FakeVault(now=self.clock.boottime)
        self.ledger = MemoryLedger()
        self.processes = FakeProcesses()
        self.outage = asyncio.Event()
        self.crashes: list[BaseException] = []
        self.policy = "two"
        self.people = "all"
        self.approvers = Approvers(directory_of(PEOPLE), dict, self.clock)
        self.wishes: list[Wish] = []
        self.said: list[Said] = []
        self.counted = 0  # rows that were looked at
        self.granted: list[str] = []
        self.automatic: list[float] = []  # when this daemon granted something
        self.keys = 0
        self._start_daemon()

    def teardown(self) -> None:
        """Put the daemon down."""
        if hasattr(self, "loop"):
            self._run(self._put_down())
            self.loop.close()

    # --- rules -----------------------------------------------------------------------------

    @rule()
    def somebody_asks(self) -> None:
        """For the report, under a new key."""
        self.keys += 1
        self._in_trouble(self._ask(IdempotencyKey(f"key {self.keys}", "body")), CALM)
        self._account_for_grants()

    @precondition(lambda self: self.wishes)
    @rule(data=st.data(), signer=st.sampled_from([*SIGNERS, *EVERYBODY]), how=HOW, trouble=TROUBLE)
    def somebody_says(
        self, data: st.DataObject, signer: str, how: How, trouble: tuple[str, int]
    ) -> None:
        """Something about a request, perhaps while the ledger or the daemon fails."""
        self._say(data.draw(st.sampled_from(self.wishes)), signer, how, trouble)

    @rule(
        signers=st.sampled_from([["ann", "bob"], ["bob", "dpo"]])
        | st.lists(st.sampled_from([*SIGNERS, *EVERYBODY]), min_size=2, max_size=4),
        life=st.sampled_from([600, 3600]),
        data=st.data(),
    )
    def a_story(self, signers: list[str], life: int, data: st.DataObject) -> None:
        """Asked, approved by some, something happens, collected: what rests on approvals is met."""
        self.somebody_asks()
        if not self.wishes:
            return
        wish = self.wishes[-1]
        self._say(wish, signers[0], How("approve", life, "nothing"), CALM)
        if data.draw(st.integers(0, 3)) == 0:  # taken back, and then the very same text again
            first = self.said[-1]
            self._say(wish, signers[0], How("withdraw", life, "nothing"), CALM)
            if data.draw(st.booleans()):
                self.daemon_goes_and_comes_back(planned=False, seconds=0)
            self._bring(first, CALM)
        for signer in signers[1:]:
            wrong = data.draw(st.sampled_from(["nothing"] * 20 + [*WRONG]))
            trouble = data.draw(st.sampled_from(["none"] * 5 + ["unheard"]))
            self._say(wish, signer, How("approve", life, wrong), (trouble, 0))
        self._something_happens(wish, signers[0], data)
        self.collect(wish)

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def something_is_brought_again(self, data: st.DataObject) -> None:
        """The very same text."""
        self._bring(data.draw(st.sampled_from(self.said)), CALM)

    @precondition(lambda self: self.wishes)
    @rule(data=st.data(), trouble=TROUBLE)
    def somebody_collects(self, data: st.DataObject, trouble: tuple[str, int]) -> None:
        """The same request again."""
        wish = data.draw(st.sampled_from(self.wishes))
        self.collect(wish, trouble)

    @precondition(lambda self: self.wishes)
    @rule(data=st.data(), all_of_it=st.booleans())
    def somebody_cancels(self, data: st.DataObject, all_of_it: bool) -> None:
        """The caller, or an operator everything; what was answered stands."""
        wish = data.draw(st.sampled_from(self.wishes))
        self._in_trouble(self._cancel(wish, all_of_it=all_of_it), CALM)

    @rule(name=st.sampled_from(list(POLICIES)))
    def policy_reload(self, name: str) -> None:
        """Another policy, or the same."""
        self.policy = name
        self._adopt()

    @rule(name=st.sampled_from(list(DIRECTORIES)))
    def directory_reload(self, name: str) -> None:
        """Other approvers, as a reload reads them."""
        self.people = name
        self.approvers.replace(directory_of(DIRECTORIES[name][0]))
        self._adopt()

    @rule(seconds=st.sampled_from([1, 30, 700, 1790, 3601]))
    def time_passes(self, seconds: int) -> None:
        """Statements, requests and approvals expire."""
        self._run(asyncio.sleep(seconds))
        self._account_for_grants()

    @rule(minutes=st.sampled_from([-700, -9, 9, 61]))
    def wall_clock_steps(self, minutes: int) -> None:
        """Prolongs nothing that is kept by the boot clock."""
        self.clock.wall_offset += timedelta(minutes=minutes)

    @rule(planned=st.booleans(), seconds=st.sampled_from([0, 1000]))
    def daemon_goes_and_comes_back(self, planned: bool, seconds: int) -> None:
        """By SIGTERM or SIGKILL."""
        if planned:
            self._run(self.service.stop(revoke=False, grace=timedelta(seconds=1)))
        self._run(self._put_down())
        self._run(asyncio.sleep(seconds))
        self._start_daemon()

    @invariant()
    def nothing_has_crashed(self) -> None:
        """No background work raised what it did not expect."""
        if hasattr(self, "crashes"):
            assert self.crashes == []

    def somebody_says_yes(self, wish: Wish, signer: str) -> None:
        """And nothing is wrong with it."""
        self._say(wish, signer, How("approve", 3600, "nothing"), CALM)

    def collect(self, wish: Wish, trouble: tuple[str, int] = CALM) -> None:
        """Ask again for what was asked for."""
        self._in_trouble(self._ask(wish.key), trouble)
        self._account_for_grants()

    # --- the account -----------------------------------------------------------------------

    def _persons(self) -> dict[str, str]:
        return DIRECTORIES[self.people][1]

    def _account_for_grants(self) -> None:
        """Each new intent is one request's first, with a quorum; or the automatic condition's."""
        rows, self.counted = self.ledger.entries[self.counted :], len(self.ledger.entries)
        by_id = {wish.id: wish for wish in self.wishes}
        for row in rows:
            if row.event is not Event.INTENT:
                continue
            assert row.task is not None
            assert row.task not in self.granted
            wish = by_id.get(row.task)
            if wish is None:
                now = self.loop.time()
                assert self.policy == "automatic"
                assert not [at for at in self.automatic if at > now - HOUR]
            else:
                self._assert_approved(wish)
            self.granted.append(row.task)
            self.automatic.append(self.loop.time())

    def _assert_approved(self, wish: Wish) -> None:
        now, persons = self.clock.utcnow(), self._persons()
        behind = {persons.get(key) for key, until in wish.yes.items() if until > now} - {None}
        assert not wish.over
        assert wish.policy == self.policy
        assert len(behind) >= POLICIES[wish.policy][1], (behind, wish)
        assert self.loop.time() - wish.asked <= 2 * WITHIN + 1

    def _took(self, said: Said) -> None:
        """The daemon says that a statement counts: it had to be allowed to, and has its effect."""
        wish, persons = said.wish, self._persons()
        assert said.genuine, said
        assert said.signer in persons, said
        assert said.until > self.clock.utcnow(), said
        assert said.jti not in wish.used, said
        assert not wish.over
        assert wish.policy == self.policy or said.outcome != "approve" or wish.id in self.granted
        wish.used.add(said.jti)
        if said.outcome == "approve":
            wish.yes[said.signer] = said.until
        elif said.outcome == "deny":
            wish.over = True
        else:
            who = persons[said.signer]
            wish.yes = {key: at for key, at in wish.yes.items() if persons.get(key) != who}

    # --- how -------------------------------------------------------------------------------

    def _something_happens(self, wish: Wish, signer: str, data: st.DataObject) -> None:
        happens = data.draw(st.sampled_from(["nothing", *HAPPENINGS]))
        if happens == "withdrawal":
            self._say(wish, signer, How("withdraw", 600, "nothing"), CALM)
        elif happens == "cancellation":
            all_of_it, trouble = data.draw(st.booleans()), data.draw(TROUBLE)
            self._in_trouble(self._cancel(wish, all_of_it=all_of_it), trouble)
            self.daemon_goes_and_comes_back(planned=False, seconds=0)
        elif happens == "restart":
            self.daemon_goes_and_comes_back(planned=False, seconds=0)
        elif happens == "time":
            self.time_passes(data.draw(st.sampled_from([30, 700, 1790, 3601])))
        elif happens == "jump":
            self.wall_clock_steps(data.draw(st.sampled_from([-9, 9, 61])))
        elif happens == "approvers":
            self.directory_reload(data.draw(st.sampled_from(list(DIRECTORIES))))

    def _say(self, wish: Wish, signer: str, how: How, trouble: tuple[str, int]) -> None:
        said = self._signed(wish, signer, how)
        self.said.append(said)
        self._bring(said, trouble)

    def _signed(self, wish: Wish, signer: str, how: How) -> Said:
        outcome, life, wrong = how
        until = self.clock.utcnow() + timedelta(seconds=life)
        until = until.replace(microsecond=0)
        jti = f"the-same-for-all-{wish.id}" if wrong == "jti" else f"statement-{len(self.said):08d}"
        body = claims(
            int(until.timestamp()),
            task=wish.id if wrong != "task" else "tm_01jd0000000000000000000000",
            scope_digest=wish.scope_digest if wrong != "scope" else "0" * 64,
            policy_digest=(
                policy(POLICIES[wish.policy][0]).digest if wrong != "policy" else "0" * 64
            ),
            outcome=outcome,
            jti=jti,
        )
        key = SIGNERS[signer]
        other = next(one for name, one in SIGNERS.items() if name != signer)
        text = (other if wrong == "signature" else key).sign(body, kid=key.public.thumbprint)
        if wrong == "payload":
            head, payload, signature = text.split(".")
            text = f"{head}.{payload[:-2]}{'AA' if payload[-2:] != 'AA' else 'BB'}.{signature}"
        if wrong == "cut":
            text = text[:-3]
        genuine = wrong in {"nothing", "jti"}
        return Said(wish, signer, outcome, until, jti, genuine, text)

    def _bring(self, said: Said, trouble: tuple[str, int]) -> None:
        outcome = self._in_trouble(self.service.approving.receive(0, said.text), trouble)
        unsure = outcome is None or isinstance(outcome, Unavailable)
        if isinstance(outcome, Request):
            self._took(said)
        elif unsure and said.genuine and said.outcome == "approve":
            # Nobody knows whether it was written; if it was, it may count, and was meant to.
            said.wish.yes.setdefault(said.signer, said.until)
        self._account_for_grants()

    def _in_trouble(self, work: Coroutine[Any, Any, Any], how: tuple[str, int]) -> object:
        """Do it; what it raised is returned, and None when the daemon died on the way."""
        trouble, legs = how
        self.ledger.full = trouble == "full"
        self.ledger.unheard = {Event.STATEMENT} if trouble == "unheard" else set()
        try:
            if trouble != "killed":
                return self._run(_result(work))
            under_way = self.loop.create_task(_result(work))
            self._run(asyncio.sleep((legs + 0.5) * LEG))
            self._run(self._put_down())
            self._start_daemon()
            return under_way.result() if not under_way.cancelled() else None
        finally:
            self.ledger.full = False
            self.ledger.unheard = set()

    async def _ask(self, key: IdempotencyKey) -> None:
        asked = self.loop.time()
        view = await self.service.start(caller(), ask(), key)
        if view.state is not TaskState.AWAITING_APPROVAL or view.approval is None:
            return
        if view.id not in {wish.id for wish in self.wishes}:
            digest = view.approval.scope_digest
            self.wishes.append(Wish(view.id, key, digest, self.policy, asked))

    async def _cancel(self, wish: Wish, *, all_of_it: bool) -> None:
        if all_of_it:
            await self.service.operators.revoke(everything(), EndCause.OPERATOR, EndedBy(0))
            for one in self.wishes:
                one.over = True
            return
        try:
            await self.service.end(caller(), wish.id, EndCause.CANCELLED, timedelta(seconds=1))
        except NotFound:  # over long ago
            return
        wish.over = True

    def _adopt(self) -> None:
        async def adopting() -> None:
            self.service.adopt_policy(policy(POLICIES[self.policy][0]))

        self._run(adopting())

    def _run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self.loop.run_until_complete(awaited())

    def _start_daemon(self) -> None:
        self.mortal = Mortal(self.vault, self.ledger, self.outage)
        outside = Outside(
            self.mortal,
            self.mortal,
            self.processes,
            self.clock,
            Seen(),
            structlog.stdlib.get_logger(),
            approvers=self.approvers,
            notifier=Heard(),
        )
        loaded = policy(POLICIES[self.policy][0])
        self.service = TaskService(
            loaded, outside, Settings("node-a", "boot-1"), self.crashes.append
        )
        self.ledger.opened = len(self.ledger.entries)
        self.automatic = []
        self._run(self.service.recover())

    async def _put_down(self) -> None:
        """Everything of this daemon is gone, as after SIGKILL."""
        self.mortal.dead = True
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self.processes.forget()


async def _result(work: Coroutine[Any, Any, Any]) -> object:
    """What it returns or raises, as the daemon's callers see it."""
    try:
        return await work
    except TaskmintError as error:
        return error


LifeOfApprovals.TestCase.settings = settings(
    stateful_step_count=20, suppress_health_check=[HealthCheck.filter_too_much]
)
TestNoSequenceGrantsWithoutAQuorumOfOthersOrATrueCondition = pytest.mark.timeout(600)(
    LifeOfApprovals.TestCase
)


@pytest.mark.parametrize("name", list(DIRECTORIES))
def test_the_machine_grants_what_two_people_approved_while_they_both_may(name: str) -> None:
    """So that the property is not of a daemon which grants nothing: by hand, one story."""
    machine = LifeOfApprovals()
    machine.begin()
    try:
        machine.somebody_asks()
        (wish,) = machine.wishes
        for signer in ("ann", "bob"):
            machine.somebody_says_yes(wish, signer)
        machine.directory_reload(name)
        machine.collect(wish)
        assert machine.granted == ([wish.id] if name == "all" else [])
    finally:
        machine.teardown()
