"""What identities usually get here: counted as it is minted, in memory, since the start."""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from taskmint.model.scope import Scope
from taskmint.model.spiffe import SpiffeId

MOST_IDENTITIES: Final = 10_000
MOST_REQUESTS: Final = 200  # of each identity


@dataclass(frozen=True, slots=True)
class Unusual:
    """
    A scope beside what its identity got before: `starts` of it, and of each request how often.

    A request is a method and a path, such as `GET database/creds/orders-ro-eu`.
    """

    starts: int
    before: tuple[tuple[str, int], ...]  # what is asked for, and how often it was given
    never: tuple[str, ...]  # what is asked for and was never given


class Habits:
    """Remembers, of the identities that were here last, what they were given."""

    def __init__(self) -> None:
        self._given: OrderedDict[SpiffeId, Counter[str]] = OrderedDict()
        self._starts: Counter[SpiffeId] = Counter()

    def note(self, identity: SpiffeId, scope: Scope) -> None:
        """Count what a task was given."""
        given = self._given.setdefault(identity, Counter())
        self._given.move_to_end(identity)
        self._starts[identity] += 1
        for request in _requests(scope):
            if request in given or len(given) < MOST_REQUESTS:
                given[request] += 1
        if len(self._given) > MOST_IDENTITIES:
            oldest, _ = self._given.popitem(last=False)
            del self._starts[oldest]

    def compare(self, identity: SpiffeId, scope: Scope) -> Unusual:
        """Say what of a scope this identity was given before, and what never."""
        given = self._given.get(identity, Counter())
        asked = _requests(scope)
        return Unusual(
            starts=self._starts[identity],
            before=tuple((request, given[request]) for request in asked if request in given),
            never=tuple(request for request in asked if request not in given),
        )


def _requests(scope: Scope) -> list[str]:
    return [f"{item.method} {item.mount}/{item.path}" for item in scope.entitlements]
