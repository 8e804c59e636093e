"""Requests that wait for an approval: asked, weighed, collected once, and every other end."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identity.approver import Signer, claims, record
from identity.pki import root
from identity.test_statements import chain
from taskmint.config import DEFAULT_CLASSES
from taskmint.errors import (
    BadRequest,
    Code,
    Conflict,
    Denied,
    LimitExceeded,
    NotFound,
    Unavailable,
)
from taskmint.identity.approvers import ApproverRecord, Approvers, Directory, directory_of
from taskmint.model.approval import Outcome, Statement
from taskmint.model.caller import IdentityMethod
from taskmint.model.state import EndCause, TaskState
from taskmint.policy.load import load_policy
from taskmint.ports import Event
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.service import TaskService
from taskmint.tasks.statement_pace import PER_MINUTE, PER_MINUTE_OF_UID
from taskmint.tasks.task import EndedBy, IdempotencyKey
from taskmint.tasks.views import TaskView

from tasks.approvals import (
    ANN,
    ANN_TOO,
    BOB,
    DPO,
    EVE,
    KEY,
    OWNER,
    PEOPLE,
    a_world,
    approved,
    asked,
    policy_text,
    says,
    waiting,
)
from tasks.world import World, ask, caller, policy

POLICY = policy_text()
NO_WAIT = timedelta()
SOON = timedelta(seconds=5)


async def refused(service: TaskService, world: World, text: str) -> str:
    """Bring a statement that must not count: refused, ledgered, and nothing granted."""
    before = world.ledger.events().count(Event.STATEMENT_REFUSED)
    with pytest.raises((Denied, NotFound)) as caught:
        await service.approving.receive(0, text)
    assert world.ledger.events().count(Event.STATEMENT_REFUSED) == before + 1
    assert world.vault.alive == set()
    return caught.value.detail


async def state_of(service: TaskService, task_id: str) -> TaskState:
    """Where it stands."""
    return (await service.show(caller(), task_id, NO_WAIT)).state


async def test_nothing_is_minted_before_enough_others_have_approved() -> None:
    """Asked, approved by two, collected by repeating the request; the whole way in the ledger."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        assert (view.state, view.credentials) == (TaskState.AWAITING_APPROVAL, None)
        assert (waiting(view).quorum, waiting(view).given) == (2, 0)
        assert (await asked(service)).id == view.id
        await service.approving.receive(0, says(world, view, ANN))
        assert waiting(await asked(service)).given == 1
        assert world.vault.alive == set()
        await service.approving.receive(0, says(world, view, DPO))
        assert await state_of(service, view.id) is TaskState.APPROVED
        task = await asked(service)

    assert (task.id, task.state) == (view.id, TaskState.ACTIVE)
    assert task.credentials is not None
    assert world.ledger.events()[:6] == [
        "awaiting_approval", "statement", "statement", "intent", "accessor", "active",
    ]  # fmt: skip
    assert [entry.state for entry in world.ledger.entries[:4]] == [
        TaskState.AWAITING_APPROVAL,
        TaskState.AWAITING_APPROVAL,
        TaskState.APPROVED,
        TaskState.MINTING,
    ]
    assert world.ledger.entries[2].facts["principal"] == "dpo"
    assert world.notifier.kinds() == ["approval_requested", "approval_given"]


async def test_the_plan_that_is_shown_says_everything_that_would_be_given() -> None:
    """Who, what, why, how long, and which paths; its digest is what is approved."""
    world = a_world()
    async with world.running(POLICY) as service:
        plan = waiting(await asked(service)).plan

    assert plan["caller"] == {
        "spiffe_id": "spiffe://example.org/job", "uid": 1000, "method": "jwt-svid",
    }  # fmt: skip
    assert (plan["purpose"], plan["parameters"]) == ("nightly", {"region": "eu"})
    scope = plan["scope"]
    assert isinstance(scope, dict)
    assert scope["lifetime_seconds"] == 300
    assert "creds/orders-ro-eu" in str(scope["entitlements"])


async def test_one_approval_is_used_once() -> None:
    """The same request again is the same task; another one waits for approvals of its own."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        first, second = await asyncio.gather(asked(service), asked(service))
        other = await asked(service, IdempotencyKey("other", "body"))

        assert first.id == second.id == view.id
        assert len(world.vault.requests) == 1
        assert other.state is TaskState.AWAITING_APPROVAL
        with pytest.raises(Denied, match="approved already"):
            await service.approving.receive(0, says(world, view, DPO))


async def test_a_replayed_approval_is_refused() -> None:
    """Twice for the same request, and for another one of the same caller."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        other = await asked(service, IdempotencyKey("other", "body"))
        text = says(world, view, ANN)
        await service.approving.receive(0, text)

        assert await refused(service, world, text) == "the statement was used before"
        assert waiting(await asked(service)).given == 1
        assert waiting(await service.show(caller(), other.id, NO_WAIT)).given == 0


async def test_a_forged_approval_is_refused() -> None:
    """By a key of nobody's, under the name of one that is; without its end; with parts swapped."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        text = says(world, view, ANN)
        first, second, third = text.split(".")
        for forged in (
            says(world, view, Signer.ed25519()),
            says(world, view, BOB).rpartition(".")[0] + "." + third,
            text[:-2],
            f"{second}.{first}.{third}",
            "",
        ):
            assert "proves nothing" in await refused(service, world, forged)
        assert waiting(await asked(service)).given == 0


async def test_an_approval_for_another_digest_is_refused() -> None:
    """Another plan of the same task, or one that another policy decided."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        shown = waiting(view)
        until = int((world.clock.utcnow() + SOON).timestamp())
        good = {
            "task": view.id,
            "scope_digest": shown.scope_digest,
            "policy_digest": shown.policy_digest,
        }
        for change, why in (
            ({"scope_digest": "0" * 64}, "another plan"),
            ({"policy_digest": "0" * 64}, "another policy"),
        ):
            text = ANN.sign(claims(until, **{**good, **change}))
            assert why in await refused(service, world, text)


async def test_an_expired_approval_is_refused() -> None:
    """Its own time is over when it comes."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        text = says(world, view, ANN, timedelta(minutes=1))
        world.clock.pass_time(timedelta(minutes=2))

        assert await refused(service, world, text) == "the statement has expired"


async def test_the_caller_by_another_name_cannot_approve() -> None:
    """The owner of the caller's uid is in the group that may approve, and may not."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)

        assert "their own" in await refused(service, world, says(world, view, OWNER))


async def test_one_person_signing_as_two_is_no_quorum() -> None:
    """Two keys of one principal; two principals of one uid are a config error (test_approvers)."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, ANN))

        text = says(world, view, ANN_TOO)
        assert await refused(service, world, text) == "this approver has approved already"
        assert "does not name" in await refused(service, world, says(world, view, EVE))
        assert await state_of(service, view.id) is TaskState.AWAITING_APPROVAL


async def test_an_approval_after_the_request_was_cancelled_is_refused() -> None:
    """DELETE ends what waits; nothing was ever created."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, ANN))
        ended = await service.end(caller(), view.id, EndCause.CANCELLED, SOON)

        assert (ended.state, ended.cause) == (TaskState.FAILED, EndCause.CANCELLED)
        assert "the request is over" in await refused(service, world, says(world, view, BOB))
        with pytest.raises(Conflict, match="cancelled") as caught:
            await asked(service)
        assert caught.value.code is Code.TASK_ENDED


async def test_an_approval_after_the_task_was_ended_is_refused() -> None:
    """Also to withdraw: there is nothing left to end."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, SOON)
        for outcome in ("approve", "withdraw"):
            text = says(world, view, ANN, outcome=outcome)
            with pytest.raises(Denied, match="the task has ended"):
                await service.approving.receive(0, text)


async def test_ten_thousand_requests_are_bounded() -> None:
    """Per identity and in all; over it 429, and a place that becomes free can be taken."""
    world = a_world()
    limits = TaskLimits(pending=50, pending_per_identity=20, starts_per_minute_per_identity=20_000)
    async with world.running(POLICY, limits=limits) as service:
        refusals = 0
        for number in range(10_000):
            who = caller(uid=1000 + number % 7)
            try:
                await service.start(who, ask(), IdempotencyKey(f"k{number}", "body"))
            except LimitExceeded:
                refusals += 1
        assert refusals >= 9_980
        rows = world.ledger.events().count(Event.AWAITING_APPROVAL)
        assert rows == 20
        first = next(entry.task for entry in world.ledger.entries if entry.task)
        await service.operators.end(first, EndedBy(0), SOON)
        again = await asked(service, IdempotencyKey("again", "body"))

    assert again.state is TaskState.AWAITING_APPROVAL


async def test_one_denial_ends_a_request() -> None:
    """And is final; the caller sees it, and its key is used up."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, BOB, outcome="deny"))
        shown = await service.show(caller(), view.id, NO_WAIT)

        assert (shown.state, waiting(shown).why) == (TaskState.DENIED, "an approver denied it")
        assert "the request is over" in await refused(service, world, says(world, view, ANN))
        with pytest.raises(Conflict, match="an approver denied it"):
            await asked(service)


async def test_p4_withdrawing_an_approval_ends_the_task() -> None:
    """P4: an approval withdrawn is an end; the credentials are taken back."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        await service.approving.receive(0, says(world, view, BOB, outcome="withdraw"))
        over = await service.show(caller(), view.id, SOON)

    assert (over.state, over.cause) == (TaskState.REVOKED, EndCause.APPROVAL_WITHDRAWN)
    assert world.vault.alive == set()


async def test_an_approval_withdrawn_before_it_is_collected_is_worth_nothing() -> None:
    """While it waits one may approve anew; once approved, the request is over."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, ANN))
        await service.approving.receive(0, says(world, view, ANN, outcome="withdraw"))
        assert waiting(await asked(service)).given == 0
        await service.approving.receive(0, says(world, view, ANN))
        await service.approving.receive(0, says(world, view, BOB))
        await service.approving.receive(0, says(world, view, ANN_TOO, outcome="withdraw"))
        shown = await service.show(caller(), view.id, NO_WAIT)

        assert (shown.state, shown.cause) == (TaskState.FAILED, EndCause.APPROVAL_WITHDRAWN)
        with pytest.raises(Conflict, match="withdrawn"):
            await asked(service)
        assert world.vault.alive == set()


async def test_a_request_that_nobody_approves_is_denied_in_time() -> None:
    """`within` is over."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, ANN, timedelta(hours=1)))
        world.clock.pass_time(timedelta(minutes=30))

        text = says(world, view, BOB)
        assert "no approval came in time" in await refused(service, world, text)
        assert await state_of(service, view.id) is TaskState.DENIED


async def test_what_is_approved_and_not_collected_expires() -> None:
    """`expired_unused`, by the timer alone: `within` from the approval, or the statement's time."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        world.clock.pass_time(timedelta(minutes=10))
        shown = await service.show(caller(), view.id, SOON)
        async with asyncio.timeout(5):
            while shown.state is TaskState.APPROVED:
                await asyncio.sleep(0.05)
                shown = await service.show(caller(), view.id, NO_WAIT)

        assert shown.state is TaskState.EXPIRED_UNUSED
        with pytest.raises(Conflict, match="not collected"):
            await asked(service)
        async with asyncio.timeout(5):
            while world.ledger.entries[-1].state is not TaskState.EXPIRED_UNUSED:
                await asyncio.sleep(0)


async def test_collecting_decides_again_with_the_facts_of_then() -> None:
    """What the policy would not give now is not given, and the approval is void."""
    world = a_world()
    text = POLICY.replace("caller.uid < 5000", "history.grants < 1")
    async with world.running(text) as service:
        view = await approved(service, world)
        other = IdempotencyKey("other", "body")
        second = await asked(service, other)
        for signer in (ANN, BOB):
            await service.approving.receive(0, says(world, second, signer))
        await asked(service, other)
        with pytest.raises(Denied, match="a condition of this task is not met"):
            await asked(service)

        assert await state_of(service, view.id) is TaskState.DENIED
        assert len(world.vault.requests) == 1


async def test_an_approval_is_collected_by_the_proof_that_was_shown() -> None:
    """Another door is refused and voids nothing."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        by_certificate = replace(caller(), method=IdentityMethod.X509_SVID)  # no Caller is built
        with pytest.raises(Denied, match="by jwt-svid"):
            await service.start(by_certificate, ask(), KEY)

        assert (await asked(service)).id == view.id


async def test_p11_a_changed_policy_voids_what_waits() -> None:
    """P11: what was approved was decided by one policy; reloading the same one changes nothing."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        second = await asked(service, IdempotencyKey("other", "body"))
        assert service.adopt_policy(policy(POLICY)) == 0
        assert await state_of(service, view.id) is TaskState.APPROVED
        changed = load_policy(
            [("policy.yaml", POLICY.replace("max: 30m", "max: 40m").encode())], DEFAULT_CLASSES
        )
        assert service.adopt_policy(changed) == 2

        for one in (view, second):
            shown = await service.show(caller(), one.id, NO_WAIT)
            assert (shown.state, waiting(shown).why) == (
                TaskState.DENIED,
                "the policy has changed",
            )
        with pytest.raises(Conflict):
            await asked(service)


def without_bob(*more: ApproverRecord) -> Directory:
    """The people, with others in bob's place."""
    return directory_of([*(one for one in PEOPLE if one.principal != "bob"), *more])


@pytest.mark.parametrize(
    ("directory", "why"),
    [
        (without_bob(), "no approver any more"),
        (without_bob(record("bob", Signer.ed25519(), groups=("leads",))), "no approver any more"),
        (without_bob(record("bob", BOB)), "does not name"),
        (without_bob(record("ann-2", BOB, groups=("leads",), uids=(1002,))), None),
    ],
    ids=["gone", "another key", "another group", "renamed"],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_p4_an_approver_who_was_taken_away_counts_no_more(
    directory: Directory, why: str | None, *, restarted: bool
) -> None:
    """P4: a reload without them, or a start, ends what waits on their approval."""
    world = a_world()
    world.approvers = known = Approvers(directory_of(PEOPLE), dict, world.clock)
    async with world.running(POLICY) as service:
        waits = await asked(service, IdempotencyKey("half", "body"))
        await service.approving.receive(0, says(world, waits, BOB))
        whole = await approved(service, world)
        if not restarted:
            known.replace(directory)
            assert service.adopt_policy(policy(POLICY)) == (0 if why is None else 2)
            await expect_void(service, waits, whole, why)
    if restarted:
        known.replace(directory)
        async with world.running(POLICY) as service:
            await expect_void(service, waits, whole, why)


async def expect_void(
    service: TaskService, waits: TaskView, whole: TaskView, why: str | None
) -> None:
    """Two requests are over for this reason, or go on."""
    shown = [await service.show(caller(), one.id, NO_WAIT) for one in (waits, whole)]
    if why is None:
        assert [one.state for one in shown] == [TaskState.AWAITING_APPROVAL, TaskState.APPROVED]
        return
    for one in shown:
        assert one.state is TaskState.DENIED
        assert why in (waiting(one).why or "")
    with pytest.raises(Conflict, match=why):
        await asked(service)


async def test_p4_an_approver_found_to_be_the_caller_counts_no_more() -> None:
    """P4: the uid that asked is written down as bob's afterwards."""
    world = a_world()
    world.approvers = known = Approvers(directory_of(PEOPLE), dict, world.clock)
    async with world.running(policy_text(1)) as service:
        await approved(service, world, [BOB])
        people = [one for one in PEOPLE if one.principal not in {"bob", "owner"}]
        known.replace(directory_of([*people, record("bob", BOB, groups=("leads",), uids=(1000,))]))
        service.adopt_policy(policy(policy_text(1)))
        with pytest.raises(Conflict, match="the caller's own"):
            await asked(service)


async def test_p4_taken_away_while_the_approval_is_written_it_does_not_count() -> None:
    """P4: the row is on its way to the disk when the reload comes."""
    world = a_world()
    world.approvers = known = Approvers(directory_of(PEOPLE), dict, world.clock)
    async with world.running(policy_text(1)) as service:
        view = await asked(service)
        world.ledger.gates[TaskState.APPROVED] = gate = asyncio.Event()
        bringing = asyncio.create_task(service.approving.receive(0, says(world, view, BOB)))
        await world.ledger.held.wait()
        known.replace(without_bob())
        assert service.adopt_policy(policy(policy_text(1))) == 0
        gate.set()
        await bringing
        assert await state_of(service, view.id) is TaskState.DENIED


async def test_p4_reissuing_rests_on_approvers_who_still_may() -> None:
    """P4: a running task goes on; it gets nothing more on the word of somebody taken away."""
    world = a_world()
    world.approvers = known = Approvers(directory_of(PEOPLE), dict, world.clock)
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        known.replace(without_bob())
        assert service.adopt_policy(policy(POLICY)) == 0
        assert await state_of(service, view.id) is TaskState.ACTIVE
        with pytest.raises(Denied, match="needs an approval"):
            await service.change(caller(), view.id, lambda one: one, None)


async def test_p4_a_withdrawn_identity_ends_what_waits() -> None:
    """P4: what vouched for the caller does not stand any more."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        assert service.end_withdrawn(lambda _authority: False) == 1

        shown = await service.show(caller(), view.id, NO_WAIT)
        assert (shown.state, shown.cause) == (TaskState.FAILED, EndCause.IDENTITY_WITHDRAWN)


async def test_an_automatic_condition_stands_for_the_approval_and_is_ledgered() -> None:
    """The first within an hour is approved by itself, as the intent says; the second waits."""
    world = a_world()
    async with world.running(policy_text(automatic="history.grants == 0")) as service:
        first = await asked(service)
        second = await asked(service, IdempotencyKey("other", "body"))

    assert (first.state, second.state) == (TaskState.ACTIVE, TaskState.AWAITING_APPROVAL)
    (intent,) = (entry for entry in world.ledger.entries if entry.event is Event.INTENT)
    scope = intent.facts["scope"]
    assert isinstance(scope, dict)
    assert "approval: automatic, history.grants == 0" in str(scope["trace"])


async def test_a_request_without_a_key_could_never_be_collected() -> None:
    """So it is not accepted."""
    world = a_world()
    async with world.running(POLICY) as service:
        with pytest.raises(BadRequest, match="Idempotency-Key"):
            await service.start(caller(), ask(), None)
    assert world.ledger.events() == []


async def test_somebody_elses_request_is_not_there() -> None:
    """Another uid of the same SPIFFE ID sees, collects and cancels nothing."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        stranger = caller(uid=2000)
        for ask_for in (
            service.show(stranger, view.id, NO_WAIT),
            service.end(stranger, view.id, EndCause.CANCELLED, NO_WAIT),
        ):
            with pytest.raises(NotFound):
                await ask_for
        own = await service.start(stranger, ask(), KEY)

        assert own.id != view.id
        assert own.state is TaskState.AWAITING_APPROVAL


async def test_a_request_is_no_task_yet() -> None:
    """It has no heartbeat and cannot be changed."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        with pytest.raises(Conflict, match="has not begun"):
            await service.heartbeat(caller(), view.id)


async def test_waiting_for_the_state_returns_when_it_is_approved() -> None:
    """`GET ?wait=` and the event stream tell of it as it happens; the stream ends with the task."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        looking = asyncio.create_task(service.show(caller(), view.id, SOON))
        states: list[TaskState] = []

        async def follow() -> None:
            following = await service.follow(caller(), view.id)
            with following:
                async for told in following.changes(SOON):
                    assert told is not None
                    states.append(told.view.state)

        streaming = asyncio.create_task(follow())
        await asyncio.sleep(0)
        for signer in (ANN, BOB):
            await service.approving.receive(0, says(world, view, signer))
        assert (await looking).state is TaskState.APPROVED
        await asked(service)
        async with asyncio.timeout(5):
            await streaming

    assert states[0] is TaskState.AWAITING_APPROVAL
    assert TaskState.APPROVED in states


async def test_p7_an_approval_that_cannot_be_recorded_does_not_count() -> None:
    """P7: durable before it has an effect; a denial has its effect first."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, ANN))
        world.ledger.full_at.add(Event.STATEMENT)
        text = says(world, view, BOB)
        with pytest.raises(Unavailable):
            await service.approving.receive(0, text)
        assert await state_of(service, view.id) is TaskState.AWAITING_APPROVAL
        with pytest.raises(Unavailable):
            await service.approving.receive(0, says(world, view, DPO, outcome="deny"))
        assert await state_of(service, view.id) is TaskState.DENIED


async def test_p7_a_withdrawal_that_cannot_be_recorded_has_its_effect_and_says_so() -> None:
    """P7: what takes away waits for no disk; what a crash could undo is not told to be done."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        world.ledger.full_at.add(Event.STATEMENT)
        with pytest.raises(Unavailable):
            await service.approving.receive(0, says(world, view, ANN, outcome="withdraw"))
        over = await service.show(caller(), view.id, SOON)
        assert (over.state, over.cause) == (TaskState.REVOKED, EndCause.APPROVAL_WITHDRAWN)


async def test_a_request_that_cannot_be_recorded_waits_for_nothing() -> None:
    """Nobody is told of it, and its place is free."""
    world = a_world()
    async with world.running(POLICY, limits=TaskLimits(pending=1)) as service:
        world.ledger.full_at.add(Event.AWAITING_APPROVAL)
        with pytest.raises(Unavailable):
            await asked(service)
        world.ledger.full_at.clear()

        assert (await asked(service)).state is TaskState.AWAITING_APPROVAL
    assert len(world.notifier.notices) == 1


async def test_cancelled_while_the_approval_is_written_it_stays_cancelled() -> None:
    """The row says approved, the row after it that it is over; nothing is ever minted."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        await service.approving.receive(0, says(world, view, ANN))
        go_on = world.ledger.gates[TaskState.APPROVED] = asyncio.Event()
        approving = asyncio.create_task(service.approving.receive(0, says(world, view, BOB)))
        await world.ledger.held.wait()
        await service.end(caller(), view.id, EndCause.CANCELLED, NO_WAIT)
        go_on.set()
        await approving

        assert await state_of(service, view.id) is TaskState.FAILED
        with pytest.raises(Conflict):
            await asked(service)


async def test_a_local_user_approves_only_where_that_is_on() -> None:
    """By the kernel's word for the uid; the same rules hold."""
    for local in (False, True):
        world = a_world(local=local)
        async with world.running(policy_text(quorum=1)) as service:
            view = await asked(service)
            shown = waiting(view)
            statement = Statement(
                view.id,
                shown.scope_digest,
                shown.policy_digest,
                Outcome.APPROVE,
                world.clock.utcnow() + SOON,
                "0123456789abcdef",
            )
            for uid in (1000, 1002):  # the caller's own, and nobody's
                with pytest.raises(Denied):
                    await service.approving.receive_local(uid, statement)
            if local:
                await service.approving.receive_local(1001, statement)
            else:
                with pytest.raises(Denied, match="switched off"):
                    await service.approving.receive_local(1001, statement)
            expected = TaskState.APPROVED if local else TaskState.AWAITING_APPROVAL
            assert await state_of(service, view.id) is expected


async def test_reissuing_rests_on_the_approval_and_a_change_does_not() -> None:
    """The same again needs no second approval; other parameters need a task of their own."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        changed = await service.change(caller(), view.id, lambda before: before, None)
        assert changed.revision == 2
        with pytest.raises(Denied, match="needs an approval"):
            await service.change(
                caller(), view.id, lambda one: replace(one, parameters={"region": "us"}), None
            )
        assert world.ledger.events().count(Event.REVISION_DENIED) == 1


PRIMARY = '      master: {secret: {mount: database, path: "creds/master-{region}"}}\n'
NAMED = '"group:leads", "user:dpo"'


@pytest.mark.parametrize(
    ("change", "granted"),
    [
        (("    scope:\n", f"    scope:\n{PRIMARY}"), False),
        ((NAMED, '"group:leads", "user:ciso"'), False),
        (("quorum: 2", "quorum: 3"), False),
        (("max: 30m}\n    ends", "max: 40m}\n    ends"), True),
    ],
    ids=["wider scope", "other approvers", "higher quorum", "what nobody approved anyway"],
)
async def test_reissuing_after_a_reload_gives_what_was_approved_or_nothing(
    change: tuple[str, str], *, granted: bool
) -> None:
    """The old yes is to the old plan, and to the people whom the policy named then."""
    world = a_world()
    changed = POLICY.replace(*change)
    assert changed != POLICY
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        assert service.adopt_policy(policy(changed)) == 0
        before = set(world.vault.alive)
        if granted:
            again = await service.change(caller(), view.id, lambda one: one, None)
            assert set(again.credentials or ()) == {"warehouse"}
            return
        with pytest.raises(Denied, match="needs an approval"):
            await service.change(caller(), view.id, lambda one: one, None)
        assert world.vault.alive == before
        assert world.ledger.events().count(Event.REVISION_DENIED) == 1


async def test_reissuing_needs_the_proof_that_was_shown() -> None:
    """As collecting does: who asks, and how that was proven, is in the plan."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        other = replace(caller(), method=IdentityMethod.X509_SVID)
        with pytest.raises(Denied, match="needs an approval"):
            await service.change(other, view.id, lambda one: one, None)


async def flooded(service: TaskService, uids: Iterable[int]) -> None:
    """Each of these users brings garbage until they may bring no more."""
    for uid in uids:
        for _ in range(PER_MINUTE_OF_UID):
            with pytest.raises(Denied):
                await service.approving.receive(uid, "x")
        with pytest.raises(LimitExceeded):
            await service.approving.receive(uid, "x")


async def test_p10_statements_are_paced() -> None:
    """P10: each refusal costs a durable row; over the limit none is written, for a minute."""
    world = a_world()
    async with world.running(POLICY) as service:
        await flooded(service, [0])
        assert world.ledger.events().count(Event.STATEMENT_REFUSED) == PER_MINUTE_OF_UID
        world.clock.pass_time(timedelta(seconds=50))
        with pytest.raises(LimitExceeded, match="uid 0") as caught:
            await service.approving.receive(0, "x")
        assert timedelta(seconds=8) < caught.value.retry_after < timedelta(seconds=11)
        world.clock.pass_time(timedelta(seconds=11))
        await flooded(service, [0])


async def test_p10_what_one_user_brings_leaves_places_for_others() -> None:
    """P10: somebody else's approval counts while one uid floods; all together have a limit too."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        crowd = range(PER_MINUTE // PER_MINUTE_OF_UID)
        await flooded(service, crowd[:-1])
        await service.approving.receive(1001, says(world, view, ANN))
        with pytest.raises(LimitExceeded, match=f"{PER_MINUTE} statements per minute is"):
            await flooded(service, crowd[-1:])
        rows = world.ledger.events()
        assert rows.count(Event.STATEMENT_REFUSED) + rows.count(Event.STATEMENT) == PER_MINUTE


@pytest.mark.parametrize("outcome", ["deny", "withdraw"])
async def test_p4_no_flood_holds_up_what_takes_away(outcome: str) -> None:
    """P4: also from the very user who floods; brought again it counts for nothing and is paced."""
    world = a_world()
    async with world.running(POLICY) as service:
        if outcome == "deny":
            view = await asked(service)
        else:
            view = await approved(service, world)
            await asked(service)
            world.clock.pass_time(timedelta(minutes=1))
        await flooded(service, range(PER_MINUTE // PER_MINUTE_OF_UID))
        again = says(world, view, ANN, outcome=outcome)
        await service.approving.receive(0, again)
        ended = await service.show(caller(), view.id, SOON)
        assert ended.state in {TaskState.DENIED, TaskState.REVOKED}
        with pytest.raises(LimitExceeded):
            await service.approving.receive(0, again)


@pytest.mark.parametrize("reboot", [False, True])
async def test_p8_a_restart_keeps_requests_approvals_and_what_they_stand_behind(
    *, reboot: bool
) -> None:
    """P8: half approved, approved and active ones alike; a used statement stays used."""
    world = a_world()
    keys = [IdempotencyKey(name, "body") for name in ("half", "whole", "active", "denied")]
    async with world.running(POLICY) as service:
        half, whole, active, denied = [await asked(service, key) for key in keys]
        text = says(world, half, ANN)
        await service.approving.receive(0, text)
        for view in (whole, active):
            for signer in (ANN, BOB):
                await service.approving.receive(0, says(world, view, signer))
        await asked(service, keys[2])
        await service.approving.receive(0, says(world, denied, BOB, outcome="deny"))
    # As if killed before the row that ends a denied request: the denial itself was recorded.
    rows = world.ledger.entries
    world.ledger.entries = [row for row in rows if row.event is not Event.REQUEST_ENDED]
    if reboot:
        world.boot_id = "boot-2"
        world.clock.boot_offset -= 1_000_000
    async with world.running(POLICY) as service:
        assert await state_of(service, half.id) is TaskState.AWAITING_APPROVAL
        assert await state_of(service, whole.id) is TaskState.APPROVED
        assert await state_of(service, denied.id) is TaskState.DENIED
        with pytest.raises(Denied, match="used before"):
            await service.approving.receive(0, text)
        await service.approving.receive(0, says(world, half, DPO))
        for key, view in ((keys[0], half), (keys[1], whole)):
            task = await asked(service, key)
            assert (task.id, task.state) == (view.id, TaskState.ACTIVE)
        await service.approving.receive(0, says(world, active, ANN, outcome="withdraw"))
        over = await service.show(caller(), active.id, SOON)
        assert (over.state, over.cause) == (TaskState.REVOKED, EndCause.APPROVAL_WITHDRAWN)


async def test_p8_time_goes_on_while_the_daemon_is_away() -> None:
    """P8: what expired meanwhile is over at the next start, and so is what another policy says."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
    world.clock.pass_time(timedelta(hours=1))
    async with world.running(POLICY) as service:
        with pytest.raises(Conflict, match="not collected"):
            await asked(service)

    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
    async with world.running(POLICY.replace("max: 30m", "max: 40m")) as service:
        shown = await service.show(caller(), view.id, NO_WAIT)
        assert (shown.state, waiting(shown).why) == (TaskState.DENIED, "the policy has changed")


async def test_p8_a_clock_set_back_over_a_reboot_prolongs_nothing() -> None:
    """P8: what is left is at most what there was."""
    world = a_world()
    async with world.running(POLICY) as service:
        await approved(service, world)
    world.boot_id = "boot-2"
    world.clock.wall_offset -= timedelta(days=300)
    async with world.running(POLICY) as service:
        world.clock.pass_time(timedelta(minutes=31))
        with pytest.raises(Conflict, match="not collected"):
            await asked(service)


async def test_an_approval_that_expired_by_the_wall_clock_is_not_collected() -> None:
    """Its `not_after` is of the wall clock, which can jump while the boot clock does not."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        world.clock.wall_offset += timedelta(minutes=11)
        with pytest.raises(Conflict, match="not collected"):
            await asked(service)
        assert await state_of(service, view.id) is TaskState.EXPIRED_UNUSED


async def test_p8_a_withdrawal_that_was_recorded_ends_the_task_after_a_crash() -> None:
    """P8: killed between the statement's row and the end's: the task is not adopted."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await asked(service)
        await service.approving.receive(0, says(world, view, ANN, outcome="withdraw"))
        await service.show(caller(), view.id, SOON)
    ended = [Event.ENDING, Event.REVOKED]
    world.ledger.entries = [one for one in world.ledger.entries if one.event not in ended]
    async with world.running(POLICY) as service:
        over = await service.show(caller(), view.id, SOON)
        assert (over.state, over.cause) == (TaskState.REVOKED, EndCause.APPROVAL_WITHDRAWN)


async def test_p8_a_row_nobody_heard_of_makes_no_second_person() -> None:
    """P8: written, and told to have failed; the same person's next one counts in its place."""
    world = a_world()
    text = policy_text(3)
    async with world.running(text) as service:
        view = await asked(service)
        world.ledger.unheard = {Event.STATEMENT}
        with pytest.raises(Unavailable):
            await service.approving.receive(0, says(world, view, ANN))
        world.ledger.unheard = set()
        request = await service.approving.receive(0, says(world, view, ANN_TOO))
        assert len(request.tally.approvals) == 1
    async with world.running(text) as service:
        request = await service.approving.receive(0, says(world, view, BOB))
        assert len(request.tally.approvals) == 2
        assert request.state is TaskState.AWAITING_APPROVAL
        request = await service.approving.receive(0, says(world, view, DPO))
        assert request.state is TaskState.APPROVED


async def test_p8_a_carrier_that_hangs_up_multiplies_no_statement() -> None:
    """P8: the row is on its way when its carrier goes, and the same statement comes again."""
    world = a_world()
    text = policy_text(3)
    async with world.running(text) as service:
        view = await asked(service)
        statement = says(world, view, ANN)
        world.ledger.unheard = {Event.STATEMENT}
        for _ in range(2):
            with pytest.raises(Unavailable):
                await service.approving.receive(0, statement)
        world.ledger.unheard = set()
    assert world.ledger.events().count(Event.STATEMENT) == 2
    async with world.running(text) as service:
        request = await service.approving.receive(0, says(world, view, BOB))
        assert len(request.tally.approvals) == 2
        assert request.state is TaskState.AWAITING_APPROVAL


async def test_p8_a_withdrawal_under_another_name_outlives_a_restart() -> None:
    """P8: whose approval it takes back is asked as it was when it came."""
    world = a_world()
    ann = "spiffe://example.org/ann"
    text = POLICY.replace('"user:dpo"', f'"user:dpo", "{ann}"')
    authority = root("example.org")
    bundles = {"example.org": (authority.certificate,)}
    world.approvers = known = Approvers(directory_of(PEOPLE), lambda: bundles, world.clock)
    leaf = authority.workload(ann)
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    async with world.running(text) as service:
        view = await asked(service)
        by_svid = says(world, view, Signer(leaf.key), header={"kid": None, "x5c": chain(leaf)})
        await service.approving.receive(0, by_svid)
        # The ID is written down as ann's, who withdraws with her key.
        people = [one for one in PEOPLE if one.principal != "ann"]
        known.replace(
            directory_of((*people, record("ann", ANN, groups=("leads",), spiffe_ids=(ann,))))
        )
        request = await service.approving.receive(0, says(world, view, ANN, outcome="withdraw"))
        assert request.tally.approvals == ()
    async with world.running(text) as service:
        request = await service.approving.receive(0, says(world, view, BOB))
        assert len(request.tally.approvals) == 1
        assert request.state is TaskState.AWAITING_APPROVAL


async def test_operators_see_no_end_of_requests_and_can_end_them() -> None:
    """The kill switch ends what waits too."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        by = EndedBy(0, "incident")
        order = await service.operators.revoke(lambda _one: True, EndCause.OPERATOR, by)

        assert order.matched == 0
        shown = await service.show(caller(), view.id, NO_WAIT)
        assert (shown.state, shown.cause) == (TaskState.FAILED, EndCause.OPERATOR)
        async with asyncio.timeout(5):
            while world.ledger.entries[-1].event is not Event.REQUEST_ENDED:
                await asyncio.sleep(0)
    row = world.ledger.entries[-1]
    assert row.facts["by_uid"] == 0
    assert row.free_text["reason"] == "incident"


async def test_a_key_used_twice_at_once_lets_one_request_wait() -> None:
    """The second finds the request of the first."""
    world = a_world()
    async with world.running(policy_text()) as service:
        one, two = await asyncio.gather(asked(service), asked(service))
        assert one.id == two.id
        assert len(service.approving.waiting_now()) == 1
