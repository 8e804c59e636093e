"""The request for a task's token: by role, one policy, named and described after the task."""

from taskmint.model.task_id import vault_name
from taskmint.ports import TokenRequest

from .task import Task


def token_request(node: str, task: Task) -> TokenRequest:
    """Build it; the metadata is what ties Vault's audit lines to the ledger."""
    return TokenRequest(
        role=task.scope.token_role,
        policy=task.scope.token_policy,
        display_name=vault_name(node, task.id),
        meta={"task": task.id, "spiffe_id": str(task.owner.spiffe_id), "node": node},
    )
