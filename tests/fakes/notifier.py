"""A notifier that remembers."""

from dataclasses import dataclass, field

from taskmint.ports import Notice


@dataclass
class Heard:
    """What people would have been told."""

    notices: list[Notice] = field(default_factory=list)

    def notify(self, notice: Notice) -> None:
        """Remember it."""
        self.notices.append(notice)

    def kinds(self) -> list[str]:
        """The kinds, in order."""
        return [notice.kind for notice in self.notices]
