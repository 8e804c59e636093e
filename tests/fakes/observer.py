"""An observer that remembers."""

from dataclasses import dataclass, field

from taskmint.model.scope import Scope
from taskmint.model.state import EndCause


@dataclass
class Seen:
    """What was observed, as short texts."""

    events: list[str] = field(default_factory=list)

    def started(self, scope: Scope, seconds: float) -> None:
        """A start."""
        del seconds
        self.events.append(f"started {scope.definition}")

    def refused(self, code: str) -> None:
        """A refusal."""
        self.events.append(f"refused {code}")

    def shadowed(self, definition: str, verdict: str) -> None:
        """A shadow's word."""
        self.events.append(f"shadowed {definition} {verdict}")

    def ended(self, definition: str, cause: EndCause) -> None:
        """An end."""
        self.events.append(f"ended {definition} {cause}")

    def revoked(self, definition: str, seconds: float) -> None:
        """A proven revocation."""
        del seconds
        self.events.append(f"revoked {definition}")

    def renewal(self, outcome: str) -> None:
        """A renewal."""
        self.events.append(f"renewal {outcome}")
