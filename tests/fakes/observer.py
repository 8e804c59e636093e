"""An observer that remembers."""

from dataclasses import dataclass, field

from taskmint.errors import Limit
from taskmint.model.scope import Scope
from taskmint.model.state import EndCause
from taskmint.ports import Answered, RenewalOutcome, VaultCall


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

    def emergency(self, definition: str, moment: str) -> None:
        """An emergency."""
        self.events.append(f"emergency {definition} {moment}")

    def ended(self, definition: str, cause: EndCause) -> None:
        """An end."""
        self.events.append(f"ended {definition} {cause}")

    def revoked(self, definition: str, seconds: float) -> None:
        """A proven revocation."""
        del seconds
        self.events.append(f"revoked {definition}")

    def limited(self, limit: Limit) -> None:
        """A limit met."""
        self.events.append(f"limited {limit}")

    def renewal(self, outcome: RenewalOutcome) -> None:
        """A renewal."""
        self.events.append(f"renewal {outcome}")

    def vault_called(self, mount: str, call: VaultCall, answered: Answered, seconds: float) -> None:
        """A call to Vault."""
        assert seconds >= 0
        self.events.append(f"vault {mount} {call} {answered}")

    def recorded(self, seconds: float) -> None:
        """A durable row."""
        assert seconds >= 0
        self.events.append("recorded")
