"""The request for a revision's token: by role, one policy, named and described after the task."""

from taskmint.model.task_id import vault_name
from taskmint.ports import TokenRequest

from .revision import Revision
from .task import Task


def token_request(node: str, task: Task, revision: Revision) -> TokenRequest:
    """Build it; the metadata is what ties Vault's audit lines to the ledger."""
    return TokenRequest(
        role=revision.scope.token_role,
        policy=revision.scope.token_policy,
        display_name=vault_name(node, task.id),
        meta={"task": task.id, "spiffe_id": str(task.owner.spiffe_id), "node": node},
    )
