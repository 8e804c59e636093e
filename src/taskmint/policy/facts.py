"""What is known of a request in, the facts that conditions may read, by their dotted names, out."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from taskmint.model.scope import DecisionInput

# How each fixed variable of condition.py is read; the lifetime is the one asked for.
READERS: Final[Mapping[str, Callable[[DecisionInput, timedelta], object]]] = MappingProxyType(
    {
        "caller.spiffe_id": lambda given, _: str(given.caller.spiffe_id),
        "caller.trust_domain": lambda given, _: given.caller.spiffe_id.trust_domain,
        "caller.path": lambda given, _: given.caller.spiffe_id.path,
        "caller.uid": lambda given, _: given.caller.uid,
        "caller.method": lambda given, _: given.caller.method.value,
        "now": lambda given, _: aware(given.now),
        "history.grants": lambda given, _: given.history.grants,
        "history.denials": lambda given, _: given.history.denials,
        "history.processes": lambda given, _: given.history.processes,
        "request.purpose": lambda given, _: given.request.purpose,
        "request.ticket": lambda given, _: given.request.ticket or "",
        "request.context": lambda given, _: given.request.context,
        "request.lifetime": lambda _, lifetime: lifetime,
    }
)


def read_facts(
    names: Iterable[str],
    given: DecisionInput,
    lifetime: timedelta,
    groups: Mapping[str, Mapping[str, object]],
) -> dict[str, object]:
    """
    Read the facts that are named; what is not known is left out.

    `groups` holds what has names of its own: request.parameters, caller.captures, host.
    """
    facts: dict[str, object] = {}
    for name in names:
        reader = READERS.get(name)
        if reader is not None:
            facts[name] = reader(given, lifetime)
            continue
        group, _, key = name.rpartition(".")
        if key in groups[group]:
            facts[name] = groups[group][key]
    return facts


def aware(moment: datetime) -> datetime:
    """Take a time without a zone for UTC, and not for the machine's."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
