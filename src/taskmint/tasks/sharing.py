"""Equal scopes to one object: ten thousand tasks of a definition need not hold ten thousand."""

from dataclasses import replace
from typing import Final

from taskmint.model.scope import Scope

MOST_KINDS: Final = 4096  # more than that many kinds are not worth keeping


class SharedScopes:
    """Knows of each definition and token policy the scope that was given last."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], Scope] = {}

    def same(self, scope: Scope) -> Scope:
        """Return a scope's equal, without its trace, which the ledger has by now."""
        scope = replace(scope, trace=())
        kind = scope.definition, scope.token_policy
        latest = self._latest.get(kind)
        if latest == scope:
            return latest
        if len(self._latest) >= MOST_KINDS:
            self._latest.clear()
        self._latest[kind] = scope
        return scope
