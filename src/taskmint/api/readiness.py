"""Whether tasks can be started now, and what is missing if not."""

from collections.abc import Callable, Mapping

from .bodies import ComponentReply, ReadyReply

Components = Mapping[str, Callable[[], str | None]]


def readiness(components: Components) -> ReadyReply:
    """Ask every component; each answers None or a reason."""
    reasons = {name: ask() for name, ask in components.items()}
    return ReadyReply(
        status="ready" if not any(reasons.values()) else "not_ready",
        components={
            name: ComponentReply(status="not_ready" if reason else "ok", reason=reason)
            for name, reason in reasons.items()
        },
    )
