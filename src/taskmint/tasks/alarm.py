"""
What a break-glass task did to everybody who should hear of it; it cannot be switched off.

A line at alert level in the journal, a count, and a notice where there is anybody to be told.
"""

from taskmint.ports import Notice

from .outside import Outside
from .task import Task


def alarm(outside: Outside, task: Task, moment: str) -> None:
    """Raise the alarm for a break-glass task; nothing for any other."""
    scope = task.scope
    if not scope.break_glass:
        return
    request, cause = task.given.request, task.cause
    outside.observer.emergency(scope.definition, moment)
    outside.log.critical(
        "break_glass",
        alarm=True,
        moment=moment,
        task=task.id,
        definition=scope.definition,
        spiffe_id=str(task.owner.spiffe_id),
        uid=task.owner.uid,
        ticket=request.ticket,
        purpose=request.purpose,
        cause=cause,
    )
    outside.notifier.notify(
        Notice(
            f"break_glass_{moment}",
            task.id,
            {
                "definition": scope.definition,
                "spiffe_id": str(task.owner.spiffe_id),
                "uid": task.owner.uid,
                "ticket": request.ticket,
                "purpose": request.purpose,
                "expires_at": task.expires_at.isoformat(timespec="seconds"),
                "cause": cause.value if cause else None,
            },
        )
    )
