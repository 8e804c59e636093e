"""A world in which one definition needs the yes of two people, and the people."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from identity.approver import Signer, claims, record
from taskmint.identity.approvers import Approvers, directory_of
from taskmint.model.state import TaskState
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import IdempotencyKey
from taskmint.tasks.views import ApprovalView, TaskView

from tasks.world import World, ask, caller

AGENT: Final = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: agent
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    when: caller.uid < 5000 && history.denials < 100
    approval: {from: ["group:leads", "user:dpo"], quorum: QUORUM, within: 30m AUTOMATIC}
    deadline: {default: 5m, max: 30m}
    ends: {heartbeat: 60s}
    scope:
      warehouse: {secret: {mount: database, path: "creds/orders-ro-{region}"}}
"""

ANN, ANN_TOO, BOB, DPO, EVE, OWNER = (Signer.ed25519() for _ in range(6))
KEY: Final = IdempotencyKey("key", "body")
PEOPLE: Final = (
    record("ann", ANN, ANN_TOO, groups=("leads",), uids=(1001,)),
    record("bob", BOB, groups=("leads",)),
    record("dpo", DPO),
    record("eve", EVE, groups=("staff",)),
    record("owner", OWNER, groups=("leads",), uids=(1000,)),
)


def policy_text(quorum: int = 2, automatic: str = "") -> str:
    """The definition; `automatic` is a condition."""
    condition = f", automatic: '{automatic}'" if automatic else ""
    return AGENT.replace("QUORUM", str(quorum)).replace(" AUTOMATIC", condition)


def a_world(*, local: bool = False) -> World:
    """A world that knows the people."""
    world = World()
    world.approvers = Approvers(directory_of(PEOPLE), dict, world.clock, local=local)
    return world


async def asked(service: TaskService, key: IdempotencyKey = KEY) -> TaskView:
    """Ask for the report, under a key."""
    return await service.start(caller(), ask(), key)


def waiting(view: TaskView) -> ApprovalView:
    """What a view says of the approval."""
    assert view.approval is not None
    return view.approval


def says(
    world: World,
    view: TaskView,
    signer: Signer,
    life: timedelta | None = None,
    header: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """A statement about what was shown; `header` changes its header."""
    shown = waiting(view)
    until = world.clock.utcnow() + (life or timedelta(minutes=10))
    body = claims(
        int(until.timestamp()),
        task=view.id,
        scope_digest=shown.scope_digest,
        policy_digest=shown.policy_digest,
        **more,
    )
    return signer.sign(body, **(header or {}))


async def approved(
    service: TaskService, world: World, signers: Sequence[Signer] = (ANN, BOB)
) -> TaskView:
    """Ask, and let them all approve."""
    view = await asked(service)
    for signer in signers:
        await service.approving.receive(0, says(world, view, signer))
    shown = await service.show(caller(), view.id, timedelta())
    assert shown.state is TaskState.APPROVED
    return view
